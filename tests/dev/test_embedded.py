import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
import redis
from processes import ask, ping, processes_of, running, wait_until

from app.dev import embedded
from app.dev.embedded import EmbeddedError, EmbeddedServer
from app.dev.postgres import start_postgres
from app.dev.valkey import start_valkey

ROOT = Path(__file__).parents[2]
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# An owner of servers that this test can kill, interrupt, or let go by closing its standard input.
OWNER = """
import json, os, signal, sys
from pathlib import Path
from app.dev import postgres
from app.dev.embedded import EmbeddedError
from app.dev.postgres import start_postgres
from app.dev.valkey import start_valkey

folder, user = Path(sys.argv[1]), int(sys.argv[2])
if user != os.geteuid():
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
try:
    servers = [start_postgres(folder), start_valkey(folder)]
except EmbeddedError as error:
    sys.exit(print(json.dumps({"error": str(error)}), flush=True))
# An interruption may come as soon as the report has been read, so from here on it only leaves word.
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"interrupted\\n"))
print(json.dumps({"pids": [s.pid for s in servers], "urls": [s.url for s in servers]}), flush=True)
sys.stdin.read()
for server in reversed(servers):
    server.stop()
"""


class Owner:
    def __init__(self, folder: Path, user: int) -> None:
        # Its standard error is that of the test: a traceback must not be lost.
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder), str(user)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        return self.process.stdout.readline()

    def report(self) -> dict:
        return json.loads(self.line())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def release(self) -> int:
        self.process.stdin.close()
        return self.process.wait(30)


@pytest.fixture
def owner(folder) -> Iterator[Callable[..., Owner]]:
    owners = []

    def start(path: Path = folder, user: int = os.geteuid()) -> Owner:
        owners.append(Owner(path, user))
        return owners[-1]

    yield start
    for each in owners:
        each.kill()
        each.process.stdin.close()
        each.process.stdout.close()


@pytest.fixture
def started() -> Iterator[Callable[[EmbeddedServer], EmbeddedServer]]:
    servers = []

    def keep(server: EmbeddedServer) -> EmbeddedServer:
        servers.append(server)
        return server

    yield keep
    for server in servers:
        server.stop()


@pytest.fixture
def bystander() -> Iterator[Callable[..., subprocess.Popen]]:
    processes = []

    def start(*arguments: str, **options) -> subprocess.Popen:
        command = ["/bin/sh", "-c", "read line", "sh", *arguments]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def no_reaper() -> Iterator[None]:
    """Orphans are left unreaped, as in a container whose first process does not care for them."""
    prctl, set_child_subreaper = ctypes.CDLL(None).prctl, 36
    assert prctl(set_child_subreaper, 1) == 0
    before = set(psutil.Process().children())
    yield
    for orphan in set(psutil.Process().children()) - before:
        orphan.wait(10)
    assert prctl(set_child_subreaper, 0) == 0


async def test_data_survives_a_stop_in_a_long_path_with_spaces(folder, started):
    deep = folder / ("my chat data " * 12)[:150].strip() / "data"
    first = started(start_postgres(deep))
    await ask(first.url, "CREATE TABLE note AS SELECT 'kept' AS text")
    assert await ask(first.url, "SHOW fsync") == "on"
    assert await ask(first.url, "SHOW max_connections") == "200"
    assert await ask(first.url, "SHOW listen_addresses") == "127.0.0.1"
    first.stop()
    first.stop()
    assert not running(first.pid)

    second = started(start_postgres(deep))
    assert await ask(second.url, "SELECT text FROM note") == "kept"
    assert second.url == first.url


def test_valkey_starts_empty_and_keeps_nothing_on_disk(folder, started):
    deep = folder / ("my chat data " * 12)[:150].strip() / "data"
    first = started(start_valkey(deep))
    with redis.Redis.from_url(first.url) as client:
        client.set("presence", "1")
        assert client.config_get("save", "maxmemory", "appendonly", "bind") == {
            "save": "",
            "maxmemory": "0",
            "appendonly": "no",
            "bind": "127.0.0.1",
        }
    first.stop()
    assert not running(first.pid)
    assert not list(deep.rglob("*.rdb"))

    second = started(start_valkey(deep))
    with redis.Redis.from_url(second.url) as client:
        assert client.dbsize() == 0
    assert second.url == first.url


