"""What people say."""

import hashlib
from uuid import UUID

from tortoise.exceptions import IntegrityError

from app import cursors, events, ids, store, views
from app.auth import policy
from app.auth.actor import Actor
from app.deps import Deps
from app.errors import Conflict, NotFound
from app.schemas import MessagePage, MessageView, SendMessage, encode, reject
from app.store import NewMessage, Row
from app.usecases.access import require_participant


async def send_message(
    deps: Deps, actor: Actor, conversation_id: UUID, command: SendMessage
) -> tuple[MessageView, bool]:
    """Store a message and announce it; True where it is new, False where it was sent before under the same id.

    Raises ValidationFailed, Forbidden, NotFound, and Conflict where that id was used for another message.
    """
    policy.require_write(actor)
    policy.check_message(deps.settings, command)
    new = _new_message(actor, conversation_id, command)
    try:
        row = await store.send_message(new)
    except IntegrityError:
        return views.message(await _sent_before(new)), False
    if row is None:
        await require_participant(conversation_id, actor)
        raise NotFound("You were removed from this conversation")
    message = views.message(row)
    deps.fanout.announce(events.message_new(conversation_id, message))
    return message, True


def _new_message(actor: Actor, conversation_id: UUID, command: SendMessage) -> NewMessage:
    attachments = encode(command.attachments)
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
    )


async def _sent_before(new: NewMessage) -> Row:
    """Find what was first sent under an id; raises Conflict where it said something else."""
    assert new.client_message_id is not None
    row = await store.message_sent_as(new.conversation_id, new.sender_id, new.client_message_id)
    if row is None:
        raise Conflict("Another message took this place at the same moment, send again")
    if row["deleted_at"] is None and row["fingerprint"] != new.fingerprint:
        raise Conflict("clientMessageId: was used for a message that said something else")
    return row


async def list_messages(
    actor: Actor, conversation_id: UUID, limit: int, before: str | None, after: str | None
) -> MessagePage:
    """Read a page of history: newest first, or oldest first after a place; raises ValidationFailed."""
    policy.require_read(actor)
    if before is not None and after is not None:
        raise reject("after", "must not be given together with before")
    await require_participant(conversation_id, actor)
    rows = await store.history(
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
        seq = await store.seq_of(conversation_id, ids.from_wire(ids.MESSAGE, text))
    except NotFound:
        seq = None
    if seq is None:
        raise reject(field, "is not a message of this conversation")
    return seq
