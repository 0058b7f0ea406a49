"""The hot statements, in SQL: the send, and what delivery reads. The others are in `queries`, or Tortoise's."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from app.observability import tracing
from app.postgres.database import connection

Row = dict[str, Any]

# Many sends in one statement: seq, membership, message and webhook of each. Nobody's head is waited for: what is
# busy comes back so and takes SEND_IN_LINE: one slow conversation must not hold up all others. The heads are
# locked in one order, before the membership is read, and the membership is locked as well, because a removal that
# commits meanwhile must be seen: a locked row is read anew. A deleted user is refused here too, by when
# the token was issued; and a message that was sent before under the same id gives nothing, so that only two of one
# moment meet the unique index. The webhook has the id of its message, which no other has. OFFSET 0 has what was
# sent before looked up one by one: of tables that were empty a moment ago the planner would read the whole.
_SEND = """
WITH head AS MATERIALIZED (
    SELECT conversation_id, last_seq, last_message_seq, is_hidden FROM conversation_heads
    WHERE conversation_id = ANY($2::uuid[]) {free}
    ORDER BY conversation_id FOR NO KEY UPDATE {skip}
), moment AS MATERIALIZED (
    SELECT clock_timestamp() AS at FROM (SELECT count(*) FROM head) locked
), accepted AS MATERIALIZED (
    SELECT input.*, moment.at,
           head.last_seq + row_number() OVER (PARTITION BY head.conversation_id ORDER BY input.place) AS seq
    FROM head
    JOIN unnest($1::uuid[], $2::uuid[], $3::varchar[], $4::text[], $5::text[], $6::varchar[], $7::bytea[],
                $8::bigint[], $9::varchar[])
         WITH ORDINALITY AS input (id, conversation_id, sender_id, content, attachments, client_message_id,
                                   fingerprint, token_second, traceparent, place) USING (conversation_id)
    CROSS JOIN LATERAL (
        SELECT 1 FROM participants p
        WHERE p.conversation_id = head.conversation_id AND p.user_id = input.sender_id
        FOR KEY SHARE
    ) member
    CROSS JOIN moment
    WHERE NOT {refused}
          AND NOT EXISTS (
              SELECT 1 FROM messages m
              WHERE m.conversation_id = input.conversation_id AND m.sender_id = input.sender_id
                    AND m.client_message_id = input.client_message_id
              OFFSET 0
          )
), numbered AS (
    UPDATE conversation_heads h
    SET last_seq = latest.seq, last_message_seq = latest.seq, activity_at = latest.at, is_hidden = false
    FROM (SELECT conversation_id, at, max(seq) AS seq FROM accepted GROUP BY conversation_id, at) latest
    WHERE h.conversation_id = latest.conversation_id AND h.conversation_id = ANY($2::uuid[])
), stored AS (
    INSERT INTO messages (id, conversation_id, seq, sender_id, content, attachments, client_message_id,
                          fingerprint, created_at, updated_at)
    SELECT id, conversation_id, seq, sender_id, content, attachments::jsonb, client_message_id, fingerprint, at, at
    FROM accepted ORDER BY conversation_id, seq
), told AS (
    INSERT INTO webhooks (id, event, conversation_id, seq, user_id, message_id, created_at, traceparent)
    SELECT id, 'message.created', conversation_id, seq, sender_id, id, at, traceparent FROM accepted WHERE $10
)
"""

# What was stored, by its place among the values, and the conversations whose heads were free.
SEND = (
    _SEND.format(
        free="AND NOT is_hidden",
        skip="SKIP LOCKED",
        refused="""EXISTS (
              SELECT 1 FROM users WHERE id = input.sender_id AND refused_until >= input.token_second OFFSET 0
          )""",
    )
    + """
SELECT place, NULL AS conversation_id, seq, at, false AS is_revealing FROM accepted
UNION ALL
SELECT NULL, conversation_id, NULL, NULL, NULL FROM head
"""
)

# The same for one conversation whose head is waited for: the function reads what is there when it is called, so
# that a deletion during the wait is seen. Whoever has hidden the conversation is shown it again by the first
# message. FOR KEY SHARE would not see a hiding that commits meanwhile, so `pair` is read anew; and only where a
# direct conversation was hidden.
SEND_IN_LINE = (
    _SEND.format(free="", skip="", refused="is_refused(input.sender_id, input.token_second)")
    + """
