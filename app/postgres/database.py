"""PostgreSQL for a process: open it, watch whether it answers, and bound how long a use case waits for it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import asyncpg
from tortoise import Tortoise

from app.config.types import Url
from app.contract.errors import ServiceUnavailable
from app.postgres import errors as postgres_errors
from app.postgres import migrations, pool
from app.postgres.errors import AWAY, REFUSED, RolledBackError, is_away, unavailable
from app.postgres.pool import (
    CONNECT_TIMEOUT,
    SERVER_SETTINGS,
    connect,
    connection,
    ending,
    keep,
    pool_options,
)
from app.postgres.statements import statement

__all__ = [
    "AWAY",
    "CONNECT_TIMEOUT",
    "REFUSED",
    "SERVER_SETTINGS",
    "RolledBackError",
    "connect",
    "connection",
    "ending",
    "is_away",
    "keep",
    "pool_options",
    "unavailable",
]

POOL_SIZE = 10
# The connections that lists and other heavy reads may take at once: changes and connects never wait for them.
HEAVY_READS = 4
# What one use-case may take, waits for a connection included, before its caller gets a 503, in seconds.
DEADLINE = 5.0
WATCH_INTERVAL = 1.0
WATCH_PATIENCE = 2.0
# How long somebody waits who asks whether PostgreSQL is there.
READY_PATIENCE = 1.0
_APP = "chat"
_LATEST = max(path.stem for path in Path(migrations.__file__).parent.glob("[0-9]*.py"))

IS_MIGRATED = statement("is_migrated")
IS_STANDBY = statement("is_standby")

# Whether a use-case is done again: what it did was counted the first time.
IS_AGAIN: ContextVar[bool] = ContextVar("is_again", default=False)

_R = TypeVar("_R")
_log = logging.getLogger(__name__)


def configuration(url: Url) -> dict[str, Any]:
    """Describe the database to Tortoise, for the service and for its migrations alike."""
    return {
        "connections": {
            "default": {
                "engine": pool.__name__,
                # None is made before it is needed: a process starts while PostgreSQL is away.
                "credentials": {**pool_options(url), "minsize": 0, "maxsize": POOL_SIZE},
            },
        },
        "apps": {_APP: {"models": ["app.postgres.models"], "migrations": "app.postgres.migrations"}},
        "use_tz": True,
        "timezone": "UTC",
    }


@asynccontextmanager
async def opened(url: Url) -> AsyncIterator[None]:
    """Open Tortoise for the life of the process; it connects when first used, so PostgreSQL may come later."""
    await Tortoise.init(config=configuration(url), _enable_global_fallback=True)
    try:
        yield
    finally:
        await Tortoise.close_connections()


class Database:
    """Whether PostgreSQL answers, checked every second on its own connection: else callers fail at once."""

    def __init__(self, url: Url) -> None:
        self._url = url
        self._deadlines = Deadlines(DEADLINE)
        # Until the first check has shown otherwise.
        self._there = asyncio.Event()
        self._looked = asyncio.Event()
        # Set by whoever wants to know now; the next answer wakes all of them.
        self._asked = asyncio.Event()
        self._answered = asyncio.Event()
        # Set whenever PostgreSQL is there anew: what it has may be older than what was seen of it.
        self.returned = asyncio.Event()
        self._was_lost = False
        # Taken for as long as a heavy read lasts.
        self.heavy_reads = asyncio.Semaphore(HEAVY_READS)

    @property
    def is_away(self) -> bool:
        return not self._there.is_set()

    async def when_there(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something once PostgreSQL answers and is up to date: before that every statement would fail."""
        await self._there.wait()
        await work()

    async def serve(self, use_case: Callable[[], Awaitable[_R]]) -> _R:
        """Do a use-case within its deadline, and again where others had PostgreSQL roll its change back.

        Raises ServiceUnavailable when PostgreSQL is away or too slow. What is done again was not committed
        and is announced to nobody; rate limits count it once.
        """
        async with self.deadline():
            try:
                return await use_case()
            except RolledBackError:
                return await self.serve_again(use_case)

    async def serve_again(self, use_case: Callable[[], Awaitable[_R]]) -> _R:
        """Do a use-case again, within the deadline that has begun, which others had PostgreSQL roll back."""
        token = IS_AGAIN.set(True)
        try:
            return await pool.again(use_case)
        finally:
            IS_AGAIN.reset(token)

    def deadline(self) -> "Deadline":
        """Bound what a use-case waits for PostgreSQL; raises ServiceUnavailable when that is away or too slow."""
        if self.is_away:
            raise ServiceUnavailable
        return Deadline(self._deadlines)

    async def first_look(self) -> None:
        """Wait until it is known whether PostgreSQL answers."""
        await self._looked.wait()

    async def watch_forever(self) -> None:
        """Check every second whether PostgreSQL answers; each reason why not is logged once."""
        while True:
            try:
                await self._watch()
            except Exception as error:
                if not is_away(error):
                    raise
                postgres_errors.note(error)
                self._lose()
            finally:
                # Whoever waits for the first check must not wait for ever, whatever it came to.
                self._there.clear()
                self._looked.set()
                self._answer()
            await asyncio.sleep(WATCH_INTERVAL)

    def _lose(self) -> None:
        """End all connections once PostgreSQL is lost: they lead where the watch led, and may never fail."""
        if not self.is_away:
            self._there.clear()
            self._was_lost = True
            pool.terminate_pooled()

    async def _watch(self) -> None:
        watching = await connect(self._url, WATCH_PATIENCE)
        try:
            await self._look(watching)
            await self._await_migrations(watching)
            if self._was_lost:
                # Some may have been made meanwhile to one that is no primary any more.
                self._was_lost = False
                pool.terminate_pooled()
            self._there.set()
            self._looked.set()
            self.returned.set()
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_INTERVAL):
                        await self._asked.wait()
                self._asked.clear()
                await self._look(watching)
                self._answer()
        finally:
            watching.terminate()

    @staticmethod
    async def _look(watching: asyncpg.Connection) -> None:
        if await watching.fetchval(IS_STANDBY, timeout=WATCH_PATIENCE):
            raise asyncpg.ReadOnlySQLTransactionError("it is a standby, which takes no change")

    def _answer(self) -> None:
        self._answered.set()
        self._answered = asyncio.Event()

    async def _await_migrations(self, watching: asyncpg.Connection) -> None:
        """Wait until somebody has brought the database up to date: before that every statement would fail."""
        is_logged = False
        while not await _is_migrated(watching):
            self._there.clear()
            self._looked.set()
            if not is_logged:
                _log.warning("the database is not up to date, waiting for `chat-service migrate`")
            is_logged = True
            await asyncio.sleep(WATCH_INTERVAL)

    async def is_ready(self) -> bool:
        """Tell whether PostgreSQL answers and is up to date, within a second."""
        if self.is_away:
            return False
        answered = self._answered
        self._asked.set()
        try:
            async with asyncio.timeout(READY_PATIENCE):
                await answered.wait()
        except TimeoutError:
            return False
        return not self.is_away


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
    """A timeout for a use case; it ends as ServiceUnavailable, as does an error that means PostgreSQL is away."""

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
        if isinstance(found, Exception) and is_away(found):
            raise unavailable(found) from found


async def _is_migrated(watching: asyncpg.Connection) -> bool:
    try:
        found = await watching.fetchval(IS_MIGRATED, _APP, _LATEST, timeout=WATCH_PATIENCE)
    except asyncpg.UndefinedTableError:
        return False
    return bool(found)
