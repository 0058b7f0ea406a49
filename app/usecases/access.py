"""Whether somebody may act at all and is in a conversation, and where a message is."""

from uuid import UUID

from app import ids, queries, store
from app.auth.actor import Actor
from app.errors import Forbidden, NotFound
from app.store import Row

IS_REFUSED = "SELECT 1 FROM users WHERE id = $1 AND refused_until >= $2"


async def is_refused(actor: Actor) -> bool:
    """Tell whether the actor's token was issued before its user was deleted."""
    return await store.row(IS_REFUSED, actor.user_id, actor.issued_second) is not None


async def require_participant(conversation_id: UUID, actor: Actor) -> None:
    """Raise NotFound where there is no such conversation, Forbidden where the actor is not in it."""
    admit(conversation_id, *await queries.membership(conversation_id, actor.user_id))


def admit(conversation_id: UUID, known: bool, member: bool) -> None:  # noqa: FBT001 - as `queries` gives them
    """Raise NotFound where there is no such conversation, Forbidden for who is not in it."""
    if not known:
        raise no_conversation(conversation_id)
    if not member:
        raise Forbidden("You are not a participant of this conversation")


def no_conversation(conversation_id: UUID) -> NotFound:
    """Make the error that names a conversation which is not there."""
    return NotFound(f"There is no conversation {ids.to_wire(ids.CONVERSATION, conversation_id)!r}")


async def require_message(message_id: UUID, actor: Actor) -> Row:
    """Read a message; raises NotFound where there is none. Who may see it is asked of its conversation."""
    row = await queries.get_message(actor.user_id, message_id)
    if row is None:
        raise NotFound(f"There is no message {ids.to_wire(ids.MESSAGE, message_id)!r}")
    return row
