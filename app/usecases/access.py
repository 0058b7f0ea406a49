"""Access: who was deleted, who is in a conversation, and where a message is."""

from collections.abc import Sequence
from uuid import UUID

from app.contract import ids
from app.contract.errors import Conflict, Forbidden, NotFound
from app.identity.actor import Actor
from app.postgres import message_rows, participant_rows
from app.postgres.statements import statement
from app.postgres.transactions import Executor, Row, Transaction

DELETED_USERS = statement("deleted_users")
LOCK_USERS = statement("lock_users")
LOCK_DELETED_USER = statement("lock_deleted_user")


async def lock_users(tx: Transaction, user_ids: Sequence[str]) -> None:
    """Keep users from being deleted until the transaction ends, which lets them into a conversation.

    Whether one was deleted before is to be read by a statement after this one: it may have waited for that.
    """
    await tx.execute(LOCK_USERS, list(user_ids))


async def lock_deleted_user(tx: Transaction, user_id: str) -> None:
    """Wait for all transactions that let a user into a conversation, and let none begin until this one ends."""
    await tx.execute(LOCK_DELETED_USER, user_id)


async def require_known(executor: Executor, user_ids: Sequence[str]) -> None:
    """Raise Conflict for a user who was deleted and not synced again."""
    if gone := await executor.rows(DELETED_USERS, list(user_ids)):
        raise Conflict(f"The user {gone[0]['id']!r} was deleted")


async def require_participant(conversation_id: UUID, actor: Actor) -> None:
    """Raise NotFound where there is no such conversation, Forbidden where the actor is not in it."""
    admit(conversation_id, *await participant_rows.membership(conversation_id, actor.user_id))


def admit(conversation_id: UUID, known: bool, member: bool) -> None:  # noqa: FBT001 - as `participant_rows` gives them
    """Raise NotFound where there is no such conversation, Forbidden for who is not in it."""
    if not known:
        raise no_conversation(conversation_id)
    if not member:
        raise Forbidden("You are not a participant of this conversation")


def no_conversation(conversation_id: UUID) -> NotFound:
    """Make the error that names a conversation which is not there."""
    return NotFound(f"There is no conversation {ids.to_wire(ids.CONVERSATION, conversation_id)!r}")


async def require_message(executor: Executor, message_id: UUID, actor: Actor) -> Row:
    """Read a message; raises NotFound where there is none. Who may see it is asked of its conversation."""
    row = await message_rows.get_message(executor, actor.user_id, message_id)
    if row is None:
        raise NotFound(f"There is no message {ids.to_wire(ids.MESSAGE, message_id)!r}")
    return row