async def test_nobody_gets_in_without_the_password(folder, started):
    postgres = urlsplit(started(start_postgres(folder)).url)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(f"postgresql://postgres:guess@127.0.0.1:{postgres.port}/postgres", "SELECT 1")
    valkey = urlsplit(started(start_valkey(folder)).url)
    with pytest.raises(redis.AuthenticationError):
        ping(f"redis://127.0.0.1:{valkey.port}/0")
    secrets = [folder / "postgres" / "password", folder / "valkey.password", folder / "valkey.conf"]
    assert [file.stat().st_mode & 0o077 for file in secrets] == [0, 0, 0]


@as_root
async def test_an_ordinary_user_starts_both_and_root_continues(folder, owner, started):
    data = folder / "data"
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)
    ordinary = owner(data, NOBODY)
    report = ordinary.report()
    assert [psutil.Process(pid).uids().effective for pid in report["pids"]] == [NOBODY, NOBODY]
    assert await ask(report["urls"][0], "SELECT 1") == 1
    assert ping(report["urls"][1])
    assert ordinary.release() == 0

    mine = started(start_postgres(data))
    assert psutil.Process(mine.pid).uids().effective == NOBODY
    assert await ask(mine.url, "SELECT 1") == 1


async def test_servers_left_by_a_killed_owner_are_replaced_and_no_others(folder, owner, started, bystander):
    left = owner()
    report = left.report()
    await ask(report["urls"][0], "CREATE TABLE note AS SELECT 'kept' AS text")
    left.kill()
    assert all(running(pid) for pid in report["pids"])
    command = " ".join(psutil.Process(report["pids"][0]).cmdline())
    quoting = bystander(command)
    other = started(start_postgres(folder / "other"))

    postgres, valkey = started(start_postgres(folder)), started(start_valkey(folder))
    assert not any(running(pid) for pid in report["pids"])
    assert [postgres.url, valkey.url] == report["urls"]
    assert await ask(postgres.url, "SELECT text FROM note") == "kept"
    assert ping(valkey.url)
    assert quoting.poll() is None
    assert await ask(other.url, "SELECT 1") == 1


@pytest.mark.parametrize("content", ["{pid}\nof before the machine went down\n", ""])
async def test_a_pid_file_left_by_a_killed_postgres_is_overcome(folder, owner, started, bystander, content):
    left = owner()
    report = left.report()
    left.kill()
    postmaster = psutil.Process(report["pids"][0])
    user = postmaster.uids().effective
    postmaster.kill()
    wait_until(lambda: not running(postmaster.pid))
    pid_file = folder / "postgres" / "data" / "postmaster.pid"
    assert pid_file.read_text().startswith(f"{postmaster.pid}\n")
    # A pid of the same user: PostgreSQL overlooks those of others by itself.
    heir = bystander(user=user)
    pid_file.write_text(content.format(pid=heir.pid))

    server = started(start_postgres(folder))
    assert await ask(server.url, "SELECT 1") == 1
    assert heir.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can play such a container")
@pytest.mark.usefixtures("no_reaper")
async def test_a_killed_postgres_that_nobody_reaps_is_overcome(folder, owner, started):
    left = owner()
    postmaster = psutil.Process(left.report()["pids"][0])
    left.kill()
    postmaster.kill()
    wait_until(lambda: not running(postmaster.pid))
    assert postmaster.status() == psutil.STATUS_ZOMBIE

    before = time.monotonic()
    server = started(start_postgres(folder))
    assert await ask(server.url, "SELECT 1") == 1
    assert time.monotonic() - before < 5


async def test_a_first_start_killed_half_way_leaves_nothing_to_clean(folder, owner, started):
    half = owner()
    wait_until(lambda: any(folder.glob("postgres.new-*/data/PG_VERSION")))
    half.kill()

    server = started(start_postgres(folder))
    assert await ask(server.url, "SELECT 1") == 1


@pytest.mark.parametrize("start", [start_postgres, start_valkey])
async def test_a_second_owner_is_told_of_the_first(folder, owner, start):
    first = owner()
    report = first.report()
    with pytest.raises(EmbeddedError, match=rf"in use by process {first.process.pid}\b"):
        start(folder)
    assert await ask(report["urls"][0], "SELECT 1") == 1
    assert ping(report["urls"][1])


