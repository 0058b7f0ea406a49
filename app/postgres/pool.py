"""Connections to PostgreSQL: how they are made, lent, taken back and ended; transactions are in `transactions`.

The module is the engine that Tortoise is told to use: its `client_class` lends connections of asyncpg's pool. Any
await here may be cancelled: what is taken is given back or ended.
"""

import asyncio
import random
import socket
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg
from asyncpg.exceptions._base import DataError as BadValue
from asyncpg.pool import PoolConnectionProxy
from tortoise.backends.asyncpg.client import AsyncpgDBClient
from tortoise.connection import get_connection
from tortoise.exceptions import IntegrityError, OperationalError

from app.config.types import Url
from app.postgres.errors import AWAY, TRY_AGAIN, RolledBackError

CONNECT_TIMEOUT = 3.0
# How long a statement that was cancelled, or a rollback, may take before its connection is ended, in seconds.
ENDING_PATIENCE = 1.0
# Kept below the deadline of a use-case, so that PostgreSQL gives up before the caller does.
STATEMENT_TIMEOUT_MS = 4000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 10_000
# What a role or a database has set for itself must not change what the service does.
SERVER_SETTINGS = {
    "application_name": "chat-service",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
    "lock_timeout": "0",
    "timezone": "UTC",
}
# For how long the other side may leave unanswered what was sent, and a connection on which nothing is, in seconds.
SILENCE = 5
# What a conflict rolled back is done again after these, in seconds, give or take a half.
PAUSES = (0.02, 0.05, 0.1, 0.2)

_R = TypeVar("_R")


def _no_silence() -> list[tuple[int, int, int]]:
    """List what a socket is set to, so that the kernel notices a host that is gone without a word."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (
        ("TCP_USER_TIMEOUT", SILENCE * 1000),
        ("TCP_KEEPIDLE", SILENCE),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", 3),
    ):
        # Not every platform has each of them.
        if (option := getattr(socket, name, None)) is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options


_NO_SILENCE = _no_silence()


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that notices a host that is gone."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *others: Any, **more: Any) -> None:
        super().__init__(protocol, transport, *others, **more)
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family in {socket.AF_INET, socket.AF_INET6}:
            for option in _NO_SILENCE:
                connected.setsockopt(*option)


# Those of all pools of this process.
_pooled: weakref.WeakSet["PooledConnection"] = weakref.WeakSet()


class PooledConnection(Connection):
    """A connection of a pool, which is ended with all others when PostgreSQL is found to be away."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        _pooled.add(self)


# Connections that are given back after a failure, until they are.
_releasing: set[asyncio.Task[None]] = set()


def terminate_pooled() -> None:
    """End all connections of the pools: whoever waits for one gets an error, and the pools connect anew."""
    for connected in list(_pooled):
        if not connected.is_closed():
            connected.terminate()


def credentials(url: Url) -> dict[str, Any]:
    """Take a `postgresql://` address apart into what asyncpg's pool wants."""
    parts = urlsplit(url.reveal())
    options = dict(parse_qsl(parts.query))
    found: dict[str, Any] = {
        "host": options.pop("host", None) or parts.hostname or "localhost",
        "port": int(options.pop("port", None) or parts.port or 5432),
        "user": unquote(parts.username or options.pop("user", "postgres")),
        "password": unquote(parts.password or options.pop("password", "")),
        "database": unquote(parts.path.lstrip("/")) or "postgres",
    }
    if sslmode := options.pop("sslmode", None):
        found["ssl"] = sslmode
    return found


def pool_options(url: Url) -> dict[str, Any]:
    """Describe the connections of every pool to asyncpg; they are made when first used."""
    return {
        **credentials(url),
        "timeout": CONNECT_TIMEOUT,
        "server_settings": SERVER_SETTINGS,
        "connection_class": PooledConnection,
        "reset": keep,
    }


