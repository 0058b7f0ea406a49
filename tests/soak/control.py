"""The harness's own way to the databases: straight to the servers, patient, and never taken for the service."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

import aiohttp
import asyncpg
import redis.asyncio

ATTEMPT_TIMEOUT = 30.0
DEADLINE = 90.0
PAUSE = 0.5
# What a busy machine or a lost connection makes of a command to a server that is up.
HICCUPS = (
    OSError,
    TimeoutError,
    aiohttp.ClientError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    redis.asyncio.RedisError,
)

Result = TypeVar("Result")


class HarnessError(Exception):
    """The soak itself cannot go on; it says nothing about the service."""


def causes(errors: BaseExceptionGroup[HarnessError]) -> str:
    """Say what failed, out of all that a group of groups has."""
    return "; ".join(causes(one) if isinstance(one, BaseExceptionGroup) else str(one) for one in errors.exceptions)


async def insist(what: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Try again until it works; raises HarnessError where it does not within 90 s."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT):
                return await attempt()
        except HICCUPS as error:
            if time.monotonic() > end:
                raise HarnessError(f"{what} fails for {DEADLINE:g} s: {error!r}") from error
        await asyncio.sleep(PAUSE)


async def command_redis(url: str, *command: Any) -> None:
    """Have Redis do what does no harm when it is done twice; raises HarnessError."""

    async def attempt() -> None:
        async with redis.asyncio.from_url(
            url,
            single_connection_client=True,
            socket_connect_timeout=ATTEMPT_TIMEOUT,
            socket_timeout=ATTEMPT_TIMEOUT,
        ) as client:
            await client.execute_command(*command)

    await insist(f"{command[0]} of the harness to Redis", attempt)


async def connect_postgres(url: str) -> asyncpg.Connection:
    """Connect for the harness; raises HarnessError."""
    return await insist(
        "a connection of the harness to PostgreSQL", lambda: asyncpg.connect(url, timeout=ATTEMPT_TIMEOUT)
    )


class Database:
    """Reads PostgreSQL, on a connection that is made again where it is lost; use it as a block."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.terminate()

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        """Read rows; raises HarnessError."""

        async def attempt() -> list[Any]:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._url, timeout=ATTEMPT_TIMEOUT)
            try:
                return list(await self._connection.fetch(query, *values))
            except BaseException:
                self._connection.terminate()
                raise

        return await insist("a query of the harness to PostgreSQL", attempt)
