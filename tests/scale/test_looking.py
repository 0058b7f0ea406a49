"""Looking for what was committed: everything once, whoever leaves a transaction open and for how long."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest
from databases import new_database
from explaining import explain, recorded
from filling import CROWD, CROWD_SEQS

from app.delivery import committed
from app.delivery.committed import Seen
from app.postgres.transactions import POOL

LOGGED = "INSERT INTO events (conversation_id, seq, event) VALUES ($1, $2, 'conversation:updated')"
NOTICED = "INSERT INTO notices (kind, user_id) SELECT 'joined', 'person-' || n FROM generate_series(1, 20000) AS n"
OLD = CROWD_SEQS + 1_000
LOOKS = {"committed": committed.committed_since, "notices": committed.notices_since}


@asynccontextmanager
async def running(url):
    """Leave a transaction open that has an id."""
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetchval("SELECT pg_current_xact_id()")
    try:
        yield connection, transaction
    finally:
        await connection.close()


@pytest.fixture(autouse=True)
def on_filled(filled, monkeypatch):
    """Run what a pod does on the filled database."""

    async def rows(statement, *values):
        return [dict(found) for found in await filled.fetch(statement, *values)]

    monkeypatch.setattr(POOL, "rows", rows)


async def look(seen, most=2000):
    found = await committed.committed_since(seen, most)
    return found.last_seqs.get(CROWD), found.seen, found.has_more


@pytest.fixture
async def own_url(filled, server_urls):
    return server_urls[0].rsplit("/", 1)[0] + "/" + await filled.fetchval("SELECT current_database()")


async def test_a_transaction_that_commits_late_is_found_by_the_look_after_it(filled, own_url):
    async with running(own_url) as (late, transaction):
        seen = await committed.seen_now()
        await filled.execute(LOGGED, CROWD, OLD + 1)
        xid = await late.fetchval("SELECT pg_current_xact_id()::text::bigint")
        assert xid >= seen.xmax or xid in seen.running
        found, seen, _ = await look(seen)
        assert found == OLD + 1
        assert xid in seen.running
        await late.execute(LOGGED, CROWD, OLD + 2)
        assert (await look(seen))[0] is None
        await transaction.commit()
        found, seen, _ = await look(seen)
        assert found == OLD + 2
        assert (await look(seen))[0] is None


@pytest.mark.parametrize("name", LOOKS)
async def test_a_foreign_transaction_that_stays_open_has_nothing_read_again(
    name, filled, server_urls, monkeypatch
):
    async with new_database(server_urls[0]) as foreign, running(foreign) as (other, _):
        xid = await other.fetchval("SELECT pg_current_xact_id()::text::bigint")
        for number in range(100):
            await filled.execute(LOGGED, CROWD, OLD + 100 + number)
        await filled.execute(NOTICED)
        await filled.execute("ANALYZE notices")
        seen = Seen.in_snapshot(await filled.fetchval(committed.SNAPSHOT))
        assert xid in seen.running
        statement, values = await recorded(lambda: LOOKS[name](seen, 2000), monkeypatch)
        for mode in ("force_custom_plan", "force_generic_plan"):
            found = await explain(filled, mode, statement, values)
            assert found.read == 0
            assert found.sequential == set()
            assert found.buffers < 50
        await filled.execute("DELETE FROM events WHERE seq > $1", OLD)


async def test_a_look_takes_in_so_much_and_the_next_one_goes_on_from_there(filled, own_url):
    async with running(own_url) as (late, transaction):
        seen = await committed.seen_now()
        await late.execute(LOGGED, CROWD, OLD + 500)
        for number in range(10):
            async with filled.transaction():
                for part in range(3):
                    await filled.execute(LOGGED, CROWD, OLD + 10 * number + part)
        heard = []
        has_more = True
        while has_more:
            found, seen, has_more = await look(seen, 4)
            heard += [] if found is None else [found]
            # Ends in the middle, so that it is among what ran when the looks before it were.
            if len(heard) == 2:
                await transaction.commit()
        # A transaction is never cut in two: of two each time there are six rows.
        assert heard[:2] == [OLD + 12, OLD + 32]
        assert OLD + 500 in heard
        assert max(one for one in heard if one < OLD + 500) == OLD + 92
        assert (await look(seen))[0] is None
        await filled.execute("DELETE FROM events WHERE seq >= $1", OLD)


async def test_of_many_that_write_at_once_nothing_is_missed_and_nothing_read_twice(filled, own_url):
    writers = await asyncio.gather(*(asyncpg.connect(own_url) for _ in range(4)))
    seen = await committed.seen_now()
    expected = {OLD + 1000 + number for number in range(200)}
    finished = asyncio.Event()

    async def write(place):
        for number in range(place, 200, 4):
            async with writers[place].transaction():
                await writers[place].execute(LOGGED, CROWD, OLD + 1000 + number)
                await asyncio.sleep(0.001 * (number % 7))

    async def watch(seen):
        heard = []
        is_last = False
        while True:
            rows = await POOL.rows(committed.COMMITTED_SINCE, *seen.values(), 5)
            written, seen, has_more = committed._read_page(rows, seen, 5)
            heard += [one["seq"] for one in written]
            if is_last and not has_more:
                return heard
            is_last = finished.is_set()

    watching = asyncio.create_task(watch(seen))
    await asyncio.gather(*map(write, range(4)))
    finished.set()
    heard = await watching
    assert sorted(heard) == sorted(expected)
    for writer in writers:
        await writer.close()
    await filled.execute("DELETE FROM events WHERE seq >= $1", OLD)
