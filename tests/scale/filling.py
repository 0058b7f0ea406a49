"""A database as a busy service has it after a while, made in a few statements."""

from collections.abc import Iterator
from uuid import UUID

import asyncpg


def numbered(kind: int, number: int) -> UUID:
    """Give the id of the n-th row of a kind, as `made_id` in SQL does."""
    return UUID(f"{kind:08x}-0000-7000-8000-{number:012x}")


# Kinds of ids. Messages have another form: as in the service, their ids carry the time at which they were made.
_CONVERSATION = 1

# A group of 500 with 200,000 messages and, at every fifth seq, one of 50,000 other entries.
CROWD = numbered(_CONVERSATION, 1)
CROWD_SEQS = 250_000
CROWD_SIZE = 500
# A program writes here and never reads: 60,000 messages of its own, and 10 answers spread among them.
MONOLOGUE = numbered(_CONVERSATION, 2)
MONOLOGUE_SEQS = 60_000
# All but 10 of 40,000 messages were deleted.
GRAVEYARD = numbered(_CONVERSATION, 3)
GRAVEYARD_SEQS = 40_000
# Somebody is in 5,000 direct conversations, each of 10 messages; others are in 35,000 more, of one message each.
FIRST_DIRECT = 1000
BUSY_CONVERSATIONS = 5_000
ALL_CONVERSATIONS = 40_000
DIRECT_SEQS = 10
BUSY = "busy"
PROGRAM = "program"
READER = "reader"
ERASED = "person-499"

# One of them is hidden from the one who is in all.
HIDDEN = numbered(_CONVERSATION, FIRST_DIRECT + 77)

# The reactions of a message that many reacted to: 30 emoji of 30 people.
LOVED_SEQ = 1002
EMOJI = [chr(0x1F600 + number) for number in range(30)]

_HELPERS = """
CREATE FUNCTION pg_temp.made_id(kind bigint, number bigint) RETURNS uuid IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN (lpad(to_hex(kind), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid;

-- The n-th message of a conversation, out of so many that were written evenly over the last 30 days.
CREATE FUNCTION pg_temp.written_at(number bigint, total bigint) RETURNS timestamptz STABLE LANGUAGE sql
RETURN now() - interval '30 days' * (1 - number::float8 / total);

CREATE FUNCTION pg_temp.message_id(conversation bigint, number bigint, total bigint)
RETURNS uuid STABLE LANGUAGE sql
RETURN (lpad(to_hex((extract(epoch FROM pg_temp.written_at(number, total)) * 1000)::bigint), 12, '0')
        || '7' || lpad(to_hex(number & 4095), 3, '0') || '8' || lpad(to_hex(number), 7, '0')
        || lpad(to_hex(conversation), 8, '0'))::uuid;
"""

_CONVERSATIONS = f"""
INSERT INTO conversations (id, type, title, metadata, created_by, owner_id, direct_low, direct_high, created_at,
                           updated_at)
SELECT pg_temp.made_id(1, n), CASE WHEN n = 1 THEN 'group' ELSE 'direct' END, NULL, '{{}}',
       'person-' || n, CASE WHEN n = 1 THEN 'person-1' END, CASE WHEN n > 1 THEN 'low-' || n END,
       CASE WHEN n > 1 THEN 'high-' || n END, now() - interval '31 days', now() - interval '31 days'
FROM (SELECT generate_series(1, 3) UNION ALL
      SELECT generate_series({FIRST_DIRECT}, {FIRST_DIRECT + ALL_CONVERSATIONS - 1})) AS made (n)
"""

# Whoever is in a direct conversation has read none of it, save in every second one of the busy one.
_PARTICIPANTS = f"""
INSERT INTO participants (conversation_id, user_id, role, joined_at, last_read_seq)
SELECT pg_temp.made_id(1, 1), 'person-' || n, CASE WHEN n = 1 THEN 'owner' ELSE 'member' END,
       now() - interval '31 days', n * 400
FROM generate_series(1, {CROWD_SIZE}) AS made (n)
UNION ALL
SELECT pg_temp.made_id(1, n), user_id, 'member', now() - interval '31 days', 0
FROM (VALUES (2, '{PROGRAM}'), (2, '{READER}'), (3, '{PROGRAM}'), (3, '{READER}')) AS made (n, user_id)
UNION ALL
SELECT pg_temp.made_id(1, n), 'other-' || n, 'member', now() - interval '31 days', 0
FROM generate_series({FIRST_DIRECT}, {FIRST_DIRECT + ALL_CONVERSATIONS - 1}) AS made (n)
UNION ALL
SELECT pg_temp.made_id(1, n), CASE WHEN n < {FIRST_DIRECT + BUSY_CONVERSATIONS} THEN '{BUSY}' ELSE 'one-' || n END,
       'member', now() - interval '31 days', n % 2 * {DIRECT_SEQS}
FROM generate_series({FIRST_DIRECT}, {FIRST_DIRECT + ALL_CONVERSATIONS - 1}) AS made (n)
"""

# Transactions are as old as what they wrote.
_MESSAGES = """
INSERT INTO messages (id, conversation_id, seq, sender_id, content, attachments, client_message_id, fingerprint,
                      created_at, updated_at, deleted_at, xid)
SELECT pg_temp.message_id({number}, seq, {total}), pg_temp.made_id(1, {number}), seq, {sender},
       CASE WHEN {deleted} THEN '' ELSE repeat('what was said ', 6) END, '[]', 'client-' || seq, '\\x01',
       pg_temp.written_at(seq, {total}), pg_temp.written_at(seq, {total}), CASE WHEN {deleted} THEN now() END,
       (3 + seq * 700 / {total})::text::xid8
FROM {source}
"""

