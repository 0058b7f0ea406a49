"""Use cases of messages: send, edit, delete, list."""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import cast
from uuid import UUID

from msgspec import Raw

from app.contract import cursors, events, ids
from app.contract.codec import encode, reject
from app.contract.errors import Conflict, Forbidden, NotFound, ServiceUnavailable
from app.contract.schemas import EditMessage, MessagePage, MessageView, SendMessage
from app.identity import policy, revocation
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.messages import views
from app.messages.submissions import Submission
from app.messages.writer import Stored
from app.observability import tracing
from app.postgres import database, message_rows
from app.postgres.message_rows import NewMessage
from app.postgres.statements import statement
from app.postgres.transactions import POOL, Row, Transaction
from app.usecases.access import require_message, require_participant
from app.usecases.changing import Changing, changing
from app.usecases.deps import Deps

EDIT = statement("edit_message")
DELETE = statement("delete_message")
NOW = statement("database_time")


async def send_message(deps: Deps, actor: Actor, conversation_id: UUID, command: SendMessage) -> tuple[Raw, bool]:
    """Send a message; gives it as JSON, and False where it was sent before under the same id.

    Raises ValidationFailed, Unauthorized, Forbidden, NotFound, RateLimited, ServiceUnavailable, and Conflict where
    that id was used for another message. Whoever is cancelled abandons the message.
    """
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def observe(_: OutgoingMessage) -> None:
        if not done.done():
            done.set_result(None)

    outgoing = submit_message(deps, actor, conversation_id, command, observe)
    try:
        await done
    except BaseException:
        outgoing.abandon()
        raise
    if outgoing.error is not None:
        raise outgoing.error
    return (await outgoing.find(), False) if outgoing.view is None else (outgoing.view, True)


def submit_message(
    deps: Deps, actor: Actor, conversation_id: UUID, command: SendMessage, observer: "Observer"
) -> "OutgoingMessage":
    """Send a message in the background, without a task; those of one sender are submitted in the order of calls.

    `observer` is called once with the outcome, maybe before this returns; not for a message that was abandoned and
    is not stored.
    """
    outgoing = OutgoingMessage(deps, actor, conversation_id, command, observer)
    try:
        policy.require_write(actor)
    except Forbidden as error:
        outgoing.fail(error)
    else:
        deps.limits.check_soon(Action.SEND, actor.user_id, outgoing.on_counted)
    return outgoing


class OutgoingMessage(Submission):
    """A message on its way from its sender to the conversation; its one observer gets the outcome once.

    counted ──▶ checked ──▶ in the send queue ──▶ stored: announced, and `view` is set
       │           │                  ├──▶ not stored: `find` gives the first message of its id, or raises why
       └───────────┴──────────────────┴──▶ failed: `error` is set
    """

    __slots__ = ("_actor", "_command", "_deps", "_observer", "error", "view")

    def __init__(
        self, deps: Deps, actor: Actor, conversation_id: UUID, command: SendMessage, observer: "Observer"
    ) -> None:
        super().__init__(_new_message(actor, conversation_id, command))
        self._deps = deps
        self._actor = actor
        self._command = command
        self._observer = observer
        # JSON, encoded once for the sender and for all others.
        self.view: Raw | None = None
        self.error: Exception | None = None

    def on_counted(self, error: Exception | None) -> None:
        """Go on once the rate limit has counted it, or end with its refusal."""
        if self.is_abandoned:
            return
        if error is None:
            try:
                policy.check_message(self._deps.settings, self._command)
                self._deps.send_queue.submit(self)
            except Exception as failure:  # noqa: BLE001 - it is the sender's
                error = failure
        if error is not None:
            self.fail(error)

    def answer(self, stored: Stored | None, error: Exception | None) -> None:
        """Announce it where it is stored, and call the observer."""
        if stored is not None:
            try:
                self.view = self._announce(stored)
            except Exception as failure:  # noqa: BLE001 - it is the sender's
                error = failure
        if error is not None:
            self.error = database.unavailable(error)
        self._observer(self)

    def fail(self, error: Exception) -> None:
        """End a message that was not submitted."""
        self.error = error
        self._observer(self)

    def _announce(self, stored: Stored) -> Raw:
        """Announce a committed message; one that ends a hiding comes after its `conversation:new`."""
        new = self.message
        change = events.message_new(new.conversation_id, views.sent_message(new, stored))
        if stored.is_revealing:
            self._deps.fanout.reveal(new.conversation_id)
        else:
            self._deps.fanout.announce(change, new.traceparent)
        self._deps.outbox.wake()
        return Raw(change.event.data)

    async def find(self) -> Raw:
        """Give the message that was sent before under the same id; raises why this one was not stored."""
        await revocation.require_valid(self._actor)
        await require_participant(self.message.conversation_id, self._actor)
        return Raw(encode(views.message(await _first_of_its_id(self.message))))


Observer = Callable[[OutgoingMessage], None]


