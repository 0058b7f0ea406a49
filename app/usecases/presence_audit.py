"""Presence audit after Redis lost its state: the last webhook of each user is compared with who is online.

Pods assert their users again, which is no change. A change that was decided before the loss and not announced, or
announced by a pod that has died since, is known to PostgreSQL alone: the outbox has the last webhook of each user.
"""

import asyncio
import logging

from app.contract import events
from app.postgres.statements import statement
from app.postgres.transactions import POOL
from app.presence.presence import LEASE_MS
from app.redis.connection import AWAY
from app.usecases.deps import Deps

# By then every pod that lives has asserted its users, and those who left meanwhile are offline.
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
    """Make new changes for users whom the master has wrong; any pod may do it, several do no harm."""
    after, is_more = "", True
    while is_more:
        async with deps.database.heavy_reads:
            found = await POOL.rows(LAST_TOLD, after, PAGE)
        last = [(row["user_id"], row["event"] == events.USER_CAME, row["seq"]) for row in found]
        await deps.presence.correct(last)
        is_more = len(found) == PAGE
        after = found[-1]["user_id"] if found else after
