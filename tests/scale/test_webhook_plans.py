"""The statements of the outbox where much waits and much was delivered: none reads what it need not."""

from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from databases import new_database
from explaining import explain, recorded
from filling import numbered

from app.postgres.transactions import POOL
from app.usecases import presence_audit, webhooks
from app.webhooks import outbox, queue
from app.webhooks.queue import LOOKED_AT_ONCE, ROWS_OF_A_LANE, Settled

BACKLOG = 200_000
LANES = 2_000
WAITING = 100_000
DUE = 500
DELIVERED = 1_000_000
PRESENCE = 2_000
HUNG = 100_000
OTHERS = 20
MODES = ("force_custom_plan", "force_generic_plan")
LOUD = numbered(1, 1)
QUIET = numbered(1, 500)

_ROWS = """
INSERT INTO webhooks (id, event, conversation_id, seq, user_id, state, due_at, created_at, expires_at)
SELECT (lpad(to_hex({kind}), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid,
       {event}, {conversation}, number, {user}, {state}, {due}, now(), {expires}
FROM generate_series(1, {count}) AS number
"""


def _filled(kind, count, state, **more):
    usual = {
        "event": "'message.created'",
        "user": "'anna'",
        "due": "now() - interval '1 minute'",
        "expires": "NULL",
        "conversation": f"('00000001-0000-7000-8000-' || lpad(to_hex(number % {LANES} + 2), 12, '0'))::uuid",
    }
    return _ROWS.format(kind=kind, count=count, state=f"'{state}'", **{**usual, **more})


FILLING = (
    _filled(0x10, DELIVERED, "delivered"),
    _filled(0x20, BACKLOG, "new", conversation=f"'{LOUD}'::uuid"),
    _filled(0x30, LANES, "new"),
    # All but some are due much later, and of these all are of one conversation but for every tenth.
    _filled(0x40, WAITING, "due", due="now() + interval '1 hour'"),
    _filled(
        0x50, DUE, "due", conversation=f"CASE WHEN number % 10 > 0 THEN '{LOUD}'::uuid ELSE '{QUIET}'::uuid END"
    ),
    _filled(
        0x60,
        PRESENCE,
        "due",
        event="'user.online'",
        conversation="NULL",
        user="'user-' || number",
        due="now() + interval '1 minute'",
        expires="now() + interval '5 minutes'",
    ),
    _filled(0x70, 1_000, "dead"),
)


# One conversation has all that is overdue the longest; the others come after it.
HANGING = (
    _filled(
        0x20,
        HUNG,
        "due",
        conversation=f"'{LOUD}'::uuid",
        due="now() - interval '1 day' + number * interval '1 ms'",
    ),
    _filled(0x30, OTHERS, "due"),
    _filled(0x40, WAITING, "due", due="now() + interval '1 hour'"),
)


@asynccontextmanager
async def _outbox(server_urls, statements):
    """Give a connection to a database in which only webhooks are."""
    database_url, _ = server_urls
    async with new_database(database_url) as own:
        connection = await asyncpg.connect(own)
        for statement in statements:
            await connection.execute(statement)
        await connection.execute("VACUUM ANALYZE webhooks")
        yield connection
        await connection.close()


@pytest.fixture(scope="module")
async def outbox_of_a_year(server_urls):
    async with _outbox(server_urls, FILLING) as connection:
        yield connection


@pytest.fixture(scope="module")
async def outbox_that_hangs(server_urls):
    async with _outbox(server_urls, HANGING) as connection:
        yield connection


@dataclass(frozen=True)
class Case:
    """A statement, how many rows it may read, and how many pages it may visit."""

    call: Callable[[], Any]
    read: int
    pages: int


def _row(kind, number):
    return {"id": numbered(kind, number), "lease": uuid4(), "step": 0, "conversation_id": LOUD, "user_id": "anna"}


HELD = [_row(0x20, number) for number in range(1, 51)]
SETTLED = [Settled(row, "delivered", 0.0, 200, None) for row in HELD]

