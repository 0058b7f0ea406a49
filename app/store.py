"""The hot statements, in SQL: the send, and what delivery reads. The others are in `queries`, or Tortoise's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.database import connection

Row = dict[str, Any]

# The seq, the membership and the message in one statement: one round trip, and the head's row is locked for as
# long as that statement alone. The head is locked before the membership is read, and the membership is locked as
# well, because a removal that commits while this waits for the head must be seen: a locked row is read anew. So
# must a hiding, which FOR KEY SHARE would not see; `pair` is read only where a direct conversation was hidden.
# A deleted user is refused here too, by the time at which the token was issued; the function reads what is there
# when it is called, so that a deletion during the wait is seen. And a message that was sent before under the same
# id gives nothing, so that only two of one moment meet the unique index.
SEND_MESSAGE = """
WITH head AS MATERIALIZED (
    SELECT conversation_id, last_message_seq, is_hidden
    FROM conversation_heads WHERE conversation_id = $2 FOR NO KEY UPDATE
), member AS MATERIALIZED (
    SELECT p.conversation_id
    FROM head, participants p
    WHERE p.conversation_id = $2 AND p.user_id = $3::varchar
          AND NOT is_refused($3::varchar, $8)
          AND NOT EXISTS (
              SELECT 1 FROM messages
              WHERE conversation_id = $2 AND sender_id = $3::varchar AND client_message_id = $6::varchar
          )
    FOR KEY SHARE OF p
), numbered AS (
    UPDATE conversation_heads h
    SET last_seq = h.last_seq + 1, last_message_seq = h.last_seq + 1, activity_at = clock_timestamp(),
        is_hidden = false
    FROM member
    WHERE h.conversation_id = member.conversation_id
    RETURNING h.last_seq, h.activity_at
), stored AS (
    INSERT INTO messages (id, conversation_id, seq, sender_id, content, attachments, client_message_id,
                          fingerprint, created_at, updated_at)
    SELECT $1, $2, last_seq, $3::varchar, $4, $5::text::jsonb, $6::varchar, $7, activity_at, activity_at
    FROM numbered
    RETURNING *
), pair AS MATERIALIZED (
    SELECT p.user_id, p.hidden_seq FROM participants p WHERE p.conversation_id = $2 FOR SHARE
), revealed AS MATERIALIZED (
    SELECT CASE WHEN head.is_hidden THEN ARRAY(
        SELECT user_id FROM pair WHERE hidden_seq >= head.last_message_seq
    ) END AS users
    FROM stored, head
), noticed AS (
    INSERT INTO notices (kind, user_id, conversation_id)
    SELECT 'revealed', person.user_id, $2 FROM revealed, unnest(revealed.users) AS person (user_id)
)
SELECT stored.*, '[]' AS reactions, revealed.users AS revealed_to FROM stored, revealed
"""

# All holes of a pod at once: what each conversation has after the seq that was delivered last. A message is its
# own entry in the log; what other entries say of a message or a person is read where it stands now. OFFSET 0 has
# it looked up entry by entry: the planner takes each hole for a large one, and would read whole tables.
MISSED = """
SELECT hole.conversation_id, log.seq, log.event, log.data, log.message_id,
       m.sender_id, m.content, m.attachments, m.client_message_id, m.created_at, m.updated_at, m.deleted_at,
       u.display_name, u.avatar_url
