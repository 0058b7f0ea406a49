"""What sockets say, from the packet to its acknowledgement: put into the send queue, and answered from there.

A message is put there in the tick in which it came, or in which its limit was counted, without a task; traces want
one. The queue keeps the order within a conversation; who speaks in another one waits for what they said before.
"""

import asyncio
import time
from collections import deque
from functools import partial
from typing import Protocol
from uuid import UUID

from msgspec import Raw

from app.contract import events, ids
from app.contract.codec import decode
from app.contract.errors import ServiceUnavailable
from app.contract.schemas import SocketSendMessage
from app.identity.actor import Actor
from app.observability import tracing
from app.postgres.database import DEADLINE
from app.realtime.engineio.inbox import Inbox, Reply
from app.runtime.supervisor import Supervisor
from app.usecases import messages
from app.usecases.deps import Deps
from app.usecases.typing import Typing

# How often it is looked whether the queue takes too long.
LOOK_INTERVAL = 0.5
_ANSWER = f"answer {events.MESSAGE_SEND}"


class Speaker(Protocol):
    """The socket on which a message came."""

    actor: Actor
    typing: Typing
    # The conversation in which it spoke last.
    speaks_in: UUID | None

    @property
    def inbox(self) -> Inbox:
        """What came on it, and what it is still to be told."""

    def succeed(self, event: str) -> None:
        """Count an event that came to its end."""

    def fail(self, event: str, error: Exception) -> bytes:
        """Tell that an event failed; gives its acknowledgement, as JSON."""


class PendingReply(Reply):
    """The reply to a message that is still to be stored."""

    __slots__ = ("outgoing",)

    # None once it is answered: what was said need not be kept.
    outgoing: messages.Outgoing | None


class Sending:
    """The messages of this pod's sockets."""

    def __init__(self, deps: Deps, supervisor: Supervisor) -> None:
        self._deps = deps
        self._supervisor = supervisor
        self._is_traced = tracing.is_on()
        # What is not acknowledged yet, by the time at which it is late.
        self._under_way: deque[tuple[float, Speaker, PendingReply]] = deque()
        supervisor.loop("late answers", self._give_up_forever)

    @property
    def may_be_at_once(self) -> bool:
        """Whether messages may go their way without a task: nobody is told first, and PostgreSQL is there."""
        return not self._is_traced and not self._deps.database.is_away

    def send_now(self, speaker: Speaker, number: str, command: SocketSendMessage) -> bool:
        """Hand a message over as soon as it is counted; False where more must be waited for, or it is wrong."""
        inbox = speaker.inbox
        if not inbox.has_room:
            return False
        try:
            conversation_id = ids.from_wire(ids.CONVERSATION, command.conversation_id)
            if conversation_id != speaker.speaks_in and not inbox.is_settled:
                return False
            outgoing = messages.Outgoing(self._deps, speaker.actor, conversation_id, command)
        except Exception:  # noqa: BLE001 - it comes again where it is taken with care, and is told from there
            return False
        speaker.typing.stop(conversation_id)
        reply = self._expect(speaker, number, outgoing)
        messages.admit_soon(self._deps, speaker.actor, partial(self._admitted, speaker, reply, outgoing))
        return True

    def _admitted(
        self, speaker: Speaker, reply: PendingReply, outgoing: messages.Outgoing, error: Exception | None
    ) -> None:
        if error is None and not outgoing.is_abandoned:
            try:
                outgoing.submit(partial(self._answer, speaker, reply))
            except ServiceUnavailable as refusal:
                error = refusal
        if error is not None:
            self._fail(speaker, reply, error)

    async def send(self, speaker: Speaker, number: str, payload: Raw) -> None:
        """Hand a message over when its turn has come.

        Raises ValidationFailed, Forbidden, NotFound, RateLimited and ServiceUnavailable.
        """
        command = decode(SocketSendMessage, payload)
        conversation_id = ids.from_wire(ids.CONVERSATION, command.conversation_id)
        speaker.typing.stop(conversation_id)
        await speaker.inbox.make_room()
        if conversation_id != speaker.speaks_in:
            await speaker.inbox.settle()
        await messages.admit_sender(self._deps, speaker.actor)
        outgoing = messages.Outgoing(self._deps, speaker.actor, conversation_id, command)
        self._admitted(speaker, self._expect(speaker, number, outgoing), outgoing, None)

    def _expect(self, speaker: Speaker, number: str, outgoing: messages.Outgoing) -> PendingReply:
        """Keep the place of an acknowledgement, and remember when it is late."""
        reply = PendingReply(number)
        reply.outgoing = outgoing
        speaker.inbox.expect(reply)
        speaker.speaks_in = outgoing.message.conversation_id
        self._under_way.append((time.monotonic() + DEADLINE, speaker, reply))
        return reply

    def _answer(self, speaker: Speaker, reply: PendingReply, message: Raw | None, error: Exception | None) -> None:
        outgoing = reply.outgoing
        if outgoing is None:
            # It was late.
            return
        if message is not None:
            self._acknowledge(speaker, reply, message)
        elif error is not None:
            with tracing.follow(_ANSWER, "internal", (outgoing.message.traceparent,)):
                self._fail(speaker, reply, error)
        else:
            self._supervisor.once("answer what was not stored", self._find(speaker, reply, outgoing))

    async def _find(self, speaker: Speaker, reply: PendingReply, outgoing: messages.Outgoing) -> None:
        with tracing.follow(_ANSWER, "internal", (outgoing.message.traceparent,)):
            try:
                async with self._deps.database.deadline():
                    found = await outgoing.find()
            except Exception as error:  # noqa: BLE001 - `fail` logs it, and tells the client
                self._fail(speaker, reply, error)
            else:
                self._acknowledge(speaker, reply, found)

    @staticmethod
    def _acknowledge(speaker: Speaker, reply: PendingReply, message: Raw) -> None:
        if reply.outgoing is not None:
            reply.outgoing = None
            speaker.succeed(events.MESSAGE_SEND)
            speaker.inbox.answer(reply, b'{"ok":true,"message":%b}' % bytes(message))

    @staticmethod
    def _fail(speaker: Speaker, reply: PendingReply, error: Exception) -> None:
        if reply.outgoing is not None:
            reply.outgoing = None
            speaker.inbox.answer(reply, speaker.fail(events.MESSAGE_SEND, error))

    async def _give_up_forever(self) -> None:
        """Have whoever waits too long come back later: what they said is not stored, unless that has begun."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            now = time.monotonic()
            while self._under_way and (self._under_way[0][2].outgoing is None or self._under_way[0][0] <= now):
                _, speaker, reply = self._under_way.popleft()
                if reply.outgoing is not None:
                    reply.outgoing.abandon()
                    self._fail(speaker, reply, ServiceUnavailable())
