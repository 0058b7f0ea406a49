"""Sends, gathered: what arrives while a statement is under way goes together in the next one.

    submitted ──▶ queue ──▶ batch ── committed ──▶ stored, in the order of `seq`
                    ▲         │ its conversation's head is locked, or was hidden
                    │         ▼
                  waiting ◀─ line: the conversation by itself, for as long as its head takes

There is no timer: a lone send waits for nobody. No batch takes more than its share of what there is, so that one
is written while those of the other are answered and speak again. A conversation is in one statement at a time, so
that what one socket sends is stored in its order; what else comes for it waits, and then goes all together. Lines
have connections of their own, so that a conversation that is held for seconds holds up nobody else.
"""

import asyncio
import contextvars
import logging
import math
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import asyncpg

from app import database, metrics, store, tracing
from app.errors import ServiceUnavailable
from app.settings import Settings
from app.store import NewMessage
from app.supervisor import Supervisor

BATCHES = 2
LINES = 8
MAX_BATCH = 128
# What waits to be written; past it senders are told to come back.
MAX_WAITING = 20_000

# Each statement is planned once, for batches of any size: planning one takes longer than running it. What suited
# small tables must still do when they have grown: every row is looked up, and no table read from end to end.
_OFF = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
PLANS = {"plan_cache_mode": "force_generic_plan"} | dict.fromkeys(_OFF, "off")

_R = TypeVar("_R")
_log = logging.getLogger(__name__)


class Stored(NamedTuple):
    """Where a message stands, and whether it ends somebody's hiding of the conversation."""

    seq: int
    created_at: datetime
    is_revealing: bool


# Is told once where a message stands; None where it may not be sent or was sent before, or else what went wrong.
Told = Callable[[Stored | None, Exception | None], None]


class Send:
    """A message on its way; one that is given up before its turn is not written, and nobody told."""

    __slots__ = ("is_given_up", "message", "told")

    def __init__(self, message: NewMessage, told: Told, is_given_up: Callable[[], bool]) -> None:
        self.message = message
        self.told = told
        self.is_given_up = is_given_up