, pair AS MATERIALIZED (
    SELECT user_id, hidden_seq FROM participants WHERE conversation_id = ANY($2::uuid[]) FOR SHARE
), revealed AS MATERIALIZED (
    SELECT CASE WHEN head.is_hidden THEN ARRAY(
        SELECT user_id FROM pair WHERE hidden_seq >= head.last_message_seq
    ) END AS users
    FROM head WHERE EXISTS (SELECT 1 FROM accepted)
), noticed AS (
    INSERT INTO notices (kind, user_id, conversation_id)
    SELECT 'revealed', person.user_id, head.conversation_id
    FROM head, revealed, unnest(revealed.users) AS person (user_id)
)
SELECT accepted.place, NULL AS conversation_id, accepted.seq, accepted.at,
       cardinality(revealed.users) > 0 AS is_revealing
FROM accepted CROSS JOIN revealed
UNION ALL
SELECT NULL, conversation_id, NULL, NULL, NULL FROM head
"""
)

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


# What sockets follow from the moment they are connected, of all who connect at once, by the place of their token;
# without a conversation, that it was issued before its user was deleted.
ADMISSIONS = """
WITH token AS (
    SELECT * FROM unnest($1::varchar[], $2::bigint[]) WITH ORDINALITY AS input (user_id, second, place)
)
SELECT token.place, mine.conversation_id
FROM token
CROSS JOIN LATERAL (SELECT conversation_id FROM participants WHERE user_id = token.user_id OFFSET 0) mine
UNION ALL
SELECT token.place, NULL
FROM token
CROSS JOIN LATERAL (SELECT 1 FROM users WHERE id = token.user_id AND refused_until >= token.second OFFSET 0) gone
"""

# Which of these tokens were issued before their user was deleted, by their place.
REFUSED = """
SELECT token.place
FROM unnest($1::varchar[], $2::bigint[]) WITH ORDINALITY AS token (user_id, second, place)
CROSS JOIN LATERAL (SELECT 1 FROM users WHERE id = token.user_id AND refused_until >= token.second OFFSET 0) gone
"""

LAST_SEQS = """
SELECT h.conversation_id, h.last_seq
FROM unnest($1::uuid[]) AS wanted (conversation_id)
CROSS JOIN LATERAL (SELECT * FROM conversation_heads WHERE conversation_id = wanted.conversation_id OFFSET 0) h
"""


class NewMessage(NamedTuple):
    """A message that is about to be stored: the values of SEND, in their order.

    `attachments` is JSON, `token_second` when the token was issued, `traceparent` where in a trace it was sent.
    """

    id: UUID
    conversation_id: UUID
    sender_id: str
    content: str
    attachments: str
    client_message_id: str | None
    fingerprint: bytes | None
    token_second: int
    traceparent: str | None = None


async def rows(statement: str, *values: Any) -> list[Row]:
    """Run a statement on the pool, or in the transaction that is open."""
    with tracing.statement(statement):
        return await connection().execute_query_dict(statement, list(values))


async def row(statement: str, *values: Any) -> Row | None:
    """Run a statement that gives one row at most."""
    found = await rows(statement, *values)
    return found[0] if found else None


def send_values(messages: Sequence[NewMessage], *, is_told: bool) -> tuple[Any, ...]:
    """Give the values of SEND and SEND_IN_LINE; `is_told` is whether the master gets webhooks."""
    return (*map(list, zip(*messages, strict=True)), is_told)


async def missed(positions: dict[UUID, int], most: int) -> list[Row]:
    """Read what each conversation has after a seq, at most so many of each, in order."""
    return await rows(MISSED, list(positions), list(positions.values()), most)


async def admissions(tokens: Sequence[tuple[str, int]]) -> list[list[UUID] | None]:
    """List the conversations of each user; None where the token, of a second, is older than their deletion."""
    admitted: list[list[UUID]] = [[] for _ in tokens]
    refused: set[int] = set()
    found = await rows(ADMISSIONS, [user_id for user_id, _ in tokens], [second for _, second in tokens])
    for one in found:
        place = one["place"] - 1
        if one["conversation_id"] is None:
            refused.add(place)
        else:
            admitted[place].append(one["conversation_id"])
    return [None if place in refused else mine for place, mine in enumerate(admitted)]


async def are_refused(tokens: Sequence[tuple[str, int]]) -> list[bool]:
    """Tell of tokens, by their user and the second in which they were issued, whether that user was deleted."""
    found = await rows(REFUSED, [user_id for user_id, _ in tokens], [second for _, second in tokens])
    places = {refused["place"] for refused in found}
    return [place in places for place in range(1, len(tokens) + 1)]


async def last_seqs(conversation_ids: Sequence[UUID]) -> dict[UUID, int]:
    found = await rows(LAST_SEQS, list(conversation_ids))
    return {head["conversation_id"]: head["last_seq"] for head in found}
