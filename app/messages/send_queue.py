"""The send queue: messages that arrive while a statement is under way go together in the next one.

    submit ──▶ FIFO of its conversation ──▶ ready ──▶ batch ── committed ──▶ answered, in the order of `seq`
                                                     │ the head is locked, or the conversation hidden
                                                     ▼
                                                    held ──▶ a statement of its own, which waits for the head

A message stays in the FIFO of its conversation until it is answered; a statement writes the first of it, and a
conversation is in one statement at a time. So order needs no bookkeeping: nothing that waits is ever moved.

There is no timer: a lone message waits for nobody. No batch takes more than its share of what there is, so that
one is written while those of the other are answered and speak again. Held conversations have connections of their
own, so that one that is locked for seconds holds up no other.
"""

import asyncio
import contextvars
import logging
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol
from uuid import UUID

import asyncpg

from app.contract.errors import ServiceUnavailable
from app.messages.submissions import Conversation, Submission
from app.messages.writer import BATCHES, LINES, Stored, Written
from app.postgres import database
from app.postgres.errors import TRY_AGAIN
from app.postgres.message_rows import NewMessage
from app.runtime.supervisor import Supervisor

MAX_BATCH = 128
# What may be unanswered, in messages and in bytes of what they say; past it senders are told to come back.
MAX_WAITING = 20_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
# What PostgreSQL rolled back because of others is tried again so many seconds later, and twice that each time.
RETRY_PAUSE = 0.02
MAX_RETRY_PAUSE = 0.3

_log = logging.getLogger(__name__)


class Statements(Protocol):
    """What stores messages: see `app.messages.writer.Writer`."""

    async def run_forever(self) -> None: ...

    async def write(self, collect: Callable[[], list[NewMessage]], *, waits: bool) -> Written: ...


