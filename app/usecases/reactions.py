"""Use cases of reactions: add and remove."""

from datetime import UTC, datetime
from uuid import UUID

from app.contract import events
from app.contract.errors import Conflict
from app.contract.schemas import AddReaction, MessageView
from app.identity import policy
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.messages import views
from app.postgres import message_rows
from app.postgres.statements import statement
from app.postgres.transactions import POOL
from app.usecases.access import require_message
from app.usecases.changing import changing
from app.usecases.deps import Deps

ADD = statement("add_reaction")
HAS = statement("has_reaction")
REMOVE = statement("remove_reaction")


async def add_reaction(
    deps: Deps, actor: Actor, message_id: UUID, command: AddReaction
) -> tuple[MessageView, bool]:
    """React to a message; False where the actor has reacted so before.

    Raises ValidationFailed, Forbidden, NotFound, and Conflict for a tombstone or one reaction too many.
    """
    policy.require_write(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    policy.check_emoji(command.emoji)
    found = await require_message(POOL, message_id, actor)
    async with changing(deps, found["conversation_id"], actor) as (tx, conversation):
        if (await require_message(tx, message_id, actor))["deleted_at"] is not None:
            raise Conflict("The message was deleted")
        key = (message_id, command.emoji, actor.user_id)
        most = deps.settings.max_reactions
        is_new = await tx.row(ADD, *key, most) is not None
        if is_new:
            change = events.reaction(
                events.REACTION_ADDED, conversation.conversation_id, conversation.next_seq, *key
            )
            data = {"emoji": command.emoji, "userId": actor.user_id}
            conversation.add(change, message_id=message_id, data=data)
            conversation.add_webhook(
                events.REACTION_CREATED,
                actor.user_id,
                datetime.now(UTC),
                message_id=message_id,
                data={"emoji": command.emoji},
            )
        elif await tx.row(HAS, *key) is None:
            raise Conflict(f"The message has {most} different reactions, which is the most there can be")
        row = await message_rows.get_message(tx, actor.user_id, message_id)
    assert row is not None
    return views.message(row), is_new


async def remove_reaction(deps: Deps, actor: Actor, message_id: UUID, emoji: str) -> None:
    """Take a reaction back; nothing happens where there is none. Raises Forbidden and NotFound."""
    policy.require_write(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    policy.check_emoji(emoji)
    found = await require_message(POOL, message_id, actor)
    async with changing(deps, found["conversation_id"], actor) as (tx, conversation):
        key = (message_id, emoji, actor.user_id)
        if await tx.row(REMOVE, *key) is not None:
            change = events.reaction(
                events.REACTION_REMOVED, conversation.conversation_id, conversation.next_seq, *key
            )
            conversation.add(change, message_id=message_id, data={"emoji": emoji, "userId": actor.user_id})
