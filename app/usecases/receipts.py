"""How far people have read."""

from uuid import UUID

from app.contract import events, ids
from app.contract.errors import NotFound, Unauthorized
from app.contract.schemas import ReadView, timestamp
from app.delivery.receipts import Receipt
from app.identity import policy
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.postgres import store
from app.usecases.access import require_message, require_participant
from app.usecases.deps import Deps

# The cursor never moves back. The message that it stands at is named in the event.
ADVANCE = """
WITH target AS (
    SELECT m.id, m.seq
    FROM conversation_heads h JOIN messages m ON m.conversation_id = h.conversation_id
    WHERE h.conversation_id = $1 AND m.seq = coalesce($3::bigint, h.last_message_seq)
)
UPDATE participants p
SET last_read_seq = target.seq, last_read_at = clock_timestamp()
FROM target
WHERE p.conversation_id = $1 AND p.user_id = $2 AND p.last_read_seq < target.seq AND NOT is_refused($2, $5)
RETURNING p.last_read_seq, p.last_read_at, target.id AS message_id,
          (SELECT count(*) > $4 FROM (
              SELECT 1 FROM participants WHERE conversation_id = $1 LIMIT $4::bigint + 1
          ) AS counted) AS is_large
"""

WHERE_NOW = """
SELECT last_read_seq, coalesce(last_read_at, joined_at) AS last_read_at, is_refused($2, $3) AS is_refused
FROM participants WHERE conversation_id = $1 AND user_id = $2
"""


async def read_message(deps: Deps, actor: Actor, message_id: UUID) -> ReadView:
    """Mark everything up to a message as read; raises Forbidden and NotFound."""
    policy.require_read(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    message = await require_message(message_id, actor)
    return await _read(deps, actor, message["conversation_id"], message["seq"])


async def read_conversation(deps: Deps, actor: Actor, conversation_id: UUID) -> ReadView:
    """Mark everything up to the latest message as read; raises Forbidden and NotFound."""
    policy.require_read(actor)
    await deps.limits.check(Action.WRITE, actor.user_id)
    return await _read(deps, actor, conversation_id, None)


async def _read(deps: Deps, actor: Actor, conversation_id: UUID, seq: int | None) -> ReadView:
    await require_participant(conversation_id, actor)
    second = actor.issued_second
    moved = await store.row(ADVANCE, conversation_id, actor.user_id, seq, deps.settings.large_group, second)
    if moved is not None:
        event = events.message_read(
            conversation_id, moved["message_id"], actor.user_id, moved["last_read_seq"], moved["last_read_at"]
        )
        receipt = Receipt(conversation_id, actor.user_id, moved["last_read_seq"], event, moved["is_large"])
        await deps.receipts.announce(receipt)
    now = moved or await store.row(WHERE_NOW, conversation_id, actor.user_id, second)
    if now is None:
        raise NotFound("You were removed from this conversation")
    if moved is None and now["is_refused"]:
        raise Unauthorized("The user was deleted")
    return ReadView(
        conversation_id=ids.to_wire(ids.CONVERSATION, conversation_id),
        last_read_seq=now["last_read_seq"],
        read_at=timestamp(now["last_read_at"]),
    )
