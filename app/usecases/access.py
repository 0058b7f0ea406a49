"""Whether somebody is in a conversation."""

from uuid import UUID

from app import ids, store
from app.auth.actor import Actor
from app.errors import Forbidden, NotFound


async def require_participant(conversation_id: UUID, actor: Actor) -> None:
    """Raise NotFound where there is no such conversation, Forbidden where the actor is not in it."""
    known, member = await store.membership(conversation_id, actor.user_id)
    if not known:
        raise NotFound(f"There is no conversation {ids.to_wire(ids.CONVERSATION, conversation_id)!r}")
    if not member:
        raise Forbidden("You are not a participant of this conversation")
