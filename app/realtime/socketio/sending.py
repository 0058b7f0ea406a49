"""Sending messages over sockets: from the packet to its acknowledgement.

A message is submitted in the tick in which it came, without a task; with tracing on it has a task and a span. The
send queue keeps the order within a conversation; a message to another conversation waits for the acknowledgements
of those before it.
"""

import asyncio
import time
from collections import deque
from uuid import UUID

from msgspec import Raw

from app.contract import events, ids
from app.contract.codec import decode
from app.contract.errors import NotFound, ServiceUnavailable
from app.contract.schemas import SocketSendMessage
from app.observability import tracing
from app.postgres.database import DEADLINE, Database
from app.realtime.engineio.inbox import Inbox, Reply
from app.realtime.socketio.handlers import Client
from app.runtime.supervisor import Supervisor
from app.usecases import messages
from app.usecases.deps import Deps
from app.usecases.messages import OutgoingMessage

# Seconds between two looks for messages that are not acknowledged within the deadline.
CHECK_INTERVAL = 0.5
_ANSWER = f"answer {events.MESSAGE_SEND}"


class PendingReply(Reply):
    """The acknowledgement of a message that is on its way: it observes the outcome."""

    __slots__ = ("_client", "_database", "_inbox", "_supervisor", "outgoing")

    def __init__(
        self, number: str, client: Client, inbox: Inbox, database: Database, supervisor: Supervisor
    ) -> None:
        super().__init__(number)
        self._client = client
        self._inbox = inbox
        self._database = database
        self._supervisor = supervisor
        # None once it is acknowledged: the message need not be kept.
        self.outgoing: OutgoingMessage | None = None

    def on_outcome(self, outgoing: OutgoingMessage) -> None:
        """Acknowledge a message, unless it is past its deadline and was."""
        if outgoing.view is not None:
            self._acknowledge(outgoing.view)
        elif outgoing.error is None:
            self._supervisor.once("look up a message that was not stored", self._find(outgoing))
        elif self.answer is None:
            with tracing.follow(_ANSWER, "internal", (outgoing.message.traceparent,)):
                self._fail(outgoing.error)

    async def _find(self, outgoing: OutgoingMessage) -> None:
        with tracing.follow(_ANSWER, "internal", (outgoing.message.traceparent,)):
            try:
                async with self._database.deadline():
                    found = await outgoing.find()
            except Exception as error:  # noqa: BLE001 - `fail` logs it, and reports it to the client
                self._fail(error)
            else:
                self._acknowledge(found)

    def give_up(self) -> None:
        """Abandon the message: it is not stored, unless a statement has begun."""
        if self.outgoing is not None and self.answer is None:
            self.outgoing.abandon()
            self._fail(ServiceUnavailable())

    def _acknowledge(self, message: Raw) -> None:
        if self.answer is None:
            self.outgoing = None
            self._client.succeed(events.MESSAGE_SEND)
            self._inbox.answer(self, b'{"ok":true,"message":%b}' % bytes(message))

    def _fail(self, error: Exception) -> None:
        if self.answer is None:
            self.outgoing = None
            self._inbox.answer(self, self._client.fail(events.MESSAGE_SEND, error))


class Sending:
    """The messages that sockets of this pod send."""

    def __init__(self, deps: Deps, supervisor: Supervisor) -> None:
        self._deps = deps
        self._supervisor = supervisor
        self._is_traced = tracing.is_on()
        # What is not acknowledged yet, with its deadline by the monotonic clock.
        self._pending: deque[tuple[float, PendingReply]] = deque()
        supervisor.loop("late answers", self._give_up_forever)

    @property
    def may_be_at_once(self) -> bool:
        """Whether messages may be submitted without a task: tracing is off, and PostgreSQL is there."""
        return not self._is_traced and not self._deps.database.is_away

    def send_now(self, client: Client, number: str, command: SocketSendMessage) -> bool:
        """Submit a message in this tick; False where only `send` can take it."""
        inbox = client.inbox
        if not inbox.has_room:
            return False
        try:
            conversation_id = ids.from_wire(ids.CONVERSATION, command.conversation_id)
        except NotFound:
            return False
        if conversation_id != client.last_sent_to and not inbox.is_settled:
            return False
        client.typing.stop(conversation_id)
        self._submit(client, number, conversation_id, command)
        return True

    async def send(self, client: Client, number: str, payload: Raw) -> None:
        """Submit a message when its turn has come; raises ValidationFailed and NotFound."""
        command = decode(SocketSendMessage, payload)
        conversation_id = ids.from_wire(ids.CONVERSATION, command.conversation_id)
        client.typing.stop(conversation_id)
        await client.inbox.make_room()
        if conversation_id != client.last_sent_to:
            await client.inbox.settle()
        self._submit(client, number, conversation_id, command)

    def _submit(self, client: Client, number: str, conversation_id: UUID, command: SocketSendMessage) -> None:
        inbox = client.inbox
        reply = PendingReply(number, client, inbox, self._deps.database, self._supervisor)
        inbox.expect(reply)
        client.last_sent_to = conversation_id
        self._pending.append((time.monotonic() + DEADLINE, reply))
        reply.outgoing = messages.submit_message(
            self._deps, client.actor, conversation_id, command, reply.on_outcome
        )

    async def _give_up_forever(self) -> None:
        """Answer messages past their deadline with ServiceUnavailable."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            now = time.monotonic()
            while self._pending and (self._pending[0][1].answer is not None or self._pending[0][0] <= now):
                self._pending.popleft()[1].give_up()
