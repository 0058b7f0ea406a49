"""The processes of the tests here: commands of the service, and what they start."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import asyncpg
import psutil
import redis

TIMEOUT = 40.0


class Command:
    """A `chat-service` command in a session of its own, as a terminal starts it."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        # Each start writes anew, and none reads what an earlier one said.
        self._out, self._err = folder / f"out-{time.monotonic_ns()}", folder / f"err-{time.monotonic_ns()}"
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env={**kept, **env},
                start_new_session=True,
                # As a terminal starts it, also where nohup has these tests ignore a terminal that closes.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509 - there are no threads
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, text: str) -> str:
        """Wait until the command has said something; gives all that it said."""
        wait_until(lambda: text in self.out + self.err or self.process.poll() is not None, TIMEOUT)
        assert text in self.out + self.err, f"it ended with {self.process.returncode}: {self.out}{self.err}"
        return self.out

    def interrupt(self) -> None:
        """Press Ctrl-C, which reaches the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ends(self, seconds: float = TIMEOUT) -> int:
        """Wait for the end; gives the exit code."""
        code = self.process.wait(seconds)
        assert "Traceback" not in self.out + self.err
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def uses(process: psutil.Process, folder: Path) -> bool:
    try:
        return str(folder) in " ".join(process.cmdline()) or process.cwd().startswith(str(folder))
    except psutil.Error:
        return False


def processes_of(folder: Path) -> list[psutil.Process]:
    """List what runs in a folder or on its files."""
    return [process for process in psutil.process_iter() if uses(process, folder)]


def running(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


async def ask(url: str, query: str):
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def ping(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return client.ping()
