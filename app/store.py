"""The statements that are written in SQL, each named, each with a line of why."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.database import connection

Row = dict[str, Any]

MESSAGE_COLUMNS = (
    "id",
    "conversation_id",
    "seq",
    "sender_id",
    "content",
    "attachments",
    "client_message_id",
    "fingerprint",
    "created_at",
    "updated_at",
    "deleted_at",
)

# The seq, the membership and the message in one statement: one round trip, and the head's row is locked for as
# long as that statement alone. The head is locked before the membership is read, and the membership is locked as
# well, because a removal that commits while this waits for the head must be seen: a locked row is read anew.
SEND_MESSAGE = """
WITH head AS MATERIALIZED (
    SELECT conversation_id FROM conversation_heads WHERE conversation_id = $2 FOR NO KEY UPDATE
), member AS MATERIALIZED (
    SELECT p.conversation_id
    FROM head JOIN participants p USING (conversation_id)
    WHERE p.user_id = $3
    FOR KEY SHARE OF p
), numbered AS (
    UPDATE conversation_heads h
    SET last_seq = h.last_seq + 1, last_message_seq = h.last_seq + 1, activity_at = clock_timestamp()
    FROM member
    WHERE h.conversation_id = member.conversation_id
    RETURNING h.last_seq, h.activity_at
)
INSERT INTO messages (id, conversation_id, seq, sender_id, content, attachments, client_message_id, fingerprint,
                      created_at, updated_at)
SELECT $1, $2, last_seq, $3, $4, $5::text::jsonb, $6, $7, activity_at, activity_at
FROM numbered
RETURNING *
"""

# The other half of a repeated send: what the same sender sent first under that id.
MESSAGE_SENT_AS = """
SELECT * FROM messages WHERE conversation_id = $1 AND sender_id = $2 AND client_message_id = $3
"""

# A stranger and an unknown conversation are told apart by one look.
MEMBERSHIP = """
SELECT EXISTS (SELECT 1 FROM conversations WHERE id = $1) AS known,
       EXISTS (SELECT 1 FROM participants WHERE conversation_id = $1 AND user_id = $2) AS member
"""

# Two people who create their conversation at the same moment get the same one: the loser waits and finds it.
CREATE_CONVERSATION = """
WITH created AS (
    INSERT INTO conversations (id, type, title, metadata, created_by, owner_id, direct_low, direct_high,
                               created_at, updated_at)
    VALUES ($1, $2, $3, $4::text::jsonb, $5, $6, $7, $8, now(), now())
    ON CONFLICT (direct_low, direct_high) DO NOTHING
    RETURNING id, created_at
), head AS (
    INSERT INTO conversation_heads (conversation_id, last_seq, last_message_seq, activity_at)
    SELECT id, 0, 0, created_at FROM created
)
INSERT INTO participants (conversation_id, user_id, role, joined_at, last_read_seq)
SELECT created.id, person.user_id, CASE WHEN person.user_id = $6 THEN 'owner' ELSE 'member' END,
       created.created_at, 0
FROM created, unnest($9::text[]) AS person (user_id)
RETURNING conversation_id
"""

DIRECT_CONVERSATION = "SELECT id FROM conversations WHERE direct_low = $1 AND direct_high = $2"

_CONVERSATION_COLUMNS = """
    c.id, c.type, c.title, c.metadata, c.created_by, c.owner_id, c.created_at, c.updated_at,
    h.last_seq, h.activity_at,
    (SELECT count(*) FROM participants WHERE conversation_id = c.id) AS participant_count,
    (SELECT count(*) FROM (
        SELECT 1 FROM messages
        WHERE conversation_id = c.id AND seq > me.last_read_seq AND sender_id <> me.user_id
              AND deleted_at IS NULL
        LIMIT 1000
    ) AS unread) AS unread_count,
