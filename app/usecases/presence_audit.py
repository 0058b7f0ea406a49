"""Presence after Redis lost its state: what the master was told last is compared with who is online.

Pods restore whom they have, which is no change. A change that was decided before the loss and told to nobody, or
told by a pod that has died since, is known to PostgreSQL alone: the outbox has what the master was told.
"""

import asyncio
import logging

from app.contract import events
from app.postgres.statements import statement
from app.postgres.transactions import POOL
from app.presence.presence import LEASE_MS
from app.redis.connection import AWAY
from app.usecases.deps import Deps

# Once every pod that lives has told whom it has, and those who left meanwhile are offline.
AUDIT_AFTER = LEASE_MS / 1000 + 2.0
# Users that are compared at a time.
PAGE = 500

LAST_TOLD = statement("last_presence_webhooks")

_log = logging.getLogger(__name__)


async def audit_forever(deps: Deps) -> None:
    """Compare after each loss; raises what PostgreSQL raises where it is away."""
    while True:
        await deps.presence.lost.wait()
        await asyncio.sleep(AUDIT_AFTER)
        # Cleared only now: while one loss follows the other there is nothing to compare.
        deps.presence.lost.clear()
        try:
            await audit(deps)
        except BaseException as error:
            deps.presence.lost.set()
            if not isinstance(error, AWAY):
                raise
            _log.debug("presence pauses, Redis is away: %s", error)


async def audit(deps: Deps) -> None:
    """Have told anew of whom the master has another picture; any pod may do it, several do no harm."""
    after, is_more = "", True
    while is_more:
        async with deps.database.heavy_reads:
            found = await POOL.rows(LAST_TOLD, after, PAGE)
        told = [(row["user_id"], row["event"] == events.USER_CAME, row["seq"]) for row in found]
        await deps.presence.correct(told)
        is_more = len(found) == PAGE
        after = found[-1]["user_id"] if found else after
