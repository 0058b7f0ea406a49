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
# A deleted user is refused here too, by the time at which the token was issued; and a message that was sent before
# under the same id gives nothing, so that only two of one moment meet the unique index.
SEND_MESSAGE = """
WITH head AS MATERIALIZED (
    SELECT conversation_id, last_message_seq, is_hidden
    FROM conversation_heads WHERE conversation_id = $2 FOR NO KEY UPDATE
), member AS MATERIALIZED (
    SELECT p.conversation_id
    FROM head, participants p
    WHERE p.conversation_id = $2 AND p.user_id = $3::varchar
          AND NOT EXISTS (SELECT 1 FROM users WHERE id = $3::varchar AND refused_until >= $8)
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
)
SELECT stored.*, '[]' AS reactions,
       CASE WHEN head.is_hidden THEN ARRAY(
           SELECT user_id FROM pair WHERE hidden_seq >= head.last_message_seq
       ) END AS revealed_to
FROM stored, head
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

NOTICES_SINCE = """
SELECT kind, user_id, conversation_id, floor(extract(epoch FROM created_at))::bigint AS second
FROM notices WHERE xid >= $1::text::xid8 ORDER BY id
"""

HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS horizon"

# What a socket follows from the moment it is connected, of all who connect at once.
CONVERSATIONS_OF = "SELECT user_id, conversation_id FROM participants WHERE user_id = ANY($1::varchar[])"

# Which of these tokens were issued before their user was deleted, by their place.
REFUSED = """
SELECT token.place
FROM unnest($1::varchar[], $2::bigint[]) WITH ORDINALITY AS token (user_id, second, place)
JOIN users u ON u.id = token.user_id AND u.refused_until >= token.second
"""

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


async def conversations_of(user_ids: Sequence[str]) -> list[list[UUID]]:
    """List the conversations of each user."""
    found: dict[str, list[UUID]] = {user_id: [] for user_id in user_ids}
    for participant in await rows(CONVERSATIONS_OF, list(found)):
        found[participant["user_id"]].append(participant["conversation_id"])
    return [found[user_id] for user_id in user_ids]


async def are_refused(tokens: Sequence[tuple[str, int]]) -> list[bool]:
    """Tell of tokens, by their user and the second in which they were issued, whether that user was deleted."""
    found = await rows(REFUSED, [user_id for user_id, _ in tokens], [second for _, second in tokens])
    places = {refused["place"] for refused in found}
    return [place in places for place in range(1, len(tokens) + 1)]


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
