"""Whether somebody may act at all and is in a conversation, and where a message is."""

from collections.abc import Sequence
from uuid import UUID

from app.contract import ids
from app.contract.errors import Conflict, Forbidden, NotFound
from app.identity.actor import Actor
from app.postgres import queries, store
from app.postgres.store import Row

IS_REFUSED = "SELECT 1 FROM users WHERE id = $1 AND refused_until >= $2"

DELETED_USERS = "SELECT id FROM users WHERE id = ANY($1::text[]) AND deleted_at IS NOT NULL"

# By advisory locks, since there is no row of who was never synced. All are taken in one order, after the head of a
# conversation; a deletion takes one alone, and no head with it.
LOCK_USERS = """
SELECT pg_advisory_xact_lock_shared(key)
FROM (
    SELECT DISTINCT hashtextextended(user_id, 0) AS key FROM unnest($1::text[]) AS person (user_id) ORDER BY key
) AS ordered
"""

LOCK_DELETED_USER = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"


async def lock_users(user_ids: Sequence[str]) -> None:
    """Keep users from being deleted until the open transaction ends, which lets them into a conversation.

    Whether one was deleted before is to be read by a statement after this one: it may have waited for that.
    """
    await store.rows(LOCK_USERS, list(user_ids))


async def lock_deleted_user(user_id: str) -> None:
    """Wait for all transactions that let a user into a conversation, and let none begin until this one ends."""
    await store.rows(LOCK_DELETED_USER, user_id)


async def require_known(user_ids: Sequence[str]) -> None:
    """Raise Conflict for a user who was deleted and not synced again."""
    if gone := await store.rows(DELETED_USERS, list(user_ids)):
        raise Conflict(f"The user {gone[0]['id']!r} was deleted")


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