class Writer:
    """Writes the messages of this process."""

    def __init__(self, settings: Settings, supervisor: Supervisor) -> None:
        self._url = settings.database_url
        self._is_told = settings.webhook_url is not None
        self._supervisor = supervisor
        self._pool: asyncpg.Pool | None = None
        self._queue: deque[Send] = deque()
        # Conversations that are in a statement, and what waits for its end.
        self._under_way: dict[UUID, deque[Send]] = {}
        self._waiting = 0
        # Those that are being written.
        self._batches: list[list[Send]] = []
        self._lines = asyncio.Semaphore(LINES)
        self._is_due = False

    async def run_forever(self) -> None:
        """Keep the connections; they are made when first used."""
        options = database.pool_options(self._url) | {"server_settings": database.SERVER_SETTINGS | PLANS}
        async with asyncpg.create_pool(**options, min_size=0, max_size=BATCHES + LINES) as self._pool:
            await asyncio.Event().wait()

    def submit(self, message: NewMessage, on_stored: Callable[[Stored], _R]) -> asyncio.Future[_R | None]:
        """Write a message soon; gives what `on_stored` returns, None where it may not be sent or was before.

        `on_stored` is called once it is committed, in the order of `seq`, also where nobody waits any more. Raises
        ServiceUnavailable where too much waits already.
        """
        done: asyncio.Future[_R | None] = asyncio.get_running_loop().create_future()

        def told(stored: Stored | None, error: Exception | None) -> None:
            made = None
            try:
                made = None if stored is None else on_stored(stored)
            except Exception as failure:  # noqa: BLE001 - it is raised where it is waited for
                error = failure
            if done.done():
                return
            if error is None:
                done.set_result(made)
            else:
                done.set_exception(error)

        self.hand_over(message, told, done.cancelled)
        return done

    def hand_over(self, message: NewMessage, told: Told, is_given_up: Callable[[], bool]) -> None:
        """Write a message soon; `told` is called in the order of `seq` once it is committed, or comes to nothing.

        Raises ServiceUnavailable where too much waits already.
        """
        if self._waiting >= MAX_WAITING:
            raise ServiceUnavailable
        send = Send(message, told, is_given_up)
        self._waiting += 1
        line = self._under_way.get(message.conversation_id)
        if line is None:
            self._queue.append(send)
            self._kick_soon()
        else:
            line.append(send)

    def _kick_soon(self) -> None:
        # At the end of this tick, so that all that arrives in it goes together.
        if not self._is_due and len(self._batches) < BATCHES:
            self._is_due = True
            # In a context of its own: a batch is nobody's part of a trace.
            asyncio.get_running_loop().call_soon(self._kick, context=contextvars.Context())

    def _kick(self) -> None:
        self._is_due = False
        while self._queue and len(self._batches) < BATCHES:
            batch = self._take()
            if batch:
                self._batches.append(batch)
                self._supervisor.once("write", self._write_batch(batch))

    def _take(self) -> list[Send]:
        """Take the next batch from the queue."""
        batch: list[Send] = []
        mine: set[UUID] = set()
        names: set[tuple[UUID, str, str]] = set()
        share = math.ceil((len(self._queue) + sum(map(len, self._batches))) / BATCHES)
        while self._queue and len(batch) < MAX_BATCH:
            # What else there is for its conversations must wait for it, and goes along.
            if len(batch) >= share and self._queue[0].message.conversation_id not in mine:
                break
            send = self._queue.popleft()
            message = send.message
            if send.is_given_up():
                self._waiting -= 1
                continue
            # The second of two under one id comes to see the first.
            name = (message.conversation_id, message.sender_id, message.client_message_id or "")
            line = self._under_way.get(message.conversation_id)
            if line is not None and (message.conversation_id not in mine or line or name in names):
                line.append(send)
                continue
            if line is None:
                self._under_way[message.conversation_id] = deque()
                mine.add(message.conversation_id)
            if message.client_message_id is not None:
                names.add(name)
            batch.append(send)
        return batch

    async def _write_batch(self, batch: list[Send]) -> None:
        busy: list[Send] = []
        try:
            busy = await self._write(store.SEND, batch)
        finally:
            self._batches.remove(batch)
            lines: dict[UUID, list[Send]] = defaultdict(list)
            for send in busy:
                lines[send.message.conversation_id].append(send)
            for conversation_id in {send.message.conversation_id for send in batch}:
                if conversation_id in lines:
                    self._supervisor.once(
                        "write in line", self._write_line(conversation_id, lines[conversation_id])
                    )
                else:
                    self._end(conversation_id)
            self._kick_soon()

    async def _write_line(self, conversation_id: UUID, sends: list[Send]) -> None:
        """Write what one conversation has to say, however long its head takes."""
        try:
            async with self._lines:
                # Whose conversation is not there now either is told so.
                for send in await self._write(store.SEND_IN_LINE, sends):
                    self._tell(send, None)
        finally:
            self._end(conversation_id)
            self._kick_soon()

    def _end(self, conversation_id: UUID) -> None:
        """Let what waited for a conversation go on, before whatever comes next."""
        self._queue.extendleft(reversed(self._under_way.pop(conversation_id)))

    async def _write(self, statement: str, sends: list[Send]) -> list[Send]:
        """Run a statement and tell everybody what came of it; gives those whose head is busy."""
        try:
            rows = await self._run(statement, sends)
        except asyncpg.PostgresError as error:
            if len(sends) == 1 or isinstance(error, database.AWAY):
                self._fail(sends, error)
                return []
            return await self._write_one_by_one(statement, sends)
        except Exception as error:  # noqa: BLE001 - every sender is told, and makes of it what there is to make
            self._fail(sends, error)
            return []
        return self._settle(sends, rows)

    async def _write_one_by_one(self, statement: str, sends: list[Send]) -> list[Send]:
        """Find the one that spoils it for all; nothing of a busy conversation may overtake the rest of it."""
        busy: list[Send] = []
        conversations: set[UUID] = set()
        for send in sends:
            if send.message.conversation_id in conversations or await self._write(statement, [send]):
                conversations.add(send.message.conversation_id)
                busy.append(send)
        return busy

    async def _run(self, statement: str, sends: list[Send]) -> list[Any]:
        if self._pool is None:
            raise ServiceUnavailable
        metrics.SEND_GROUP_SIZE.observe(len(sends))
        values = store.send_values([send.message for send in sends], is_told=self._is_told)
        size: tracing.Attributes = {"db.system.name": "postgresql", "db.operation.batch.size": len(sends)}
        with tracing.follow("INSERT messages", "client", (send.message.traceparent for send in sends), size):
            async with self._pool.acquire(timeout=database.CONNECT_TIMEOUT) as connection:
                found: list[Any] = await connection.fetch(statement, *values)
        return found

    def _settle(self, sends: list[Send], rows: list[Any]) -> list[Send]:
        """Tell senders what came of their messages; gives those whose head was not free."""
        stored: dict[int, Stored] = {}
        free: set[UUID] = set()
        for place, conversation_id, seq, at, is_revealing in rows:
            if place is None:
                free.add(conversation_id)
            else:
                stored[place] = Stored(seq, at, is_revealing)
        busy = []
        for place, send in enumerate(sends, 1):
            found = stored.get(place)
            if found is None and send.message.conversation_id not in free:
                busy.append(send)
            else:
                self._tell(send, found)
        return busy

    def _tell(self, send: Send, stored: Stored | None, error: Exception | None = None) -> None:
        self._waiting -= 1
        try:
            send.told(stored, error)
        except Exception:  # noqa: BLE001 - it is logged, and the others wait for their answers
            _log.exception("a sender could not be told")

    def _fail(self, sends: list[Send], error: Exception) -> None:
        # Two that were sent under one id at the same moment: the other one is there.
        found = None if isinstance(error, asyncpg.UniqueViolationError) else error
        for send in sends:
            self._tell(send, None, found)
