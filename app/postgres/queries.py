"""What is read for an answer, each in one statement, whatever its length."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from app.postgres.store import Row, row, rows

UNREAD_CEILING = 1000
LISTED_REACTING_USERS = 50

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


def _reactions(message: str, reader: str) -> str:
    """Write the sub-select of a message's reactions as JSON: the first to react, and the reader among them."""
    first = f"(array_agg(user_id ORDER BY id))[1:{LISTED_REACTING_USERS}]"
    return f"""(
        SELECT coalesce(json_agg(json_build_object('emoji', emoji, 'userIds', user_ids, 'count', count)
                                 ORDER BY first_id), '[]')::text
        FROM (
            SELECT emoji, count(*) AS count, min(id) AS first_id,
                   CASE WHEN bool_or(user_id = {reader}) AND NOT {reader} = ANY({first})
                        THEN {first} || {reader}::varchar ELSE {first} END AS user_ids
            FROM reactions WHERE message_id = {message} GROUP BY emoji
        ) AS grouped
    )"""


# A stranger and an unknown conversation are told apart by one look.
MEMBERSHIP = """
SELECT EXISTS (SELECT 1 FROM conversations WHERE id = $1) AS known,
       EXISTS (SELECT 1 FROM participants WHERE conversation_id = $1 AND user_id = $2) AS member
"""

# The same of many conversations. OFFSET 0 has each looked up: the planner would hash all that the user is in.
MEMBERSHIPS = """
SELECT wanted.conversation_id,
       EXISTS (SELECT 1 FROM conversations WHERE id = wanted.conversation_id OFFSET 0) AS known,
       EXISTS (
           SELECT 1 FROM participants WHERE conversation_id = wanted.conversation_id AND user_id = $2 OFFSET 0
       ) AS member
FROM unnest($1::uuid[]) AS wanted (conversation_id)
"""

# The first thousand messages after the cursor settle it, unless some of them are the reader's own or deleted. Then
# there may be a hundred thousand more of those, so it is counted sender by sender, by an index that has no deleted
# ones: a look for each sender, and a thousand rows at most.
_UNREAD_COUNT = f"""(
    SELECT CASE WHEN seen < {UNREAD_CEILING} OR unread = {UNREAD_CEILING} THEN unread ELSE (
        SELECT count(*) FROM (
            WITH RECURSIVE senders AS (
                (
                    SELECT sender_id FROM messages
                    WHERE conversation_id = c.id AND deleted_at IS NULL
                    ORDER BY sender_id LIMIT 1
                )
                UNION ALL
                SELECT (
                    SELECT sender_id FROM messages
                    WHERE conversation_id = c.id AND deleted_at IS NULL AND sender_id > senders.sender_id
                    ORDER BY sender_id LIMIT 1
                )
                FROM senders WHERE sender_id IS NOT NULL
            )
            SELECT 1
            FROM senders CROSS JOIN LATERAL (
                SELECT 1 FROM messages
                WHERE conversation_id = c.id AND deleted_at IS NULL AND sender_id = senders.sender_id
                      AND seq > me.last_read_seq
                LIMIT {UNREAD_CEILING}
            ) AS theirs
            WHERE senders.sender_id <> me.user_id
            LIMIT {UNREAD_CEILING}
        ) AS unread
    ) END
    FROM (
        SELECT count(*) AS seen,
               count(*) FILTER (WHERE sender_id <> me.user_id AND deleted_at IS NULL) AS unread
        FROM (
            SELECT sender_id, deleted_at FROM messages
            WHERE conversation_id = c.id AND seq > me.last_read_seq
            ORDER BY seq LIMIT {UNREAD_CEILING}
        ) AS first
    ) AS looked
)"""

_CONVERSATION_COLUMNS = f"""
    c.id, c.type, c.title, c.metadata, c.created_by, c.owner_id, c.created_at, c.updated_at,
    me.last_seq, me.activity_at,
    (SELECT count(*) FROM participants WHERE conversation_id = c.id) AS participant_count,
    {_UNREAD_COUNT} AS unread_count,
    {", ".join(f"m.{column} AS last_message_{column}" for column in MESSAGE_COLUMNS)},
    {_reactions("m.id", "me.user_id")} AS last_message_reactions
"""