""" + ", ".join(f"m.{column} AS last_message_{column}" for column in MESSAGE_COLUMNS)

# A page of one's list: it reads the narrow rows of all one's conversations, and messages of this page's only.
LIST_CONVERSATIONS = f"""
WITH page AS MATERIALIZED (
    SELECT me.conversation_id, me.user_id, me.last_read_seq, h.last_seq, h.last_message_seq, h.activity_at
    FROM participants me JOIN conversation_heads h USING (conversation_id)
    WHERE me.user_id = $1 AND ($2::timestamptz IS NULL OR (h.activity_at, me.conversation_id) < ($2, $3::uuid))
    ORDER BY h.activity_at DESC, me.conversation_id DESC
    LIMIT $4
)
SELECT {_CONVERSATION_COLUMNS}
FROM page me
JOIN conversations c ON c.id = me.conversation_id
JOIN LATERAL (SELECT me.last_seq, me.activity_at) h ON true
LEFT JOIN messages m ON m.conversation_id = me.conversation_id AND m.seq = me.last_message_seq
ORDER BY h.activity_at DESC, c.id DESC
"""

# One conversation as one of its participants sees it.
GET_CONVERSATION = f"""
SELECT {_CONVERSATION_COLUMNS}
FROM conversations c
JOIN conversation_heads h ON h.conversation_id = c.id
JOIN participants me ON me.conversation_id = c.id AND me.user_id = $2
LEFT JOIN messages m ON m.conversation_id = c.id AND m.seq = h.last_message_seq
WHERE c.id = $1
"""

# The reader first, then in the order of joining, at most so many of each conversation.
PARTICIPANTS = """
SELECT conversation_id, user_id, role, joined_at, last_read_seq, last_read_at
FROM (
    SELECT p.*, row_number() OVER (
        PARTITION BY conversation_id ORDER BY user_id <> $2, joined_at, user_id COLLATE "C"
    ) AS place
    FROM participants p
    WHERE conversation_id = ANY($1::uuid[])
) AS placed
WHERE place <= $3
ORDER BY conversation_id, place
"""

HISTORY_BACKWARD = """
SELECT * FROM messages WHERE conversation_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3
"""

HISTORY_FORWARD = """
SELECT * FROM messages WHERE conversation_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
"""

SEQ_OF = "SELECT seq FROM messages WHERE id = $2 AND conversation_id = $1"

# What a socket follows from the moment it is connected.
CONVERSATIONS_OF = "SELECT conversation_id FROM participants WHERE user_id = $1"

LAST_SEQS = "SELECT conversation_id, last_seq FROM conversation_heads WHERE conversation_id = ANY($1::uuid[])"

# All holes of a pod at once: each conversation's messages after the one that was delivered last.
MISSED = """
SELECT m.*
FROM unnest($1::uuid[], $2::bigint[]) AS hole (conversation_id, delivered)
CROSS JOIN LATERAL (
    SELECT * FROM messages
    WHERE conversation_id = hole.conversation_id AND seq > hole.delivered
    ORDER BY seq
    LIMIT $3
) AS m
ORDER BY m.conversation_id, m.seq
"""

# Which conversations were written to by transactions that had not ended when the pod last looked. A timestamp or
# a serial would lose what commits late; the next horizon comes from the same snapshot.
COMMITTED_SINCE = """
SELECT conversation_id, max(seq) AS last_seq
FROM messages
WHERE xid >= $1::text::xid8
GROUP BY conversation_id
"""

HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS horizon"


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is about to be stored; `attachments` is JSON."""

    id: UUID
    conversation_id: UUID
    sender_id: str
    content: str
    attachments: str
    client_message_id: str | None
    fingerprint: bytes | None


@dataclass(frozen=True, slots=True)
class NewConversation:
    """A conversation that is about to be created; `metadata` is JSON."""

    id: UUID
    type: str
    title: str | None
    metadata: str
    created_by: str
    owner_id: str | None
    direct_pair: tuple[str, str] | None
    people: Sequence[str]


