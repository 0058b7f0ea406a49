"""Statements that change several rows of the outbox lock them in one order, and claims wait for none."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from clients import somebody
from pods import until

from app.config.types import Url
from app.contract import ids
from app.postgres.database import opened
from app.postgres.transactions import POOL
from app.webhooks import outbox, queue
from app.webhooks.queue import Settled

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
async def blocker(servers):
    async with opened(Url(servers.database_url)):
        connection = await asyncpg.connect(servers.database_url)
        yield connection
        await connection.close()


async def append(user_ids, number):
    at = datetime.now(UTC)
    count = len(user_ids)
    new = [ids.new_id() for _ in user_ids]
    await POOL.rows(
        outbox.APPEND_PRESENCE,
        new,
        ["user.online"] * count,
        [number] * count,
        user_ids,
        [at] * count,
        [None] * count,
    )


async def claimed(user_ids):
    """Write a change of presence for each, and have each held by a lease; gives them in the order of the users."""
    # One after the other, so that a table that is read as it lies gives them backwards too.
    for user_id in reversed(user_ids):
        await append([user_id], 1)
    found = await POOL.rows(
        "UPDATE webhooks SET lease = $2 WHERE user_id = ANY($1::text[]) RETURNING *", user_ids, uuid4()
    )
    return sorted(found, key=lambda row: row["user_id"])


async def waiting(sql, count, what):
    async def is_so():
        return await sql.fetchval(WAITING) >= count

    await until(is_so, what)


@pytest.mark.parametrize("what", ["settle", "renew", "release"])
async def test_the_worker_and_the_outbox_never_lock_the_same_users_in_different_order(blocker, sql, what):
    people = sorted(somebody() for _ in range(3))
    rows = await claimed(people)
    # As they were claimed, which is any order.
    backwards = rows[::-1]
    change = {
        "settle": lambda: queue.settle([Settled(row, "delivered", 0.0, 200, None) for row in backwards]),
        "renew": lambda: queue.renew(backwards),
        "release": lambda: queue.release(backwards),
    }[what]
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("SELECT 1 FROM webhooks WHERE user_id = $1 FOR UPDATE", people[1])
    async with asyncio.TaskGroup() as group:
        group.create_task(change())
        await waiting(sql, 1, "the worker waits")
        group.create_task(append(people, 2))
        await waiting(sql, 2, "the outbox waits")
        # Neither may end in a deadlock.
        await transaction.rollback()


async def test_a_claim_waits_for_no_row_and_takes_nothing_from_behind_one_that_is_locked(blocker, sql):
    conversation_id = ids.new_id()
    made = [ids.new_id() for _ in range(4)]
    at = datetime.now(UTC) - timedelta(seconds=1)
    await sql.executemany(
        "INSERT INTO webhooks (id, event, conversation_id, seq, user_id, created_at, due_at)"
        " VALUES ($1, 'message.created', $2, $3, 'anna', $4, $4)",
        [(one, conversation_id, seq, at) for seq, one in enumerate(made, 1)],
    )
    async with blocker.transaction():
        await blocker.execute("SELECT 1 FROM webhooks WHERE id = $1 FOR UPDATE", made[2])
        found = await queue.claim_lanes(UUID(int=conversation_id.int - 1), 1)
    assert [row["seq"] for row in found] == [1, 2]
    await POOL.rows("DELETE FROM webhooks WHERE conversation_id = $1", conversation_id)


@pytest.mark.usefixtures("blocker")
@pytest.mark.parametrize("work", ["settle", "renew", "release"])
async def test_who_lost_the_lease_changes_nothing_of_what_another_holds(work):
    (stale,) = await claimed([somebody()])
    # The first stalls past its lease; another claims the same row and posts it.
    await POOL.rows("UPDATE webhooks SET lease = $2 WHERE id = $1", stale["id"], uuid4())
    held = await POOL.row("SELECT * FROM webhooks WHERE id = $1", stale["id"])
    if work == "settle":
        await queue.settle([Settled(stale, "due", 60.0, 503, "too late")])
    elif work == "renew":
        assert await queue.renew([stale]) == set()
    else:
        await queue.release([stale])
    assert await POOL.row("SELECT * FROM webhooks WHERE id = $1", stale["id"]) == held