# What is shown of the conversations in `me`. OFFSET 0, here and below, has a table looked up row by row: the
# planner does not know how few they are, and would read all of it.
_SHOWN = f"""
SELECT {_CONVERSATION_COLUMNS}
FROM me
CROSS JOIN LATERAL (SELECT * FROM conversations WHERE id = me.conversation_id OFFSET 0) c
LEFT JOIN LATERAL (
    SELECT * FROM messages WHERE conversation_id = me.conversation_id AND seq = me.last_message_seq OFFSET 0
) m ON true"""

# A page of one's list: it reads the narrow rows of all one's conversations, and messages of this page's only.
LIST_CONVERSATIONS = f"""
WITH me AS MATERIALIZED (
    SELECT p.conversation_id, p.user_id, p.last_read_seq, h.last_seq, h.last_message_seq, h.activity_at
    FROM participants p
    CROSS JOIN LATERAL (
        SELECT * FROM conversation_heads WHERE conversation_id = p.conversation_id OFFSET 0
    ) h
    WHERE p.user_id = $1 AND (p.hidden_seq IS NULL OR h.last_message_seq > p.hidden_seq)
          AND ($2::timestamptz IS NULL OR (h.activity_at, p.conversation_id) < ($2, $3::uuid))
    ORDER BY h.activity_at DESC, p.conversation_id DESC
    LIMIT $4
)
{_SHOWN}
ORDER BY me.activity_at DESC, c.id DESC
"""

# One conversation as one of its participants sees it.
GET_CONVERSATION = f"""
WITH me AS MATERIALIZED (
    SELECT p.conversation_id, p.user_id, p.last_read_seq, h.last_seq, h.last_message_seq, h.activity_at
    FROM participants p JOIN conversation_heads h USING (conversation_id)
    WHERE p.conversation_id = $1 AND p.user_id = $2
)
{_SHOWN}
"""


def _all_conversations(source: str, condition: str) -> str:
    """Write the statement for a page of conversations by id, as nobody in particular sees them: all is read."""
    return f"""
WITH me AS MATERIALIZED (
    SELECT c.id AS conversation_id, ''::varchar AS user_id, h.last_seq AS last_read_seq, h.last_seq,
           h.last_message_seq, h.activity_at
    FROM {source}
    CROSS JOIN LATERAL (SELECT * FROM conversation_heads WHERE conversation_id = c.id OFFSET 0) h
    WHERE {condition}
    ORDER BY c.id
    LIMIT $2
)
{_SHOWN}
ORDER BY c.id
"""


# A condition that may be there or not is one that no index serves.
ALL_CONVERSATIONS = _all_conversations("conversations c", "c.id > $1")

CONVERSATIONS_OF_TYPE = {
    kind: _all_conversations("conversations c", f"c.type = '{kind}' AND c.id > $1") for kind in ("direct", "group")
}

CONVERSATIONS_OF_USER = _all_conversations(
    "participants p JOIN conversations c ON c.id = p.conversation_id",
    "p.user_id = $3 AND p.conversation_id > $1 AND ($4::text IS NULL OR c.type = $4)",
)

# The reader first, then in the order of joining, at most so many of each conversation.
PARTICIPANTS = """
SELECT p.*, u.display_name, u.avatar_url
FROM unnest($1::uuid[]) AS wanted (conversation_id)
CROSS JOIN LATERAL (
    (
        SELECT *, 0 AS place FROM participants WHERE conversation_id = wanted.conversation_id AND user_id = $2
    )
    UNION ALL
    (
        SELECT *, 1 AS place FROM participants
        WHERE conversation_id = wanted.conversation_id AND user_id <> $2
        ORDER BY joined_at, user_id
        LIMIT $3
    )
    ORDER BY place, joined_at, user_id
    LIMIT $3
) AS p
LEFT JOIN LATERAL (SELECT * FROM users WHERE id = p.user_id OFFSET 0) u ON u.deleted_at IS NULL
ORDER BY p.conversation_id, p.place, p.joined_at, p.user_id
"""

JOINED_SINCE = """
SELECT conversation_id FROM participants WHERE user_id = $1 AND joined_at >= $2 ORDER BY joined_at LIMIT 1000
"""

PARTICIPANT_COUNT = "SELECT count(*) AS count FROM participants WHERE conversation_id = $1"

