"""The connection to PostgreSQL: Tortoise's pool, bounded, and what to make of it when it is away."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg
from tortoise import Tortoise
from tortoise.backends.base.client import BaseDBAsyncClient
from tortoise.connection import get_connection
from tortoise.exceptions import DBConnectionError

from app import migrations
from app.errors import ServiceUnavailable
from app.setting_types import Url

POOL_SIZE = 10
# What one use-case may take, waits for a connection included, before its caller is told to come back.
DEADLINE = 5.0
CONNECT_TIMEOUT = 3.0
WATCH_INTERVAL = 1.0
WATCH_PATIENCE = 2.0
# Kept below the deadline, so that PostgreSQL gives up before the caller does.
STATEMENT_TIMEOUT_MS = 4000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 10_000
SERVER_SETTINGS = {
    "application_name": "chat-service",
    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
    "timezone": "UTC",
}
_APP = "chat"
_LATEST = max(path.stem for path in Path(migrations.__file__).parent.glob("[0-9]*.py"))

LAST_MIGRATION = "SELECT true FROM tortoise_migrations WHERE app = $1 AND name = $2"
_log = logging.getLogger(__name__)

# No patience helps a command against these; a process that serves waits until somebody has mended it.
REFUSED = (
    asyncpg.ClientConfigurationError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)

# What asyncpg, the event loop and the kernel raise when PostgreSQL is not there, goes away or does not let us in.
AWAY = (
    OSError,
    TimeoutError,
    DBConnectionError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    *REFUSED,
)


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


def configuration(url: Url) -> dict[str, Any]:
    """Describe the database to Tortoise, for the service and for its migrations alike."""
    return {
        "connections": {
            "default": {
                "engine": "tortoise.backends.asyncpg",
                "credentials": {
                    **credentials(url),
                    "minsize": 1,
                    "maxsize": POOL_SIZE,
                    "timeout": CONNECT_TIMEOUT,
                    "server_settings": SERVER_SETTINGS,
                    "reset": keep,
                },
            },
        },
        "apps": {_APP: {"models": ["app.models"], "migrations": "app.migrations"}},
        "use_tz": True,
        "timezone": "UTC",
    }


async def keep(connection: asyncpg.Connection) -> None:
    """Take a connection back as it is, without a round trip: nothing is ever set on one.

    What asyncpg does by itself is left for a transaction that somebody did not end.
    """
    if connection.is_in_transaction():
        await connection.reset()


@asynccontextmanager
async def opened(url: Url) -> AsyncIterator[None]:
    """Open Tortoise for the life of the process; it connects when first used, so PostgreSQL may come later."""
    await Tortoise.init(config=configuration(url), _enable_global_fallback=True)
    try:
        yield
    finally:
        await Tortoise.close_connections()


def connection() -> BaseDBAsyncClient:
    """Give the pool on which statements run outside a transaction."""
    return get_connection("default")


class Database:
    """Whether PostgreSQL answers, looked at all the time on a connection of its own: callers are told at once."""

    def __init__(self, url: Url) -> None:
        self._url = url
        self._deadlines = Deadlines(DEADLINE)
        # Until the first look has shown otherwise.
        self._there = asyncio.Event()
        self._looked = asyncio.Event()
        # Set whenever PostgreSQL is there anew: what it has may be older than what was seen of it.
        self.returned = asyncio.Event()

    @property
    def is_away(self) -> bool:
        return not self._there.is_set()

    async def when_there(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something once PostgreSQL answers and is up to date: before that every statement would fail."""
        await self._there.wait()
        await work()

    def deadline(self) -> "Deadline":
        """Bound what a use-case waits for PostgreSQL; raises ServiceUnavailable when that is away or too slow."""
        if self.is_away:
            raise ServiceUnavailable
        return Deadline(self._deadlines)

    async def first_look(self) -> None:
        """Wait until it is known whether PostgreSQL answers."""
        await self._looked.wait()

    async def watch_forever(self) -> None:
        """Look every second whether PostgreSQL answers; each reason why not is told once."""
        told = ""
        while True:
            try:
                await self._watch()
            except AWAY as error:
                reason = str(error) or type(error).__name__
                if reason != told or not self.is_away:
                    _log.warning("PostgreSQL is away: %s", reason)
                told = reason
            finally:
                # Whoever waits for the first look must not wait for ever, whatever it came to.
                self._there.clear()
                self._looked.set()
            await asyncio.sleep(WATCH_INTERVAL)

    async def _watch(self) -> None:
        watching = await asyncpg.connect(**credentials(self._url), timeout=CONNECT_TIMEOUT)
        try:
            await self._await_migrations(watching)
            self._there.set()
            self._looked.set()
            self.returned.set()
            while True:
                await asyncio.sleep(WATCH_INTERVAL)
                await watching.fetchval("SELECT 1", timeout=WATCH_PATIENCE)
        finally:
            watching.terminate()

    async def _await_migrations(self, watching: asyncpg.Connection) -> None:
        """Wait until somebody has brought the database up to date: before that every statement would fail."""
        is_told = False
        while not await _is_migrated(watching):
            self._there.clear()
            self._looked.set()
            if not is_told:
                _log.warning("the database is not up to date, waiting for `chat-service migrate`")
            is_told = True
            await asyncio.sleep(WATCH_INTERVAL)

    async def is_ready(self) -> bool:
        """Tell whether PostgreSQL answers and is up to date."""
        return not self.is_away and await is_available()


class Deadlines(dict["Deadline", float]):
    """When each use-case under way must end, in that order: one timer for all, since all may take as long."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def add(self, deadline: "Deadline") -> None:
        loop = asyncio.get_running_loop()
        ends_at = self[deadline] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(ends_at, self._end_due)

    def _end_due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for deadline, ends_at in list(self.items()):
            if ends_at > loop.time():
                self._timer = loop.call_at(ends_at, self._end_due)
                break
            del self[deadline]
            deadline.end()


class Deadline:
    """A timeout for one use-case; it ends as ServiceUnavailable, and so does what says that PostgreSQL is away."""

    __slots__ = ("_all", "_cancelling", "_is_over", "_task")

    def __init__(self, among: Deadlines) -> None:
        self._all = among
        self._is_over = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._all.add(self)

    def end(self) -> None:
        self._is_over = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        found = error
        if self._is_over:
            # A cancellation that somebody else asked for as well is theirs.
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                found = TimeoutError()
        else:
            del self._all[self]
        if isinstance(found, AWAY):
            raise unavailable(found) from found


def unavailable(error: Exception) -> Exception:
    """Make ServiceUnavailable of what says that PostgreSQL is away; all else stays as it is."""
    if not isinstance(error, AWAY):
        return error
    _log.warning("PostgreSQL is away: %s", str(error) or type(error).__name__)
    return ServiceUnavailable()


async def _is_migrated(watching: asyncpg.Connection) -> bool:
    try:
        found = await watching.fetchval(LAST_MIGRATION, _APP, _LATEST, timeout=WATCH_PATIENCE)
    except asyncpg.UndefinedTableError:
        return False
    return bool(found)


async def is_available() -> bool:
    """Tell whether PostgreSQL answers, within a second."""
    try:
        async with asyncio.timeout(1):
            await connection().execute_query_dict("SELECT 1")
    except AWAY:
        return False
    return True
