"""Usage statistics: what there is, counted exactly while that is cheap, and estimated beyond."""

import asyncio
import time
from uuid import UUID

import msgspec

from app.contract import ids
from app.postgres.statements import statement
from app.postgres.transactions import POOL
from app.usecases.deps import Deps

STATS_AGE = 30.0
# No count reads more rows than this: past it the planner's estimate, or a sample, stands for the count.
EXACT_BELOW = 250_000
DAY = 86_400
# A day of many messages is counted by the first messages of each quarter of an hour.
SLICES = 96
SLICE_ROWS = EXACT_BELOW // SLICES

STATS = statement("bounded_counts")
ESTIMATES = statement("estimated_counts")
LAST_DAY = statement("messages_of_last_day")
SAMPLE = statement("sampled_messages")


class MessageCount(msgspec.Struct, rename="camel"):
    total: int
    last24h: int
    total_is_estimate: bool


class WebhookCount(msgspec.Struct):
    pending: int
    dead: int


class StatsView(msgspec.Struct, rename="camel"):
    """What is there, over all pods; counts beyond 250,000 are estimates, and of webhooks mean that or more."""

    users: int
    conversations: int
    messages: MessageCount
    sockets: int
    users_online: int
    webhooks: WebhookCount


class Stats:
    """What `GET /api/admin/stats` answers, read at most every 30 s."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._found: StatsView | None = None
        self._read_at = 0.0

    async def get(self, deps: Deps) -> StatsView:
        async with self._lock:
            if self._found is None or time.monotonic() - self._read_at > STATS_AGE:
                self._found = await _read(deps)
                self._read_at = time.monotonic()
            return self._found


async def _read(deps: Deps) -> StatsView:
    estimates: dict[str, int] = {}
    async with deps.database.heavy_reads:
        counted = await POOL.row(STATS, EXACT_BELOW)
        assert counted is not None
        if max(counted["users"], counted["conversations"], counted["messages"]) >= EXACT_BELOW:
            estimates = {one["name"]: one["count"] for one in await POOL.rows(ESTIMATES)}
        last_day = await _last_day(time.time())
    found = {
        name: _total(counted[name], estimates.get(name, 0)) for name in ("users", "conversations", "messages")
    }
    sockets, users_online = await deps.presence.counts()
    return StatsView(
        users=found["users"],
        conversations=found["conversations"],
        messages=MessageCount(found["messages"], last_day, counted["messages"] >= EXACT_BELOW),
        sockets=sockets,
        users_online=users_online,
        webhooks=WebhookCount(counted["pending"], counted["dead"]),
    )


def _total(counted: int, estimate: int) -> int:
    """Give a count, or the planner's estimate where the count has reached its bound."""
    return counted if counted < EXACT_BELOW else max(counted, estimate)


async def _last_day(now: float) -> int:
    counted = await POOL.row(LAST_DAY, ids.first_of(now - DAY), EXACT_BELOW)
    if counted is not None and counted["count"] < EXACT_BELOW:
        return int(counted["count"])
    starts = [now - DAY + DAY / SLICES * place for place in range(SLICES + 1)]
    bounds = [ids.first_of(start) for start in starts]
    taken = await POOL.rows(SAMPLE, bounds[:-1], bounds[1:], SLICE_ROWS)
    return sum(
        estimate_slice(one["count"], one["last"], start, stop)
        for one, start, stop in zip(taken, starts, starts[1:], strict=True)
    )


def estimate_slice(count: int, last: UUID | None, start: float, stop: float) -> int:
    """Estimate how many messages a slice of time has, in seconds since 1970, by the first `count` of them.

    Where the sample did not fill up there are no more; else they go on as they came up to the `last`.
    """
    if last is None or count < SLICE_ROWS:
        return count
    seconds = max(ids.second_of(last) - start, 0.001)
    return max(count, round(count * (stop - start) / seconds))
