"""Real processes of the service, started and stopped by tests."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

SECRET = "a-secret-of-the-tests-that-signs-user-tokens"
INTERNAL_SECRET = "a-secret-of-the-tests-for-the-internal-api"
ISSUER = "master-service"
ORIGIN = "https://app.example.com"
ACTIONS = ("SEND", "WRITE", "CREATE", "READ", "TYPING", "CONNECT", "SYNC")
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], Coroutine[Any, Any, bool]], what: str, within: float = 10.0) -> None:
    """Wait for a condition; fails with `what` when it does not come true."""
    end = asyncio.get_running_loop().time() + within
    while not await condition():
        assert asyncio.get_running_loop().time() < end, f"{what}: not within {within:g} s"
        await asyncio.sleep(0.02)


def environment(database_url: str, redis_url: str, **more: str) -> dict[str, str]:
    """Give the environment of a process: nothing of the developer's own settings gets in."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "AUTH_JWT_SECRET": SECRET,
        "AUTH_JWT_ISSUER": ISSUER,
        "INTERNAL_API_SECRET": INTERNAL_SECRET,
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "HTTP_HOST": "127.0.0.1",
        "WS_HOST": "127.0.0.1",
        "ALLOWED_ORIGINS": ORIGIN,
        "DRAIN_TIMEOUT": "2s",
        # Tests do more than people; those that are about limits set their own.
        **{f"RATE_LIMIT_{action}": "0" for action in ACTIONS},
        **more,
    }


class Process:
    """One `chat-service` command with a health of its own at `http`, and its log."""

    # The command that starts it, where it is to run under something.
    under: tuple[str, ...] = ()

    def __init__(self, command: str, env: dict[str, str], log: Path, http_port: int) -> None:
        self.http_port = http_port
        self.http = f"http://127.0.0.1:{http_port}"
        self.log = log
        self._command = command
        self._env = env
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *, ready: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.under, sys.executable, "-m", "app", self._command, env=self._env, stdout=log, stderr=log
            )
        path = "/health/ready" if ready else "/health/live"
        async with aiohttp.ClientSession() as session:
            await until(lambda: self._answers(session, path), f"{path} of `{self._command}`", START_TIMEOUT)

    async def _answers(self, session: aiohttp.ClientSession, path: str) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()
        try:
            async with session.get(self.http + path) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        assert self.process is not None
        async with asyncio.timeout(STOP_TIMEOUT):
            return await self.process.wait()

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.signal(signal.SIGTERM)
            await self.exit_code()

    def errors(self) -> list[str]:
        """List what the process logged that it should never have to."""
        return [line for line in self.log.read_text().splitlines() if '"level":"ERROR"' in line]


class Pod(Process):
    """One `chat-service serve`, with its ports."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        self.ws_port = free_port()
        self.ws = f"http://127.0.0.1:{self.ws_port}"
        http_port = free_port()
        env = {**env, "HTTP_PORT": str(http_port), "WS_PORT": str(self.ws_port)}
        super().__init__("serve", env, log, http_port)


class Worker(Process):
    """One `chat-service worker`."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        port = free_port()
        super().__init__("worker", {**env, "WORKER_PORT": str(port)}, log, port)


@asynccontextmanager
async def pods(env: dict[str, str], folder: Path, count: int) -> AsyncIterator[list[Pod]]:
    """Run so many pods on one database and one Redis."""
    started = [Pod(env, folder / f"pod-{number}.log") for number in range(count)]
    try:
        await asyncio.gather(*(pod.start() for pod in started))
        yield started
    finally:
        for pod in started:
            await pod.kill()