class SendQueue:
    """The messages of this process that are to be stored."""

    def __init__(self, writer: Statements, supervisor: Supervisor) -> None:
        self._writer = writer
        self._supervisor = supervisor
        self._is_open = False
        # All that have something unanswered: each is ready, held or in a statement.
        self._conversations: dict[UUID, Conversation] = {}
        self._ready: deque[Conversation] = deque()
        self._held: deque[Conversation] = deque()
        # What is unanswered; what of it is ready, and what batches write.
        self._count = self._bytes = 0
        self._count_ready = self._count_in_batches = 0
        self._batches = self._lines = 0
        self._is_due = False

    async def run_forever(self) -> None:
        """Take messages; at the end whatever is unanswered comes to ServiceUnavailable."""
        self._is_open = True
        try:
            await self._writer.run_forever()
        finally:
            self._close()

    def submit(self, submission: Submission) -> None:
        """Have a message stored soon; those of one conversation are stored in the order of these calls.

        Raises ServiceUnavailable where too much is unanswered, or all ends.
        """
        bytes_then = self._bytes + submission.weight
        if self._count >= MAX_WAITING or bytes_then > MAX_WAITING_BYTES or not self._is_open:
            raise ServiceUnavailable
        self._count += 1
        self._bytes = bytes_then
        conversation_id = submission.message.conversation_id
        conversation = self._conversations.get(conversation_id)
        if conversation is None:
            conversation = self._conversations[conversation_id] = Conversation(conversation_id)
            self._ready.append(conversation)
            if not self._is_due and self._batches < BATCHES:
                self._start_soon()
        conversation.submissions.append(submission)
        if conversation.is_ready:
            self._count_ready += 1

    def _start_soon(self) -> None:
        # At the end of this tick, so that all that arrives in it goes together; in a context of its own, since a
        # batch is nobody's part of a trace.
        self._is_due = True
        asyncio.get_running_loop().call_soon(self._start, context=contextvars.Context())

    def _start(self) -> None:
        self._is_due = False
        while self._ready and self._batches < BATCHES:
            batch, size = self._take_batch()
            self._batches += 1
            self._count_in_batches += size
            self._supervisor.once("write", self._write_batch(batch, size))
        while self._held and self._lines < LINES:
            conversation = self._held.popleft()
            conversation.is_held = False
            conversation.take(MAX_BATCH)
            self._lines += 1
            self._supervisor.once("write what was held", self._write_held(conversation))

    def _take_batch(self) -> tuple[list[Conversation], int]:
        """Take conversations until a batch has its share; gives the number of messages as well."""
        batch: list[Conversation] = []
        size = 0
        share = min(MAX_BATCH, math.ceil((self._count_ready + self._count_in_batches) / BATCHES))
        while self._ready and size < share:
            conversation = self._ready.popleft()
            conversation.is_ready = False
            self._count_ready -= len(conversation.submissions)
            # All that it has goes along: it would have to wait for this statement.
            size += conversation.take(MAX_BATCH - size)
            batch.append(conversation)
        return batch, size

    async def _write_batch(self, batch: list[Conversation], size: int) -> None:
        try:
            await self._write(batch, waits=False)
        finally:
            self._batches -= 1
            self._count_in_batches -= size
            self._release(batch)

    async def _write_held(self, conversation: Conversation) -> None:
        try:
            await self._write([conversation], waits=True)
        finally:
            self._lines -= 1
            self._release([conversation])

    def _release(self, batch: list[Conversation]) -> None:
        """Let conversations go on with what they have by now."""
        for conversation in batch:
            if conversation.taken:
                # The statement was cancelled, and whether it was committed is not known.
                self._fail(conversation, ServiceUnavailable())
            if conversation.is_held:
                self._held.append(conversation)
            elif conversation.submissions:
                conversation.is_ready = True
                self._count_ready += len(conversation.submissions)
                self._ready.append(conversation)
            elif self._conversations.get(conversation.id) is conversation:
                del self._conversations[conversation.id]
        if not self._is_due and (self._ready or self._held):
            self._start_soon()

    async def _write(self, batch: list[Conversation], *, waits: bool) -> None:
        """Write what was taken: it is answered then, save that of conversations that come to be held."""
        error = await self._try(batch, waits=waits)
        if error is None:
            return
        sizes = [conversation.taken for conversation in batch]
        if _is_unavailable(error) or sum(sizes) == 1:
            for conversation in batch:
                self._fail(conversation, error)
            return
        # One may spoil it for all, and fails alone. What is not in the statement stays where it was, in order.
        for conversation in batch:
            conversation.taken = 0
        for conversation, size in zip(batch, sizes, strict=True):
            for _ in range(size):
                if conversation.is_held or not conversation.submissions:
                    break
                conversation.taken = 1
                error = await self._try([conversation], waits=waits)
                if error is not None:
                    self._fail(conversation, error)
                if _is_unavailable(error):
                    return

    async def _try(self, batch: list[Conversation], *, waits: bool) -> Exception | None:
        """Run a statement, again where PostgreSQL asks for it; gives what went wrong with all of it."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + database.DEADLINE
        pause = RETRY_PAUSE
        while True:
            try:
                written = await self._writer.write(partial(self._collect, batch), waits=waits)
            except Exception as error:  # noqa: BLE001 - every sender is told, and makes of it what there is to make
                if not isinstance(error, TRY_AGAIN) or loop.time() >= ends_at:
                    return error
            else:
                self._settle(batch, written, waits=waits)
                return None
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_RETRY_PAUSE)

    def _collect(self, batch: list[Conversation]) -> list[NewMessage]:
        """List what a statement writes, without what was abandoned before this moment."""
        messages: list[NewMessage] = []
        for conversation in batch:
            place = 0
            while place < conversation.taken:
                submission = conversation.submissions[place]
                if submission.is_abandoned:
                    del conversation.submissions[place]
                    conversation.taken -= 1
                    self._count -= 1
                    self._bytes -= submission.weight
                else:
                    messages.append(submission.message)
                    place += 1
        return messages

    def _settle(self, batch: list[Conversation], written: Written, *, waits: bool) -> None:
        """Answer what was written, and what may not be."""
        place = 0
        for conversation in batch:
            if conversation.taken and not waits and conversation.id not in written.locked:
                conversation.is_held = True
                place += conversation.taken
                conversation.taken = 0
                continue
            for submission in self._take_out(conversation):
                _answer(submission, written.stored.get(place), None)
                place += 1

    def _fail(self, conversation: Conversation, error: Exception) -> None:
        # Two that were sent under one id at the same moment through two pods: the other one is there.
        found = None if isinstance(error, asyncpg.UniqueViolationError) else error
        for submission in self._take_out(conversation):
            _answer(submission, None, found)

    def _take_out(self, conversation: Conversation) -> list[Submission]:
        """Take out what is about to be answered."""
        found = conversation.submissions[: conversation.taken]
        del conversation.submissions[: conversation.taken]
        conversation.taken = 0
        self._count -= len(found)
        for submission in found:
            self._bytes -= submission.weight
        return found

    def _close(self) -> None:
        """Answer all that is unanswered: statements that are under way find nothing to answer any more."""
        self._is_open = False
        conversations, self._conversations = self._conversations, {}
        self._ready.clear()
        self._held.clear()
        self._count_ready = 0
        for conversation in conversations.values():
            conversation.is_held = False
            conversation.taken = len(conversation.submissions)
            self._fail(conversation, ServiceUnavailable())


def _is_unavailable(error: Exception | None) -> bool:
    return isinstance(error, ServiceUnavailable) or database.is_away(error)


def _answer(submission: Submission, stored: Stored | None, error: Exception | None) -> None:
    if stored is None and submission.is_abandoned:
        return
    try:
        submission.answer(stored, error)
    except Exception:  # noqa: BLE001 - it is logged, and the others wait for their answers
        _log.exception("a sender could not be answered")