async def _rows(statement: str, *values: Any) -> list[Row]:
    return await connection().execute_query_dict(statement, list(values))


async def _row(statement: str, *values: Any) -> Row | None:
    found = await _rows(statement, *values)
    return found[0] if found else None


async def send_message(new: NewMessage) -> Row | None:
    """Store a message under the conversation's next seq; None where the sender is no participant.

    Raises IntegrityError where the sender has used that client_message_id there: no seq is taken then.
    """
    return await _row(
        SEND_MESSAGE,
        new.id,
        new.conversation_id,
        new.sender_id,
        new.content,
        new.attachments,
        new.client_message_id,
        new.fingerprint,
    )


async def message_sent_as(conversation_id: UUID, sender_id: str, client_message_id: str) -> Row | None:
    return await _row(MESSAGE_SENT_AS, conversation_id, sender_id, client_message_id)


async def membership(conversation_id: UUID, user_id: str) -> tuple[bool, bool]:
    """Tell whether the conversation exists, and whether the user is in it."""
    row = await _row(MEMBERSHIP, conversation_id, user_id)
    return (row["known"], row["member"]) if row else (False, False)


async def create_conversation(new: NewConversation) -> bool:
    """Store a conversation with its people; False where that direct conversation exists."""
    low, high = new.direct_pair or (None, None)
    rows = await _rows(
        CREATE_CONVERSATION,
        new.id,
        new.type,
        new.title,
        new.metadata,
        new.created_by,
        new.owner_id,
        low,
        high,
        list(new.people),
    )
    return bool(rows)


async def direct_conversation(low: str, high: str) -> UUID | None:
    row = await _row(DIRECT_CONVERSATION, low, high)
    return row["id"] if row else None


async def list_conversations(user_id: str, before: tuple[datetime, UUID] | None, limit: int) -> list[Row]:
    at, conversation_id = before or (None, None)
    return await _rows(LIST_CONVERSATIONS, user_id, at, conversation_id, limit)


async def get_conversation(conversation_id: UUID, user_id: str) -> Row | None:
    return await _row(GET_CONVERSATION, conversation_id, user_id)


async def participants(conversation_ids: list[UUID], reader: str, most: int) -> list[Row]:
    return await _rows(PARTICIPANTS, conversation_ids, reader, most)


async def history(conversation_id: UUID, *, before: int | None, after: int | None, limit: int) -> list[Row]:
    """Read messages next to a seq: newest first, or oldest first where `after` is given."""
    if after is not None:
        return await _rows(HISTORY_FORWARD, conversation_id, after, limit)
    newest = 2**63 - 1
    return await _rows(HISTORY_BACKWARD, conversation_id, newest if before is None else before, limit)


async def seq_of(conversation_id: UUID, message_id: UUID) -> int | None:
    row = await _row(SEQ_OF, conversation_id, message_id)
    return row["seq"] if row else None


async def conversations_of(user_id: str) -> list[UUID]:
    return [row["conversation_id"] for row in await _rows(CONVERSATIONS_OF, user_id)]


async def last_seqs(conversation_ids: list[UUID]) -> dict[UUID, int]:
    rows = await _rows(LAST_SEQS, conversation_ids)
    return {row["conversation_id"]: row["last_seq"] for row in rows}


async def missed(delivered: dict[UUID, int], most: int) -> list[Row]:
    """Read what each conversation has after the seq delivered last, at most so many of each, in order."""
    return await _rows(MISSED, list(delivered), list(delivered.values()), most)


async def horizon() -> str:
    row = await _row(HORIZON)
    assert row is not None
    return str(row["horizon"])


async def committed_since(horizon_before: str) -> dict[UUID, int]:
    rows = await _rows(COMMITTED_SINCE, horizon_before)
    return {row["conversation_id"]: row["last_seq"] for row in rows}
