"""What takes long: done in the background in small pieces, by whichever pod gets to it, whatever restarts.

A chore is a row that stays until nothing of it is left to do. A pod holds it by a lease that it renews with each
piece; what a dead pod left half done another takes up, and doing a piece twice does no harm.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from uuid import UUID

from app.contract.errors import NotFound
from app.postgres.statements import statement
from app.postgres.transactions import POOL, transaction
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

ADD = statement("add_job")
CLAIM = statement("claim_job")
RENEW = statement("renew_job")
DONE = statement("finish_job")
PURGE_REACTIONS = statement("purge_reactions")
PURGE_MESSAGES = statement("purge_messages")
PURGE_EVENTS = statement("purge_events")
CONVERSATIONS = statement("conversations_ever_joined")
STRETCH = statement("messages_to_erase")
BURY = statement("erase_messages")
FORGET_NOTICES = statement("forget_notices")
FORGET_EVENTS = statement("forget_events")

_log = logging.getLogger(__name__)


async def add(kind: str, subject: str) -> None:
    """Leave something to be done."""
    await POOL.rows(ADD, kind, subject)


async def work_forever(deps: Deps) -> None:
    """Do chores as long as there are any, and look again from time to time."""
    while True:
        if not await work(deps):
            await asyncio.sleep(PAUSE)


async def work(deps: Deps) -> bool:
    """Do the next chore that no other pod is at; False where there is none."""
    chore = await POOL.row(CLAIM)
    if chore is None:
        return False
    async for _ in _pieces(deps, chore["kind"], chore["subject"]):
        await POOL.rows(RENEW, chore["id"])
    await POOL.rows(DONE, chore["id"])
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
        async with transaction() as tx:
            await tx.execute(PURGE_REACTIONS, conversation_id, PIECE)
            messages = await tx.rows(PURGE_MESSAGES, conversation_id, PIECE)
            logged = await tx.rows(PURGE_EVENTS, conversation_id, PIECE)
        left = bool(messages or logged)
        yield


async def _leave(deps: Deps, user_id: str) -> AsyncIterator[None]:
    """Take a user who was deleted out of all groups."""
    while await leave_groups(deps, user_id, LEFT_AT_ONCE):
        yield


async def _erase(deps: Deps, user_id: str) -> AsyncIterator[None]:
    """Delete each message of a user like any other."""
    for conversation in await POOL.rows(CONVERSATIONS, user_id):
        position = 0
        while True:
            stretch = await POOL.row(STRETCH, conversation["conversation_id"], user_id, position, PIECE)
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
        async with changing(deps, conversation_id, None) as (tx, conversation):
            for row in await tx.rows(BURY, message_ids):
                note_deletion(conversation, row, row["sender_id"])
    except NotFound:
        # The whole conversation was deleted meanwhile, and is purged.
        return


async def clean_forever(deps: Deps) -> None:
    """Forget from time to time what was kept long enough."""
    while True:
        while await POOL.rows(FORGET_NOTICES, PIECE):
            continue
        while await POOL.rows(FORGET_EVENTS, PIECE, deps.settings.events_retention_days):
            continue
        await asyncio.sleep(CLEANING_INTERVAL)