_EVENTS = f"""
INSERT INTO events (conversation_id, seq, event, message_id, data, created_at, xid)
SELECT pg_temp.made_id(1, 1), seq,
       CASE WHEN seq % 50 = 0 THEN 'participant:added'
            ELSE (ARRAY['message:updated', 'reaction:added', 'message:deleted'])[1 + seq / 5 % 3] END,
       CASE WHEN seq % 50 <> 0 THEN pg_temp.message_id(1, seq - 1, {CROWD_SEQS}) END,
       CASE WHEN seq % 50 = 0 THEN jsonb_build_object('userId', 'person-' || seq % 500)
            WHEN seq / 5 % 3 = 1 THEN '{{"emoji": "x", "userId": "person-1"}}' END,
       pg_temp.written_at(seq, {CROWD_SEQS}), (3 + seq * 700 / {CROWD_SEQS})::text::xid8
FROM generate_series(5, {CROWD_SEQS}, 5) AS made (seq)
"""

# Three people on every tenth message, and all that there may be on one.
_REACTIONS = f"""
INSERT INTO reactions (message_id, emoji, user_id)
SELECT pg_temp.message_id(1, seq, {CROWD_SEQS}), 'x', 'person-' || n
FROM generate_series(11, {CROWD_SEQS}, 10) AS made (seq), generate_series(1, 3) AS person (n)
UNION ALL
SELECT pg_temp.message_id(1, {LOVED_SEQ}, {CROWD_SEQS}), chr(x'1F600'::int + e), 'person-' || n
FROM generate_series(0, 29) AS emoji (e), generate_series(1, 30) AS person (n)
"""

_USERS = f"""
INSERT INTO users (id, display_name, metadata, created_at, updated_at)
SELECT 'person-' || n, 'Person ' || n, '{{}}'::jsonb, now(), now()
FROM generate_series(1, {CROWD_SIZE}) AS made (n)
UNION ALL
SELECT 'other-' || n, 'Other ' || n, '{{}}'::jsonb, now(), now()
FROM generate_series({FIRST_DIRECT}, {FIRST_DIRECT + ALL_CONVERSATIONS - 1}) AS made (n)
"""

_HEADS = """
INSERT INTO conversation_heads (conversation_id, last_seq, last_message_seq, activity_at)
SELECT c.id, greatest(m.seq, e.seq), m.seq, m.created_at
FROM conversations c
CROSS JOIN LATERAL (
    SELECT seq, created_at FROM messages WHERE conversation_id = c.id ORDER BY seq DESC LIMIT 1
) m
CROSS JOIN LATERAL (SELECT coalesce(max(seq), 0) AS seq FROM events WHERE conversation_id = c.id) e
"""


# What is left to do for somebody who was deleted is all that they said.
_MARKS = f"""
WITH head AS (UPDATE conversation_heads SET is_hidden = true WHERE conversation_id = '{HIDDEN}'),
     deleted AS (UPDATE users SET refused_until = extract(epoch FROM now())::bigint WHERE id = '{ERASED}')
UPDATE participants SET hidden_seq = {DIRECT_SEQS} WHERE conversation_id = '{HIDDEN}' AND user_id = '{BUSY}'
"""


async def fill(connection: asyncpg.Connection) -> None:
    """Fill a database in which there is nothing yet but the tables."""
    await connection.execute("SET synchronous_commit = off; SET work_mem = '64MB'")
    # In one transaction it is now all the time: a message gets the same id wherever it is named.
    async with connection.transaction():
        await connection.execute(_HELPERS)
        for statement in (
            _CONVERSATIONS,
            _PARTICIPANTS,
            *_messages(),
            _EVENTS,
            _REACTIONS,
            _USERS,
            _HEADS,
            _MARKS,
        ):
            await connection.execute(statement)
    # What autovacuum does in the background of a real service.
    await connection.execute("VACUUM (ANALYZE)")


def _messages() -> Iterator[str]:
    directs = f"generate_series({FIRST_DIRECT}, {FIRST_DIRECT + ALL_CONVERSATIONS - 1}) AS direct (n)"
    length = f"CASE WHEN n < {FIRST_DIRECT + BUSY_CONVERSATIONS} THEN {DIRECT_SEQS} ELSE 1 END"
    some = f"CASE WHEN seq % 6000 = 0 THEN '{READER}' ELSE '{PROGRAM}' END"
    numbers = "generate_series(1, {}) AS made (seq)"
    crowd = f"{numbers.format(CROWD_SEQS)} WHERE seq % 5 <> 0"
    for number, total, sender, deleted, source in (
        (1, CROWD_SEQS, "'person-' || (1 + seq % 499)", "seq % 100 = 3", crowd),
        (2, MONOLOGUE_SEQS, some, "false", numbers.format(MONOLOGUE_SEQS)),
        (3, GRAVEYARD_SEQS, f"'{PROGRAM}'", "seq % 4000 <> 0", numbers.format(GRAVEYARD_SEQS)),
        ("n", DIRECT_SEQS, "'other-' || n", "false", f"{directs}, {numbers.format(length)}"),
    ):
        yield _MESSAGES.format(number=number, total=total, sender=sender, deleted=deleted, source=source)