NAMED_PARTICIPANTS = """
SELECT p.*, u.display_name, u.avatar_url
FROM unnest($2::text[]) AS named (user_id)
CROSS JOIN LATERAL (
    SELECT * FROM participants WHERE conversation_id = $1 AND user_id = named.user_id OFFSET 0
) p
LEFT JOIN LATERAL (SELECT * FROM users WHERE id = p.user_id OFFSET 0) u ON u.deleted_at IS NULL
"""

_MESSAGE = f"SELECT m.*, {_reactions('m.id', '$1')} AS reactions FROM messages m"

HISTORY_BACKWARD = f"{_MESSAGE} WHERE m.conversation_id = $2 AND m.seq < $3 ORDER BY m.seq DESC LIMIT $4"

HISTORY_FORWARD = f"{_MESSAGE} WHERE m.conversation_id = $2 AND m.seq > $3 ORDER BY m.seq LIMIT $4"

GET_MESSAGE = f"{_MESSAGE} WHERE m.id = $2"

# The other half of a repeated send: what the same sender sent first under that id.
MESSAGE_SENT_AS = f"{_MESSAGE} WHERE m.conversation_id = $2 AND m.sender_id = $1 AND m.client_message_id = $3"

SEQ_OF = "SELECT seq FROM messages WHERE id = $2 AND conversation_id = $1"

NEWEST = 2**63 - 1


async def membership(conversation_id: UUID, user_id: str) -> tuple[bool, bool]:
    """Tell whether the conversation exists, and whether the user is in it."""
    found = await row(MEMBERSHIP, conversation_id, user_id)
    return (found["known"], found["member"]) if found else (False, False)


async def memberships(conversation_ids: Sequence[UUID], user_id: str) -> dict[UUID, tuple[bool, bool]]:
    """Tell of each conversation whether it exists, and whether the user is in it."""
    found = await rows(MEMBERSHIPS, list(conversation_ids), user_id)
    return {one["conversation_id"]: (one["known"], one["member"]) for one in found}


async def list_conversations(user_id: str, before: tuple[datetime, UUID] | None, limit: int) -> list[Row]:
    at, conversation_id = before or (None, None)
    return await rows(LIST_CONVERSATIONS, user_id, at, conversation_id, limit)


async def all_conversations(after: UUID | None, kind: str | None, user_id: str | None, limit: int) -> list[Row]:
    """Read conversations after an id: all, or those of a type, or a user's, or the user's of a type."""
    start = after or UUID(int=0)
    if user_id is not None:
        return await rows(CONVERSATIONS_OF_USER, start, limit, user_id, kind)
    if kind is not None:
        return await rows(CONVERSATIONS_OF_TYPE[kind], start, limit)
    return await rows(ALL_CONVERSATIONS, start, limit)


async def get_conversation(conversation_id: UUID, user_id: str) -> Row | None:
    """Read a conversation as one of its participants sees it; None for anybody else."""
    return await row(GET_CONVERSATION, conversation_id, user_id)


async def participants(conversation_ids: list[UUID], reader: str, most: int) -> list[Row]:
    return await rows(PARTICIPANTS, conversation_ids, reader, most)


async def joined_since(user_id: str, since: datetime) -> list[UUID]:
    found = await rows(JOINED_SINCE, user_id, since)
    return [joined["conversation_id"] for joined in found]


async def participant_count(conversation_id: UUID) -> int:
    found = await row(PARTICIPANT_COUNT, conversation_id)
    return found["count"] if found else 0


async def named_participants(conversation_id: UUID, user_ids: Sequence[str]) -> list[Row]:
    return await rows(NAMED_PARTICIPANTS, conversation_id, list(user_ids))


async def history(
    reader: str, conversation_id: UUID, *, before: int | None, after: int | None, limit: int
) -> list[Row]:
    """Read messages next to a seq: newest first, or oldest first where `after` is given."""
    if after is not None:
        return await rows(HISTORY_FORWARD, reader, conversation_id, after, limit)
    return await rows(HISTORY_BACKWARD, reader, conversation_id, NEWEST if before is None else before, limit)


async def get_message(reader: str, message_id: UUID) -> Row | None:
    return await row(GET_MESSAGE, reader, message_id)


async def message_sent_as(conversation_id: UUID, sender_id: str, client_message_id: str) -> Row | None:
    return await row(MESSAGE_SENT_AS, sender_id, conversation_id, client_message_id)


async def seq_of(conversation_id: UUID, message_id: UUID) -> int | None:
    found = await row(SEQ_OF, conversation_id, message_id)
    return found["seq"] if found else None
