"""Background jobs: what takes long is done in small pieces, by whichever pod gets to it, whatever restarts.

A job is a row of the table `chores` that stays until nothing of it is left to do. A pod has it by a lease that it
renews with each piece; what a dead pod left half done another takes up, and doing a piece twice does no harm.
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
# No conversation is locked for more rows than this by one transaction.
ERASED_AT_ONCE = 50
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
MESSAGES_TO_ERASE = statement("messages_to_erase")
ERASE_MESSAGES = statement("erase_messages")
FORGET_NOTICES = statement("forget_notices")
FORGET_EVENTS = statement("forget_events")

_log = logging.getLogger(__name__)


async def add(kind: str, subject: str) -> None:
    """Add a job, or begin it again where it is there."""
    await POOL.execute(ADD, kind, subject)


async def work_forever(deps: Deps) -> None:
    """Do jobs as long as there are any, and look again from time to time."""
    while True:
        if not await work(deps):
            await asyncio.sleep(PAUSE)


async def work(deps: Deps) -> bool:
    """Do the next job that no other pod is at; False where there is none."""
    job = await POOL.row(CLAIM)
    if job is None:
        return False
    async for _ in _pieces(deps, job["kind"], job["subject"]):
        await POOL.execute(RENEW, job["id"])
    await POOL.execute(DONE, job["id"])
    _log.info("background job done: %s of %s", job["kind"], job["subject"])
    return True


def _pieces(deps: Deps, kind: str, subject: str) -> AsyncIterator[None]:
    if kind == PURGE:
        return _purge(UUID(subject))
    return _erase(deps, subject) if kind == ERASE else _leave(deps, subject)


async def _purge(conversation_id: UUID) -> AsyncIterator[None]:
    """Delete the messages, reactions and events of a conversation that is gone for everybody already."""
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
            page = await POOL.row(MESSAGES_TO_ERASE, conversation["conversation_id"], user_id, position, PIECE)
            if page is None or page["last_seq"] is None:
                break
            position = page["last_seq"]
            for start in range(0, len(page["ids"]), ERASED_AT_ONCE):
                part = page["ids"][start : start + ERASED_AT_ONCE]
                await _erase_messages(deps, conversation["conversation_id"], part)
                yield
            yield


async def _erase_messages(deps: Deps, conversation_id: UUID, message_ids: list[UUID]) -> None:
    try:
        async with changing(deps, conversation_id, None) as (tx, conversation):
            for row in await tx.rows(ERASE_MESSAGES, message_ids):
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