FROM unnest($1::uuid[], $2::bigint[]) AS hole (conversation_id, delivered)
CROSS JOIN LATERAL (
    (
        SELECT seq, 'message:new' AS event, NULL::jsonb AS data, id AS message_id
        FROM messages
        WHERE conversation_id = hole.conversation_id AND seq > hole.delivered
        ORDER BY seq LIMIT $3
    )
    UNION ALL
    (
        SELECT seq, event, data, message_id
        FROM events
        WHERE conversation_id = hole.conversation_id AND seq > hole.delivered
        ORDER BY seq LIMIT $3
    )
    ORDER BY seq
    LIMIT $3
) AS log
LEFT JOIN LATERAL (SELECT * FROM messages WHERE id = log.message_id OFFSET 0) m ON true
LEFT JOIN LATERAL (
    SELECT * FROM users WHERE id = log.data ->> 'userId' AND log.event = 'participant:added' OFFSET 0
) u ON u.deleted_at IS NULL
ORDER BY hole.conversation_id, log.seq
"""

# Which conversations were written to by transactions that had not ended when the pod last looked. A timestamp or
# a serial would lose what commits late. The upper bound leaves nothing out: it tells the planner that the range is
# short, who would guess a third of the table.
COMMITTED_SINCE = """
SELECT conversation_id, max(seq) AS last_seq
FROM (
    SELECT conversation_id, seq FROM messages
    WHERE xid BETWEEN $1::text::xid8 AND pg_snapshot_xmax(pg_current_snapshot())
    UNION ALL
    SELECT conversation_id, seq FROM events
    WHERE xid BETWEEN $1::text::xid8 AND pg_snapshot_xmax(pg_current_snapshot())
) AS written
GROUP BY conversation_id
"""

# What ended the hiding of a conversation is the first message that was stored in the same transaction.
NOTICES_SINCE = """
SELECT id, kind, user_id, conversation_id, floor(extract(epoch FROM created_at))::bigint AS second,
       CASE WHEN kind = 'revealed' THEN (
           SELECT min(seq) FROM messages WHERE xid = notices.xid AND conversation_id = notices.conversation_id
       ) END AS seq
FROM notices WHERE xid >= $1::text::xid8 ORDER BY id
"""

HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS horizon"

# What a socket follows from the moment it is connected.
CONVERSATIONS_OF = "SELECT conversation_id FROM participants WHERE user_id = $1"

LAST_SEQS = """
SELECT h.conversation_id, h.last_seq
FROM unnest($1::uuid[]) AS wanted (conversation_id)
CROSS JOIN LATERAL (SELECT * FROM conversation_heads WHERE conversation_id = wanted.conversation_id OFFSET 0) h
"""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is about to be stored; `attachments` is JSON, `token_second` when the token was issued."""

    id: UUID
    conversation_id: UUID
    sender_id: str
    content: str
    attachments: str
    client_message_id: str | None
    fingerprint: bytes | None
    token_second: int


async def rows(statement: str, *values: Any) -> list[Row]:
    """Run a statement on the pool, or in the transaction that is open."""
    return await connection().execute_query_dict(statement, list(values))


async def row(statement: str, *values: Any) -> Row | None:
    """Run a statement that gives one row at most."""
    found = await rows(statement, *values)
    return found[0] if found else None


async def send_message(new: NewMessage) -> Row | None:
    """Store a message under the conversation's next seq; None where the sender may not, or sent it before.

    Raises IntegrityError where it is sent twice at the same moment: no seq is taken then.
    """
    return await row(
        SEND_MESSAGE,
        new.id,
        new.conversation_id,
        new.sender_id,
        new.content,
        new.attachments,
        new.client_message_id,
        new.fingerprint,
        new.token_second,
    )


async def missed(positions: dict[UUID, int], most: int) -> list[Row]:
    """Read what each conversation has after a seq, at most so many of each, in order."""
    return await rows(MISSED, list(positions), list(positions.values()), most)


async def conversations_of(user_id: str) -> list[UUID]:
    return [found["conversation_id"] for found in await rows(CONVERSATIONS_OF, user_id)]


async def last_seqs(conversation_ids: Sequence[UUID]) -> dict[UUID, int]:
    found = await rows(LAST_SEQS, list(conversation_ids))
    return {head["conversation_id"]: head["last_seq"] for head in found}


async def horizon() -> str:
    """Give the oldest transaction that has not ended."""
    found = await row(HORIZON)
    assert found is not None
    return str(found["horizon"])


async def committed_since(horizon_before: str) -> dict[UUID, int]:
    found = await rows(COMMITTED_SINCE, horizon_before)
    return {written["conversation_id"]: written["last_seq"] for written in found}


async def notices_since(horizon_before: str) -> list[Row]:
    return await rows(NOTICES_SINCE, horizon_before)