async def connect(url: Url, patience: float = CONNECT_TIMEOUT) -> asyncpg.Connection:
    """Make a connection that belongs to no pool."""
    made = await asyncpg.connect(**credentials(url), timeout=patience, connection_class=Connection)
    return cast("asyncpg.Connection", made)


async def keep(connected: asyncpg.Connection) -> None:
    """Take a connection back as it is, without a round trip: nothing is ever set on one.

    What asyncpg does by itself is left for a transaction that somebody did not end.
    """
    if connected.is_in_transaction():
        await connected.reset()


@contextmanager
def ending() -> Iterator[None]:
    """Run nothing but asyncpg: what it raises where its connection is ended under it becomes an InterfaceError."""
    try:
        yield
    except (AttributeError, RuntimeError) as error:
        raise asyncpg.InterfaceError(f"the connection was ended: {error}") from error


@contextmanager
def translated() -> Iterator[None]:
    """Run a statement: an error of it or its values becomes one of Tortoise, all else stays as it is."""
    try:
        with ending():
            yield
    except asyncpg.IntegrityConstraintViolationError as error:
        raise IntegrityError(error) from error
    except BadValue as error:
        raise OperationalError(error) from error
    except AWAY:
        raise
    except asyncpg.PostgresError as error:
        raise OperationalError(error) from error


class Client(AsyncpgDBClient):
    """Lends connections of a pool for one statement each."""

    async def _translate_exceptions(self, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        with translated():
            return await func(self, *args, **kwargs)

    def acquire_connection(self) -> Any:
        return Lent(self)

    async def lend(self) -> PoolConnectionProxy:
        """Take a connection of the pool, which somebody must give back."""
        if self._pool is None:
            async with self._pool_init_lock:
                if self._pool is None:
                    await self.create_connection(with_db=True)
        assert self._pool is not None
        return await self._pool.acquire()

    async def give_back(self, lent: PoolConnectionProxy, *, is_clean: bool) -> None:
        """Take a connection back; one that cannot be used any more is ended, and its place is free."""
        if self._pool is None:
            lent.terminate()
            return
        if is_clean:
            await self._release(lent, None)
            return
        # In a task of its own, which ends also where whoever waits for it is cancelled once more.
        releasing = asyncio.get_running_loop().create_task(self._release(lent, ENDING_PATIENCE))
        _releasing.add(releasing)
        releasing.add_done_callback(_releasing.discard)
        await asyncio.shield(releasing)

    async def _release(self, lent: PoolConnectionProxy, patience: float | None) -> None:
        """Release a connection; without a time asyncpg waits for ever for a cancellation that a dead host has."""
        assert self._pool is not None
        # What was asked is answered or has failed already: this is nobody's failure any more.
        with suppress(Exception):
            await self._pool.release(lent, timeout=patience)

    async def execute_query_dict(self, query: str, values: list[Any] | None = None) -> list[dict[str, Any]]:
        """Run a statement that is its own transaction, and again where a conflict rolled it back."""
        run: Callable[[], Awaitable[list[dict[str, Any]]]] = partial(super().execute_query_dict, query, values)
        try:
            return await run()
        except TRY_AGAIN:
            return await again(run, TRY_AGAIN)


client_class = Client


class Lent:
    """A connection of the pool for the length of a block."""

    __slots__ = ("_client", "_lent")

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __aenter__(self) -> PoolConnectionProxy:
        self._lent = await self._client.lend()
        return self._lent

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.give_back(self._lent, is_clean=kind is None)


def connection() -> Client:
    """Give the client of the pool that is open."""
    return cast("Client", get_connection("default"))


async def again(
    work: Callable[[], Awaitable[_R]], conflicts: tuple[type[Exception], ...] = (RolledBackError,)
) -> _R:
    """Do anew what a conflict rolled back, some times, a little later each; its last failure is raised."""
    for pause in PAUSES:
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - nobody gains by guessing it
        with suppress(*conflicts):
            return await work()
    return await work()
