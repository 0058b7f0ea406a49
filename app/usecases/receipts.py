"""Use cases of read receipts: mark a message or a conversation as read."""

from uuid import UUID

from app.contract import events, ids
from app.contract.errors import NotFound
from app.contract.schemas import ReadView, timestamp
from app.delivery.receipts import Receipt
from app.identity import policy, revocation
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.postgres.statements import statement
from app.postgres.transactions import POOL
from app.usecases.access import require_message, require_participant
from app.usecases.deps import Deps

ADVANCE = statement("advance_read_cursor")
WHERE_NOW = statement("read_cursor")


async def read_message(deps: Deps, actor: Actor, message_id: UUID) -> ReadView:
    """Mark everything up to a message as read; raises Forbidden and NotFound."""
    policy.require_read(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    message = await require_message(POOL, message_id, actor)
    return await _read(deps, actor, message["conversation_id"], message["seq"])


async def read_conversation(deps: Deps, actor: Actor, conversation_id: UUID) -> ReadView:
    """Mark everything up to the latest message as read; raises Forbidden and NotFound."""
    policy.require_read(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    return await _read(deps, actor, conversation_id, None)


async def _read(deps: Deps, actor: Actor, conversation_id: UUID, seq: int | None) -> ReadView:
    await require_participant(conversation_id, actor)
    second = actor.issued_second
    moved = await POOL.row(ADVANCE, conversation_id, actor.user_id, seq, deps.settings.large_group, second)
    if moved is not None:
        event = events.message_read(
            conversation_id, moved["message_id"], actor.user_id, moved["last_read_seq"], moved["last_read_at"]
        )
        receipt = Receipt(conversation_id, actor.user_id, moved["last_read_seq"], event, moved["is_large"])
        await deps.receipts.announce(receipt)
    now = moved or await POOL.row(WHERE_NOW, conversation_id, actor.user_id, second)
    if now is None:
        raise NotFound("You were removed from this conversation")
    if moved is None and now["is_refused"]:
        raise revocation.refused()
    return ReadView(
        conversation_id=ids.to_wire(ids.CONVERSATION, conversation_id),
        last_read_seq=now["last_read_seq"],
        read_at=timestamp(now["last_read_at"]),
    )