def _new_message(actor: Actor, conversation_id: UUID, command: SendMessage) -> NewMessage:
    attachments = encode(command.attachments) if command.attachments else b"[]"
    fingerprint = None
    if command.client_message_id is not None:
        fingerprint = hashlib.blake2b(encode([command.content, command.attachments]), digest_size=16).digest()
    return NewMessage(
        id=ids.new_id(),
        conversation_id=conversation_id,
        sender_id=actor.user_id,
        content=command.content,
        attachments=attachments.decode(),
        client_message_id=command.client_message_id,
        fingerprint=fingerprint,
        token_second=actor.issued_second,
        traceparent=tracing.traceparent(),
    )


async def _first_of_its_id(new: NewMessage) -> Row:
    """Find what was first sent under an id; raises Conflict where its content was another."""
    row = None
    if new.client_message_id is not None:
        row = await message_rows.message_sent_as(new.conversation_id, new.sender_id, new.client_message_id)
    if row is None:
        # What it was refused for is over already.
        raise ServiceUnavailable
    if row["deleted_at"] is None and row["fingerprint"] != new.fingerprint:
        raise Conflict("clientMessageId: was used for a message that said something else")
    return row


async def edit_message(deps: Deps, actor: Actor, message_id: UUID, command: EditMessage) -> MessageView:
    """Change the content of a message; only its author may.

    Raises ValidationFailed, Forbidden, NotFound and Conflict.
    """
    policy.require_write(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    found = await require_message(POOL, message_id, actor)
    async with changing(deps, found["conversation_id"], actor) as (tx, conversation):
        row = await require_message(tx, message_id, actor)
        policy.check_edit(deps.settings, actor, row, command)
        if command.content != row["content"]:
            row["content"] = command.content
            row["updated_at"] = await _now(tx)
            await tx.execute(EDIT, message_id, row["content"], row["updated_at"])
            change = events.message_updated(
                conversation.conversation_id, conversation.next_seq, message_id, row["content"], row["updated_at"]
            )
            conversation.add(change, message_id=message_id)
    return views.message(row)


async def delete_message(deps: Deps, actor: Actor, message_id: UUID) -> None:
    """Leave a tombstone; the author or the owner of the group may. Raises Forbidden and NotFound."""
    policy.require_write(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    found = await require_message(POOL, message_id, actor)
    async with changing(deps, found["conversation_id"], actor) as (tx, conversation):
        row = await require_message(tx, message_id, actor)
        policy.check_delete(actor, row, conversation.owner_id)
        if row["deleted_at"] is None:
            at = await _now(tx)
            await tx.execute(DELETE, message_id, at)
            note_deletion(conversation, {**row, "deleted_at": at}, actor.user_id)


def note_deletion(conversation: Changing, message: Row, deleted_by: str) -> None:
    """Log that a message was deleted, and add its webhook."""
    message_id, at = message["id"], message["deleted_at"]
    change = events.message_deleted(conversation.conversation_id, conversation.next_seq, message_id, at)
    conversation.add(change, message_id=message_id)
    data = {"senderId": message["sender_id"]}
    conversation.add_webhook(events.MESSAGE_REMOVED, deleted_by, at, message_id=message_id, data=data)


async def _now(tx: Transaction) -> datetime:
    """Give the time of the database, to the precision that clients see."""
    row = await tx.row(NOW)
    assert row is not None
    return cast("datetime", row["now"])


async def list_messages(
    deps: Deps, actor: Actor, conversation_id: UUID, limit: int, before: str | None, after: str | None
) -> MessagePage:
    """Read a page of history: newest first, or oldest first after a place; raises ValidationFailed."""
    policy.require_read(actor)
    await deps.limits.check(Action.READ, actor.user_id)
    if before is not None and after is not None:
        raise reject("after", "must not be given together with before")
    await require_participant(conversation_id, actor)
    async with deps.database.heavy_reads:
        rows = await message_rows.history(
            actor.user_id,
            conversation_id,
            before=None if before is None else await _place(conversation_id, before, "before"),
            after=None if after is None else await _place(conversation_id, after, "after"),
            limit=limit + 1,
        )
    has_more = len(rows) > limit
    page = MessagePage(items=[views.message(row) for row in rows[:limit]], has_more=has_more)
    if has_more:
        page.next_cursor = cursors.seq_cursor(conversation_id, rows[limit - 1]["seq"])
    return page


async def _place(conversation_id: UUID, text: str, field: str) -> int:
    """Read a place in the history, which is a cursor or the id of a message."""
    if not text.startswith(f"{ids.MESSAGE}_"):
        return cursors.read_seq_cursor(conversation_id, text, field)
    try:
        seq = await message_rows.seq_of(conversation_id, ids.from_wire(ids.MESSAGE, text))
    except NotFound:
        seq = None
    if seq is None:
        raise reject(field, "is not a message of this conversation")
    return seq
