"""What can break while people talk: each kind runs two pods and gives what makes its trouble."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import redis.asyncio
from leak import leaking
from pods import Pod, pods

from app.dev.valkey import start_valkey

Trouble = tuple[list[Pod], Callable[[], Awaitable[None]]]


@asynccontextmanager
async def calm(servers, folder) -> AsyncIterator[Trouble]:
    async def nothing() -> None:
        return

    async with pods(servers.environment(), folder, 2) as started:
        yield started, nothing


@asynccontextmanager
async def pubsub_killed(servers, folder) -> AsyncIterator[Trouble]:
    async def kill() -> None:
        control = redis.asyncio.from_url(servers.redis_url)
        for _ in range(8):
            await control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(1)
        await control.aclose()

    async with pods(servers.environment(), folder, 2) as started:
        yield started, kill


@asynccontextmanager
async def redis_stopped(servers, folder) -> AsyncIterator[Trouble]:
    with tempfile.TemporaryDirectory() as name:
        valkeys = [start_valkey(Path(name))]

        async def stop_and_start() -> None:
            await asyncio.to_thread(valkeys[0].stop)
            await asyncio.sleep(5)
            valkeys.append(await asyncio.to_thread(start_valkey, Path(name)))

        try:
            async with pods({**servers.environment(), "REDIS_URL": valkeys[0].url}, folder, 2) as started:
                yield started, stop_and_start
        finally:
            valkeys[-1].stop()


@asynccontextmanager
async def messages_dropped(servers, folder) -> AsyncIterator[Trouble]:
    async with leaking(servers.redis_url) as leak:

        async def drop() -> None:
            for _ in range(5):
                leak.is_leaking = True
                await asyncio.sleep(0.7)
                leak.is_leaking = False
                await asyncio.sleep(0.3)

        async with pods({**servers.environment(), "REDIS_URL": leak.url}, folder, 2) as started:
            yield started, drop


@asynccontextmanager
async def pod_killed(servers, folder) -> AsyncIterator[Trouble]:
    async with pods(servers.environment(), folder, 2) as started:

        async def kill_and_start() -> None:
            await asyncio.sleep(1)
            started[0].signal(signal.SIGKILL)
            await started[0].exit_code()
            await asyncio.sleep(1)
            await started[0].start()

        yield started, kill_and_start