# Of each lane its first row three times: found by the index, locked, and claimed with what is behind it; and each
# update a place in six indexes.
CASES = {
    "claim lanes": Case(lambda: queue.claim_lanes(UUID(int=0), 96), 8 * 96 + 4 * ROWS_OF_A_LANE, 8_000),
    "claim a lane": Case(lambda: queue.claim_lanes(UUID(int=0), 1, 1), 10, 150),
    "claim due": Case(lambda: queue.claim_due([], 32), 2 * DUE + 4 * 32, 2_000),
    "claim due of others": Case(lambda: queue.claim_due([LOUD], 32), 2 * DUE + 4 * 32, 2_000),
    "renew": Case(lambda: queue.renew(HELD), 100, 1_000),
    "release": Case(lambda: queue.release(HELD), 100, 1_000),
    "settle": Case(lambda: queue.settle(SETTLED), 100, 2_000),
    "expire": Case(queue.expire, DUE + PRESENCE, 4_000),
    "forget": Case(lambda: queue.forget(numbered(0x11, 0), 1000), 2_000, 10_000),
    "last told": Case(lambda: POOL.rows(presence_audit.LAST_TOLD, "", presence_audit.PAGE), 600, 700),
    "list pending": Case(lambda: webhooks.list_webhooks("pending", 100, None), 202, 250),
    "list delivered": Case(lambda: webhooks.list_webhooks("delivered", 100, None), 101, 250),
    "list dead": Case(lambda: webhooks.list_webhooks("dead", 100, None), 101, 250),
    "list all": Case(lambda: webhooks.list_webhooks(None, 100, None), 101, 250),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
async def test_it_reads_no_more_than_it_needs(outbox_of_a_year, monkeypatch, name, mode):
    case = CASES[name]
    statement, values = await recorded(case.call, monkeypatch)
    found = await explain(outbox_of_a_year, mode, statement, values)
    kinds = {node["Node Type"] for node in found.nodes() if node.get("Relation Name") == "webhooks"}
    print(f"{name:20} {mode:18} read {found.read:6} buffers {found.buffers:6} {found.milliseconds:8.2f} ms")  # noqa: T201
    assert "Seq Scan" not in kinds
    assert found.read <= case.read
    assert found.buffers <= case.pages


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("busy", [[], [LOUD]], ids=["free", "busy"])
async def test_one_conversation_with_much_that_is_due_costs_no_more(outbox_that_hangs, monkeypatch, busy, mode):
    statement, values = await recorded(lambda: queue.claim_due(busy, 32), monkeypatch)
    found = await explain(outbox_that_hangs, mode, statement, values)
    print(f"{len(busy)} busy {mode:18} read {found.read:6} buffers {found.buffers:6} {found.milliseconds:8.2f} ms")  # noqa: T201
    # Each is read once, and left out once where it is of a conversation that is busy.
    assert found.read <= 2 * LOOKED_AT_ONCE + 4 * 32
    assert found.buffers <= 1_000


async def test_others_that_are_due_are_claimed_behind_it(outbox_that_hangs):
    transaction = outbox_that_hangs.transaction()
    await transaction.start()
    try:
        after, claims, others = None, 0, set()
        while not claims or after is not None:
            rows = await outbox_that_hangs.fetch(queue.CLAIM_DUE, [LOUD], 32, uuid4(), after)
            after, claims = rows[0]["looked_until"], claims + 1
            others |= {row["id"] for row in rows if row["id"] is not None}
        assert others == {numbered(0x30, number) for number in range(1, OTHERS + 1)}
        assert claims == HUNG // LOOKED_AT_ONCE + 1
    finally:
        await transaction.rollback()


async def test_what_is_overdue_is_found_at_once(outbox_of_a_year):
    await outbox_of_a_year.execute("UPDATE webhooks SET due_at = due_at - interval '1 minute' WHERE state = 'due'")
    found = await explain(outbox_of_a_year, MODES[0], outbox.OVERDUE, ())
    assert found.returned == 1
    assert found.buffers < 1_000


async def test_the_partial_indexes_are_in_the_database(outbox_of_a_year):
    rows = await outbox_of_a_year.fetch("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'webhooks'")
    found = {row["indexname"]: row["indexdef"] for row in rows}
    for name, columns, condition in (
        ("webhooks_in_order", "(conversation_id, seq)", "state"),
        ("webhooks_by_due_time", "(due_at)", "state"),
        ("webhooks_of_presence", "(user_id, seq)", "conversation_id IS NULL"),
        ("webhooks_one_presence_per_user", "(user_id)", "conversation_id IS NULL"),
    ):
        assert columns in found[name]
        assert condition in found[name].partition(" WHERE ")[2]
    assert "UNIQUE" in found["webhooks_one_presence_per_user"]
    assert "(state, id)" in found["webhooks_by_state"]
