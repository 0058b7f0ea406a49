"""Transactions that are cancelled, at each place where they wait: nothing is left open or lost later."""

import asyncio
import gc
import socket
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from cancelling import was_cancelled_at
from pods import until

from app.config.types import Url
from app.postgres import database
from app.postgres import pool as postgres
from app.postgres.transactions import POOL, Executor, transaction

NONE_IS_OPEN = """
SELECT count(*) = 0 FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'chat-service' AND state LIKE 'idle in transaction%'
"""
pytestmark = pytest.mark.usefixtures("opened")

# More than any of these transactions waits.
MOST_WAITS = 60


@pytest.fixture
async def opened(servers, sql):
    """Give the pool of this process, and a table to write to."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
    await sql.execute("CREATE TABLE IF NOT EXISTS written (what text)")
    async with database.opened(Url(servers.database_url)):
        yield
    await sql.execute("DROP TABLE written")
    asyncio.get_running_loop().set_exception_handler(None)
    # What asyncpg says of a connection that it is given back with a transaction open.
    assert not [what for what in told if "active transaction" in what["message"]]


async def write(executor: Executor, what: str) -> None:
    await executor.execute("INSERT INTO written VALUES ($1)", what)


async def is_written(sql: asyncpg.Connection, what: str) -> bool:
    return bool(await sql.fetchval("SELECT true FROM written WHERE what = $1", what))


async def one(what: str) -> None:
    async with transaction() as tx:
        await write(tx, what)
        await tx.rows("SELECT pg_sleep(0.001)")


async def one_that_fails(what: str) -> None:
    with suppress(ZeroDivisionError):
        async with transaction() as tx:
            await write(tx, what)
            raise ZeroDivisionError


async def one_statement(what: str) -> None:
    await write(POOL, what)


async def whole(sql: asyncpg.Connection) -> None:
    """Look that nothing is open, in this task or in PostgreSQL, and that every connection is back."""
    client = database.connection()
    assert isinstance(client, postgres.Client)
    pool = client._pool
    # A release goes on by itself where its task was cancelled.
    async with asyncio.timeout(5):
        for holder in pool._holders if pool else ():
            await holder.wait_until_released()
    # PostgreSQL takes a moment to see that a connection was ended.
    await until(lambda: sql.fetchval(NONE_IS_OPEN), "that no transaction is open")


@pytest.mark.parametrize("work", [one, one_that_fails, one_statement])
async def test_wherever_a_transaction_is_cancelled_the_next_one_of_its_task_is_committed(sql, work):
    await one("warm")
    places = 0
    for place in range(MOST_WAITS):
        name = f"{work.__name__} {place}"
        was_cancelled, _ = await was_cancelled_at(place, work(name))
        if not was_cancelled:
            break
        places += 1
        await whole(sql)
        # The same task goes on, as that of a kept HTTP connection does.
        await one(f"after {name}")
        assert await is_written(sql, f"after {name}")
    assert MOST_WAITS > places > 3 - 2 * (work is one_statement)


async def test_a_transaction_that_is_cancelled_while_its_connection_is_made_takes_nothing(sql):
    for place in range(8):
        await was_cancelled_at(place, one("first of all"))
        await whole(sql)
        postgres.terminate_pooled()
    await one("at last")
    assert await is_written(sql, "at last")


async def test_what_failed_inside_and_was_passed_over_is_not_taken_for_committed(sql):
    async def careless() -> None:
        async with transaction() as tx:
            await write(tx, "careless")
            with suppress(Exception):
                await tx.rows("SELECT 1 / 0")

    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await careless()
    assert not await is_written(sql, "careless")
    await whole(sql)


@pytest.mark.parametrize("reason", [ZeroDivisionError, asyncio.CancelledError])
async def test_why_a_transaction_failed_is_told_though_its_connection_was_ended(sql, reason):
    async def ended() -> None:
        async with transaction() as tx:
            await write(tx, "lost")
            postgres.terminate_pooled()
            raise reason

    with pytest.raises(reason):
        await ended()
    assert not await is_written(sql, "lost")
    await whole(sql)


async def test_a_transaction_inside_another_is_refused(sql):
    async with transaction() as tx:
        with pytest.raises(RuntimeError):
            await one("inside")
        await write(tx, "outside")
    assert await is_written(sql, "outside")


async def test_a_statement_inside_a_transaction_that_is_not_given_its_tx_is_refused(sql):
    async with transaction() as tx:
        with pytest.raises(RuntimeError):
            await write(POOL, "beside")
        await write(tx, "inside")
    assert await is_written(sql, "inside")
    assert not await is_written(sql, "beside")
    await write(POOL, "after")
    assert await is_written(sql, "after")
    await whole(sql)


async def test_a_task_that_was_begun_inside_a_transaction_is_no_part_of_it(sql):
    async with transaction() as tx:
        await write(tx, "mine")
        await asyncio.create_task(write(POOL, "another's"))
        assert await is_written(sql, "another's")
        assert not await is_written(sql, "mine")
    assert await is_written(sql, "mine")


async def test_a_transaction_that_has_ended_runs_nothing(sql):
    async with transaction() as tx:
        await write(tx, "in time")
    with pytest.raises(asyncpg.InterfaceError):
        await write(tx, "too late")
    assert await is_written(sql, "in time")
    assert not await is_written(sql, "too late")


async def test_the_kernel_tells_of_a_host_that_is_gone():
    await one("warm")
    # asyncpg has no public way to a connection's socket.
    (connected, *_) = [connection for connection in postgres._pooled if not connection.is_closed()]
    own = connected._transport.get_extra_info("socket")
    assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000


async def test_connections_that_are_ended_wake_whoever_waits_for_them(sql):
    asleep = "SELECT count(*) = 10 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"
    async with asyncio.timeout(10):
        # As many as there are connections, and one that waits for its turn.
        tasks = [asyncio.create_task(POOL.rows("SELECT pg_sleep(60)")) for _ in range(10)]
        last = asyncio.create_task(one("at its turn"))
        await until(lambda: sql.fetchval(asleep), "ten that wait")
        postgres.terminate_pooled()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await last
    assert all(database.is_away(error) for error in ended), ended
    assert await is_written(sql, "at its turn")
    await whole(sql)


async def test_a_release_that_fails_after_its_caller_was_cancelled_is_an_error_of_nobody(monkeypatch):
    told: list[str] = []
    loop = asyncio.get_running_loop()
    # What the tests before have left is not this one's.
    gc.collect()
    await asyncio.sleep(0)
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, what: told.append(what["message"]))
    is_cancelled, is_over = asyncio.Event(), asyncio.Event()
    release = asyncpg.pool.PoolConnectionHolder.release

    async def fails_late(holder, timeout):  # noqa: ASYNC109 - asyncpg's
        is_releasing.set()
        await is_cancelled.wait()
        await release(holder, timeout)
        is_over.set()
        raise TimeoutError

    is_releasing = asyncio.Event()
    monkeypatch.setattr(asyncpg.pool.PoolConnectionHolder, "release", fails_late)
    # What fails gives its connection back with care.
    call = asyncio.create_task(POOL.rows("SELECT 1 / 0"))
    await is_releasing.wait()
    call.cancel()
    await asyncio.wait([call])
    is_cancelled.set()
    await is_over.wait()
    del call
    await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(before)
    assert told == []
