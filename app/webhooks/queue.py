"""The queue of webhooks in PostgreSQL: claim, renew, settle and release, in few statements.

A claimed row has a lease: its `due_at` is the lease's end, and `lease` says which claim it was. First
attempts are claimed lane by lane, a lane being one conversation: its first new row stands for all of it. Rows of
one conversation commit in the order of `seq`, and while the first is leased nobody else takes those behind it.

No two statements may wait for each other: a claim waits for no row, and whatever else changes several rows locks
them by user and id first. The outbox, too, writes presence user by user in that order.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from app.postgres.statements import statement
from app.postgres.transactions import POOL, Row

LEASE = 30.0
ROWS_OF_A_LANE = 20
RETRIES_OF_A_LANE = 4
LOOKED_AT_ONCE = 5000

CLAIM_LANES = statement("claim_lanes")
CLAIM_DUE = statement("claim_due")
RENEW = statement("renew_leases")
RENEW_PRESENCE = statement("renew_presence_leases")
RELEASE = statement("release_webhooks")
FREE_PRESENCE = statement("release_presence_webhooks")
SETTLE = statement("settle_webhooks")
BACKLOG = statement("webhook_backlog")
EXPIRE = statement("expire_presence_webhooks")
FORGET = statement("forget_webhooks")
MESSAGES = statement("messages_of_webhooks")


@dataclass(frozen=True, slots=True)
class Settled:
    """How an attempt ended: the `state` from now on and, where that is `due`, in how many seconds."""

    row: Row
    state: str
    delay: float
    status: int | None
    error: str | None


async def claim_lanes(after: UUID, most: int, rows_of_a_lane: int = ROWS_OF_A_LANE) -> list[Row]:
    """Take lanes behind a conversation for their first attempts: the rows of each stand together, in order."""
    return await POOL.rows(CLAIM_LANES, after, most, uuid4(), rows_of_a_lane)


async def claim_due(
    busy: Collection[UUID], most: int, after: datetime | None = None
) -> tuple[list[Row], datetime | None]:
    """Take what has been due since a time, except of the conversations that are busy.

    Gives also up to when it looked, where there is more behind.
    """
    found = await POOL.rows(CLAIM_DUE, list(busy), most, uuid4(), after)
    return [row for row in found if row["id"] is not None], found[0]["looked_until"]


async def renew(leased: Collection[Row]) -> set[UUID]:
    """Renew the leases of what is claimed; gives what is still ours."""
    found = await POOL.rows(RENEW, *_ids(leased))
    await _presence(RENEW_PRESENCE, leased)
    return {row["id"] for row in found}


async def release(unsent: Collection[Row]) -> None:
    """Give back what was claimed and not sent: no attempt was used up."""
    await POOL.rows(RELEASE, *_ids(unsent))
    await _presence(FREE_PRESENCE, unsent)


async def settle(settled: Sequence[Settled]) -> None:
    """Write how attempts ended."""
    rows = [one.row for one in settled]
    await POOL.rows(
        SETTLE,
        *_ids(rows),
        [one.state for one in settled],
        [row["step"] + 1 for row in rows],
        [one.delay for one in settled],
        [one.status for one in settled],
        [one.error for one in settled],
    )
    await _presence(FREE_PRESENCE, rows)


async def messages(message_ids: Collection[UUID]) -> list[Row]:
    """Read the content of messages, in their order; `content` is None where one is gone with its conversation."""
    found = {row["id"]: row for row in await POOL.rows(MESSAGES, list(message_ids))}
    return [found[message_id] for message_id in message_ids]


async def backlog() -> tuple[int, float]:
    """Count the webhooks that wait, up to 100,000, and for how many seconds the oldest has been due."""
    found = await POOL.row(BACKLOG)
    assert found is not None
    return found["pending"], found["oldest"]


async def expire() -> int:
    """Give up on presence that is too old to be of use; gives how many."""
    return len(await POOL.rows(EXPIRE))


async def forget(before: UUID, most: int) -> int:
    """Delete what was delivered and is older than an id, so many at most; gives how many."""
    return len(await POOL.rows(FORGET, before, most))


def _ids(rows: Collection[Row]) -> tuple[list[UUID], list[UUID]]:
    return [row["id"] for row in rows], [row["lease"] for row in rows]


async def _presence(statement: str, rows: Collection[Row]) -> None:
    found = [(row["user_id"], row["lease"]) for row in rows if row["conversation_id"] is None]
    if found:
        await POOL.rows(statement, [user_id for user_id, _ in found], [lease for _, lease in found])