async def test_ctrl_c_reaches_the_owner_and_not_the_servers(owner):
    interrupted = owner()
    report = interrupted.report()
    os.killpg(interrupted.process.pid, signal.SIGINT)
    assert interrupted.line() == "interrupted\n"
    assert [os.getsid(pid) for pid in report["pids"]] == report["pids"]
    assert await ask(report["urls"][0], "SELECT 1") == 1
    assert ping(report["urls"][1])
    assert interrupted.release() == 0
    assert not any(running(pid) for pid in report["pids"])


@pytest.mark.parametrize("start", [start_postgres, start_valkey])
def test_a_server_that_hangs_is_killed(folder, started, monkeypatch, start):
    server = started(start(folder))
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.5)
    psutil.Process(server.pid).suspend()
    before = time.monotonic()
    server.stop()
    assert time.monotonic() - before < 5
    assert not running(server.pid)


@pytest.mark.parametrize("start", [start_postgres, start_valkey])
def test_a_server_that_died_by_itself_can_be_stopped_and_started(folder, started, start):
    server = started(start(folder))
    psutil.Process(server.pid).kill()
    server.stop()
    again = started(start(folder))
    assert running(again.pid)
    assert again.pid != server.pid


async def test_a_taken_port_is_passed_over(folder, started):
    first = started(start_postgres(folder))
    first.stop()
    with closing(socket.create_server(("127.0.0.1", urlsplit(first.url).port))):
        second = started(start_postgres(folder))
        assert urlsplit(second.url).port != urlsplit(first.url).port
        assert await ask(second.url, "SELECT 1") == 1


async def test_the_end_of_the_log_says_why_it_does_not_start(folder, started):
    started(start_postgres(folder)).stop()
    settings = folder / "postgres" / "data" / "postgresql.conf"
    whole = settings.read_text()
    settings.write_text(f"{whole}\nno_such_setting = on\n")
    with pytest.raises(EmbeddedError, match="no_such_setting"):
        start_postgres(folder)

    settings.write_text(whole)
    assert await ask(started(start_postgres(folder)).url, "SELECT 1") == 1


def test_a_start_that_takes_too_long_leaves_no_process(folder, started, monkeypatch):
    started(start_postgres(folder)).stop()
    monkeypatch.setattr(embedded, "_START_SECONDS", 0)
    with pytest.raises(EmbeddedError, match="postgres does not start"):
        start_postgres(folder)
    assert processes_of(folder) == []


def test_data_of_another_major_version_is_refused(folder, started):
    started(start_postgres(folder)).stop()
    (folder / "postgres" / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 17 .* move the folder away"):
        start_postgres(folder)


@pytest.mark.parametrize("start", [start_postgres, start_valkey])
def test_a_folder_that_cannot_be_made_is_an_error_of_one_sentence(folder, start):
    (folder / "file").touch()
    with pytest.raises(EmbeddedError, match=r"Cannot write in the data folder .*file/data .*choose another"):
        start(folder / "file" / "data")


@as_root
def test_a_folder_of_somebody_else_is_an_error_of_one_sentence(folder, owner):
    assert "make it writable for this user" in owner(folder, NOBODY).report()["error"]


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
async def test_root_starts_in_a_folder_closed_to_others_and_leaves_it_closed(folder, started):
    folder.chmod(0o700)
    first = started(start_postgres(folder / "data"))
    assert psutil.Process(first.pid).uids().effective != 0
    await ask(first.url, "CREATE TABLE note AS SELECT 'kept' AS text")
    first.stop()
    assert not running(first.pid)
    second = started(start_postgres(folder / "data"))
    assert await ask(second.url, "SELECT text FROM note") == "kept"
    assert folder.stat().st_mode & 0o777 == 0o700


@as_root
def test_root_without_setpriv_is_told_of_a_folder_closed_to_others(folder, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    folder.chmod(0o700)
    with pytest.raises(EmbeddedError, match=rf"chmod o\+x {folder}`"):
        start_postgres(folder / "data")
    assert folder.stat().st_mode & 0o777 == 0o700
