"""What takes long: done in the background in small pieces, by whichever pod gets to it, whatever restarts.

A chore is a row that stays until nothing of it is left to do. A pod holds it by a lease that it renews with each
piece; what a dead pod left half done another takes up, and doing a piece twice does no harm.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from uuid import UUID

from app.contract.errors import NotFound
from app.postgres import store
from app.postgres.database import transaction
from app.usecases.changing import changing
from app.usecases.deps import Deps
from app.usecases.messages import note_deletion
from app.usecases.participants import leave_groups

PURGE = "purge"
ERASE = "erase"
LEAVE = "leave"
PIECE = 500
# No conversation is held for more rows than this by one transaction.
BURIED_AT_ONCE = 50
LEFT_AT_ONCE = 50
PAUSE = 1.0
CLEANING_INTERVAL = 60.0

# Under a new id, whoever is at it already does not end it: it is begun again.
ADD = """
INSERT INTO chores (kind, subject) VALUES ($1, $2)
ON CONFLICT (kind, subject) DO UPDATE SET id = EXCLUDED.id, leased_until = NULL
"""

CLAIM = """
UPDATE chores SET leased_until = now() + interval '30 seconds'
WHERE id = (
    SELECT id FROM chores WHERE leased_until IS NULL OR leased_until < now()
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING id, kind, subject
"""

RENEW = "UPDATE chores SET leased_until = now() + interval '30 seconds' WHERE id = $1"

DONE = "DELETE FROM chores WHERE id = $1"

# An array, so that the rows are looked up one by one: for a join the planner may read the whole table.
PURGE_REACTIONS = """
DELETE FROM reactions WHERE message_id = ANY (ARRAY(
    SELECT id FROM messages WHERE conversation_id = $1 ORDER BY seq LIMIT $2
))
"""

PURGE_MESSAGES = """
DELETE FROM messages WHERE id = ANY (ARRAY(
    SELECT id FROM messages WHERE conversation_id = $1 ORDER BY seq LIMIT $2
)) RETURNING id
"""

PURGE_EVENTS = """
DELETE FROM events WHERE id = ANY (ARRAY(
    SELECT id FROM events WHERE conversation_id = $1 ORDER BY seq LIMIT $2
)) RETURNING id
"""

# Where somebody's messages may be: where they are, and where they were.
CONVERSATIONS = """
SELECT conversation_id FROM participants WHERE user_id = $1
UNION
SELECT conversation_id FROM former_participants WHERE user_id = $1
ORDER BY conversation_id
"""

# What somebody has said in a conversation and not deleted, a piece at a time. What they wrote since, having come
# back, stays.
STRETCH = """
SELECT max(seq) AS last_seq, array_agg(id ORDER BY seq) AS ids
FROM (
    SELECT id, seq FROM messages
    WHERE conversation_id = $1 AND sender_id = $2 AND deleted_at IS NULL AND seq > $3
          AND created_at < (SELECT to_timestamp(refused_until + 1) FROM users WHERE id = $2)
    ORDER BY seq LIMIT $4
) AS stretch
"""

BURY = """
UPDATE messages SET content = '', attachments = '[]', deleted_at = date_trunc('milliseconds', clock_timestamp())
WHERE id = ANY($1::uuid[]) AND deleted_at IS NULL
RETURNING id, sender_id, deleted_at
"""

# Both are written under the head's lock or never read in order, so that what goes is a beginning.
FORGET_NOTICES = """
DELETE FROM notices WHERE id IN (
    SELECT id FROM notices WHERE created_at < now() - interval '1 hour' ORDER BY created_at LIMIT $1
) RETURNING id
"""

FORGET_EVENTS = """
DELETE FROM events WHERE id IN (
    SELECT id FROM events WHERE created_at < now() - make_interval(days => $2) ORDER BY created_at LIMIT $1
) RETURNING id
"""

_log = logging.getLogger(__name__)


async def add(kind: str, subject: str) -> None:
    """Leave something to be done."""
    await store.rows(ADD, kind, subject)


async def work_forever(deps: Deps) -> None:
    """Do chores as long as there are any, and look again from time to time."""
    while True:
        if not await work(deps):
            await asyncio.sleep(PAUSE)


async def work(deps: Deps) -> bool:
    """Do the next chore that no other pod is at; False where there is none."""
    chore = await store.row(CLAIM)
    if chore is None:
        return False
    async for _ in _pieces(deps, chore["kind"], chore["subject"]):
        await store.rows(RENEW, chore["id"])
    await store.rows(DONE, chore["id"])
    _log.info("done: %s of %s", chore["kind"], chore["subject"])
    return True


def _pieces(deps: Deps, kind: str, subject: str) -> AsyncIterator[None]:
    if kind == PURGE:
        return _purge(UUID(subject))
    return _erase(deps, subject) if kind == ERASE else _leave(deps, subject)


async def _purge(conversation_id: UUID) -> AsyncIterator[None]:
    """Delete what a conversation left behind that is gone for everybody already."""
    left = True
    while left:
        async with transaction():
            await store.rows(PURGE_REACTIONS, conversation_id, PIECE)
            messages = await store.rows(PURGE_MESSAGES, conversation_id, PIECE)
            logged = await store.rows(PURGE_EVENTS, conversation_id, PIECE)
        left = bool(messages or logged)
        yield


async def _leave(deps: Deps, user_id: str) -> AsyncIterator[None]:
    """Take a user who was deleted out of all groups."""
    while await leave_groups(deps, user_id, LEFT_AT_ONCE):
        yield


async def _erase(deps: Deps, user_id: str) -> AsyncIterator[None]:
    """Delete each message of a user like any other."""
    for conversation in await store.rows(CONVERSATIONS, user_id):
        position = 0
        while True:
            stretch = await store.row(STRETCH, conversation["conversation_id"], user_id, position, PIECE)
            if stretch is None or stretch["last_seq"] is None:
                break
            position = stretch["last_seq"]
            for start in range(0, len(stretch["ids"]), BURIED_AT_ONCE):
                part = stretch["ids"][start : start + BURIED_AT_ONCE]
                await _bury(deps, conversation["conversation_id"], part)
                yield
            yield


async def _bury(deps: Deps, conversation_id: UUID, message_ids: list[UUID]) -> None:
    try:
        async with changing(deps, conversation_id, None) as conversation:
            for row in await store.rows(BURY, message_ids):
                note_deletion(conversation, row, row["sender_id"])
    except NotFound:
        # The whole conversation was deleted meanwhile, and is purged.
        return


async def clean_forever(deps: Deps) -> None:
    """Forget from time to time what was kept long enough."""
    while True:
        while await store.rows(FORGET_NOTICES, PIECE):
            continue
        while await store.rows(FORGET_EVENTS, PIECE, deps.settings.events_retention_days):
            continue
        await asyncio.sleep(CLEANING_INTERVAL)
