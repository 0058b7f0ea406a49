"""The commands of the documentation, run by a shell as they stand there, beside a `chat-service dev`."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg
import pages
import pytest
from databases import new_database
from pods import free_port, until
from processes import processes_of

EVERYTHING_RUNS = "Everything runs."
TIMEOUT = 60
# `.venv/bin/chat-service` and `chat-service`, wherever the tests are installed.
SERVICE = f"""#!/bin/sh
exec {sys.executable} -m app "$@"
"""


@dataclass(frozen=True)
class Dev:
    """A `chat-service dev`, and a folder that looks like that of a newcomer."""

    folder: Path
    # The ports of the pages, and those that are free here.
    ports: dict[str, int]

    def run(self, script: str, **more: str) -> str:
        """Run a script; gives what it prints, and fails where one of its commands does."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(script)],
            cwd=self.folder,
            env={"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", **more},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def here(self, text: str) -> str:
        for port, own in self.ports.items():
            text = re.sub(rf"(localhost|127\.0\.0\.1):{port}\b", f"127.0.0.1:{own}", text)
            text = text.replace(f"PORT={port} ", f"PORT={own} ")
        return text


@pytest.fixture(scope="module", params=["demo", "own master"])
def dev(request, shared_folder, shared_command) -> Iterator[Dev]:
    """Start the service as the README does, and as the quickstart does for a master of one's own."""
    ports = {port: free_port() for port in ("3000", "4000", "4001", "4002", "8080")}
    found = Dev(shared_folder, ports)
    for place in (shared_folder / "bin", shared_folder / ".venv" / "bin"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "chat-service").write_text(SERVICE)
        (place / "chat-service").chmod(0o755)
        if not (place / "python").exists():
            (place / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
            (place / "python").chmod(0o755)
    env = {"HTTP_PORT": "4000", "WS_PORT": "4001", "WORKER_PORT": "4002", "DEMO_PORT": "3000"}
    env = {name: f"{ports[port]}" for name, port in env.items()}
    arguments = ["dev", "--data", request.param.replace(" ", "-")]
    if request.param == "own master":
        (line, started) = pages.code("docs/quickstart.md", "sh")[2].splitlines()
        env |= dict(re.findall(r"([A-Z_]+)=(\S+)", found.here(line + " " + started)))
        assert started.endswith(".venv/bin/chat-service dev --no-demo")
        arguments.append("--no-demo")
    running = shared_command(*arguments, **env)
    running.says(EVERYTHING_RUNS)
    running.says("WEBHOOK_SECRET")
    yield found
    running.interrupt()
    assert running.ends(10) == 0
    assert processes_of(shared_folder) == []


@pytest.mark.parametrize("dev", ["demo"], indirect=True)
def test_the_two_minutes_with_curl_of_the_readme(dev):
    (_, _, walk) = pages.code("README.md", "sh")
    answers = [
        json.loads(line) for line in re.findall(r"\{.*?\}(?=\{|$)", dev.run(walk), re.DOTALL | re.MULTILINE)
    ]
    synced, sent, again, conversations, history, read = answers
    assert synced == {"success": True}
    assert sent["content"] == "Hello"
    assert again == sent
    assert [one["unreadCount"] for one in conversations["items"]] == [1]
    assert [one["id"] for one in history["items"]] == [sent["id"]]
    assert read["lastReadSeq"] == sent["seq"]


@pytest.mark.parametrize("dev", ["demo"], indirect=True)
def test_the_first_look_of_troubleshooting(dev):
    look = pages.code("docs/troubleshooting.md", "sh")[0]
    given = {
        "AUTH_JWT_SECRET": "x" * 32,
        "AUTH_JWT_ISSUER": "x",
        "INTERNAL_API_SECRET": "y" * 32,
        "DATABASE_URL": "postgresql://chat:secret@127.0.0.1/chat",
        "REDIS_URL": "redis://127.0.0.1/0",
    }
    out = dev.run(look, **given)
    assert "MAX_SOCKETS " in out
    assert "HTTP/1.1 200 OK" in out
    assert "\nchat_database_up 1.0\n" in out


@pytest.mark.parametrize("dev", ["own master"], indirect=True)
async def test_a_master_of_ones_own_by_the_quickstart(dev, http_of_a_walk):
    variables, login = pages.code("docs/quickstart.md", "sh")[3:5]
    (master,) = pages.code("docs/master-python.md", "python")
    (dev.folder / "master.py").write_text(master)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euc", dev.here(variables).replace("PORT=", "exec env PORT=")),
        cwd=dev.folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{dev.ports['8080']}"

    async def listens() -> bool:
        assert process.returncode is None
        try:
            async with http_of_a_walk.get(url):
                return True
        except aiohttp.ClientError:
            return False

    try:
        await until(listens, "the master of the quickstart", 20.0)
        assert json.loads(await asyncio.to_thread(dev.run, login)) == {"items": []}
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
async def http_of_a_walk():
    async with aiohttp.ClientSession() as session:
        yield session


async def test_the_statements_for_postgresql_do_what_the_pages_say(server_urls):
    (looking,) = pages.code("docs/troubleshooting.md", "sql")
    async with new_database(server_urls[0]) as url:
        connection = await asyncpg.connect(url)
        try:
            assert await connection.fetch(looking) == []
        finally:
            await connection.close()


async def test_a_role_that_owns_its_database_needs_no_other_right(server_urls, command):
    (making,) = pages.code("docs/deploy-infrastructure.md", "sql")
    name = f"chat_walk_{free_port()}"
    role, database = [
        re.sub(r"\bchat\b", name, statement).strip() for statement in making.split(";") if statement.strip()
    ]
    admin = await asyncpg.connect(server_urls[0])
    try:
        await admin.execute(role)
        await admin.execute(database)
        server = server_urls[0].rpartition("@")[2].rpartition("/")[0]
        migrating = command("migrate", DATABASE_URL=f"postgresql://{name}:change-me@{server}/{name}")
        assert await asyncio.to_thread(migrating.ends) == 0
        assert "The database is up to date." in migrating.out
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.execute(f"DROP ROLE IF EXISTS {name}")
        await admin.close()
