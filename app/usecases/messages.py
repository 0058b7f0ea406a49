"""What people say."""

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

# Learns once of a message as JSON, or of an error, or of neither: then it was not stored, and `find` tells why.
Observer = Callable[[Raw | None, Exception | None], None]


async def send_message(deps: Deps, actor: Actor, conversation_id: UUID, command: SendMessage) -> tuple[Raw, bool]:
    """Store a message and announce it; True where it is new, False where it was sent before under the same id.

    Gives it as JSON. Raises ValidationFailed, Forbidden, NotFound, and Conflict where that id was used for another
    message.
    """
    await admit_sender(deps, actor)
    outgoing = Outgoing(deps, actor, conversation_id, command)
    done = outgoing.sent()
    try:
        sent = await done
    except BaseException:
        outgoing.abandon()
        raise
    return (await outgoing.find(), False) if sent is None else (sent, True)


async def admit_sender(deps: Deps, actor: Actor) -> None:
    """Let somebody send a message now; raises Forbidden and RateLimited."""
    policy.require_write(actor)
    await deps.limits.check(Action.SEND, actor.user_id)


def admit_soon(deps: Deps, actor: Actor, told: Callable[[Exception | None], None]) -> None:
    """Let somebody send a message; `told` is called once, in the order of the calls, with what forbids it."""
    try:
        policy.require_write(actor)
    except Forbidden as error:
        told(error)
    else:
        deps.limits.check_soon(Action.SEND, actor.user_id, told)


class Outgoing(Submission):
    """A message that is about to be sent by somebody who was admitted; raises ValidationFailed."""

    __slots__ = ("_actor", "_deps", "_observer")

    def __init__(self, deps: Deps, actor: Actor, conversation_id: UUID, command: SendMessage) -> None:
        policy.check_message(deps.settings, command)
        super().__init__(_new_message(actor, conversation_id, command))
        self._deps = deps
        self._actor = actor

    def submit(self, observer: Observer) -> None:
        """Have it stored and announced; raises ServiceUnavailable where too many wait.

        Of one conversation messages are stored in the order of these calls. One that was abandoned is announced
        where it is stored all the same, and else comes to nothing.
        """
        self._observer = observer
        self._deps.send_queue.put(self)

    def answer(self, stored: Stored | None, error: Exception | None) -> None:
        sent = None
        try:
            sent = None if stored is None else self.announce(stored)
        except Exception as failure:  # noqa: BLE001 - the sender is told
            error = failure
        self._observer(sent, None if error is None else database.unavailable(error))

    def sent(self) -> asyncio.Future[Raw | None]:
        """Have it stored and announced, as `submit` does; gives None where it was not stored now."""
        done: asyncio.Future[Raw | None] = asyncio.get_running_loop().create_future()

        def observe(sent: Raw | None, error: Exception | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(sent)
            else:
                done.set_exception(error)

        self.submit(observe)
        return done

    def announce(self, stored: Stored) -> Raw:
        """Tell of a message that is committed; what ends a hiding is preceded by `conversation:new`."""
        new = self.message
        change = events.message_new(new.conversation_id, views.sent_message(new, stored))
        if stored.is_revealing:
            self._deps.fanout.reveal(new.conversation_id)
        else:
            self._deps.fanout.announce(change, new.traceparent)
        self._deps.outbox.wake()
        # Written once, for the sender as for all others.
        return Raw(change.event.data)

    async def find(self) -> Raw:
        """Give what was sent before under the same id; raises what this was refused for."""
        await revocation.require_valid(self._actor)
        await require_participant(self.message.conversation_id, self._actor)
        return Raw(encode(views.message(await _first_of_its_id(self.message))))


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
    """Find what was first sent under an id; raises Conflict where that said something else."""
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
    """Change what a message says; only its author may. Raises ValidationFailed, Forbidden, NotFound, Conflict."""
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
