"""Server processes, each on its core, started and stopped in order."""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.machine import cpu_seconds, running_on

START_SECONDS = 30.0
STOP_SECONDS = 10.0
# A server is at rest when it uses less than this of its core, or when we have waited long enough for that.
AT_REST = 0.08
REST_LOOK_SECONDS = 0.2
REST_SECONDS = 15.0


class ServerError(Exception):
    """A server does not start, or died; the message ends with what it logged last."""


@dataclass(frozen=True)
class Server:
    """One running process."""

    process: asyncio.subprocess.Process
    http_port: int
    ws_port: int
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    async def stop(self) -> None:
        if self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


def inherited() -> dict[str, str]:
    """Give what a process needs of our environment: nothing of the developer's settings gets in."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start(command: Sequence[str], env: Mapping[str, str], log: Path, cores: AbstractSet[int]) -> Server:
    """Start a process on these cores and wait until it is ready; raises ServerError."""
    http_port, ws_port = free_port(), free_port()
    environment = {**inherited(), **env, "HTTP_PORT": str(http_port), "WS_PORT": str(ws_port)}
    with log.open("wb") as output, running_on(cores):
        # A session of its own: Ctrl-C must reach us alone, who then stop all in order.
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    server = Server(process, http_port, ws_port, log)
    try:
        await _await_ready(server)
    except BaseException:
        await server.stop()
        raise
    return server


async def _await_ready(server: Server) -> None:
    url = f"http://127.0.0.1:{server.http_port}/health/ready"
    end = asyncio.get_running_loop().time() + START_SECONDS
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            if server.process.returncode is not None or asyncio.get_running_loop().time() > end:
                raise ServerError(f"A server does not start; its log ends with:\n{server.last_words()}")
            await asyncio.sleep(0.05)


async def at_rest(servers: Sequence[Server]) -> None:
    """Wait until what the last run left behind is done, so that no run pays for another one."""
    end = asyncio.get_running_loop().time() + REST_SECONDS
    while asyncio.get_running_loop().time() < end:
        before = sum(cpu_seconds(server.pid) for server in servers)
        await asyncio.sleep(REST_LOOK_SECONDS)
        if sum(cpu_seconds(server.pid) for server in servers) - before <= AT_REST * REST_LOOK_SECONDS:
            return


PYTHON = sys.executable
