"""Every hot statement against a database in which much has been said: it reads no more than it needs.

Each is run as PostgreSQL plans it for the values at hand and as it plans it for any, since prepared statements
become generic in time. With `-s` a table of all is printed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import filling
import pytest
from databases import new_database
from explaining import GROWING, Explained, explain, recorded
from filling import (
    BUSY,
    BUSY_CONVERSATIONS,
    CROWD,
    CROWD_SEQS,
    CROWD_SIZE,
    DIRECT_SEQS,
    EMOJI,
    ERASED,
    FIRST_DIRECT,
    GRAVEYARD,
    HIDDEN,
    LOVED_SEQ,
    MONOLOGUE,
    PROGRAM,
    READER,
)

from app.contract import ids
from app.delivery import committed
from app.delivery.committed import Seen
from app.identity import revocation
from app.messages import event_log
from app.messages.writer import PLANS
from app.postgres import conversation_rows, message_rows, participant_rows
from app.postgres.conversation_rows import UNREAD_CEILING
from app.postgres.transactions import POOL
from app.usecases import (
    background_jobs,
    changing,
    conversations,
    participants,
    presence,
    presence_announcer,
    reactions,
    receipts,
    stats,
)

EVERYBODY = 2**31 - 1
BUSY_IDS = [filling.numbered(1, FIRST_DIRECT + number) for number in range(BUSY_CONVERSATIONS)]
# All that there is, in as many slices as a day is counted in.
SLICES = tuple(
    [ids.first_of(time.time() / stats.SLICES * place) for place in range(first, first + stats.SLICES)]
    for first in (0, 1)
)
MODES = ("force_custom_plan", "force_generic_plan")

# What one of a page of the busy user's conversations takes: itself, its last message, two participants, the
# messages that are unread, and the looks that settle these.
SHOWN = 30


@dataclass
class Facts:
    """What the tests know of the database only once it is filled."""

    loved: Any
    seen: Seen
    deep: Any


@dataclass(frozen=True)
class Case:
    """A statement, and how many rows it may read: also those read `in_vain`, which belong to `read`.

    `pages` is for what a statement writes; to read a row takes a few pages of an index and one of the table.
    """

    call: Callable[[Facts], Any]
    read: int
    in_vain: int = 0
    pages: int = 100
    whole: set[str] = field(default_factory=set)


def new(conversation_id, sender: str, client_message_id: str | None = None) -> message_rows.NewMessage:
    fingerprint = b"x" * 16 if client_message_id else None
    return message_rows.NewMessage(
        ids.new_id(),
        conversation_id,
        sender,
        "hello",
        "[]",
        client_message_id,
        fingerprint,
        int(time.time()),
    )


def send(*messages: message_rows.NewMessage) -> tuple[Any, ...]:
    return (message_rows.SEND, *message_rows.send_values(messages, webhooks_enabled=True))


CASES: dict[str, Case] = {
    # Of each the head twice, the participant, and a profile that is refused nothing.
    "send": Case(lambda _: send(new(CROWD, "person-7", "once")), 4, in_vain=1),
    "send of who is in many": Case(lambda _: send(new(BUSY_IDS[3], BUSY)), 4, in_vain=1),
    # And each of them is compared with the head of each: for so few that costs less than a table of hashes.
    "send, a hundred": Case(
        lambda _: send(*(new(place, BUSY, "once") for place in BUSY_IDS[:100])), 10_400, 100 * 100, 1000
    ),
    # And both participants, to tell who hid it.
    "send to a hidden one": Case(
        lambda _: (
            message_rows.SEND_WAITING,
            *message_rows.send_values([new(HIDDEN, f"other-{FIRST_DIRECT + 77}")], webhooks_enabled=True),
        ),
        7,
        2,
    ),
    # Each entry of the log, the message that it is about, and the profile of every newcomer.
    "missed, a hole": Case(lambda _: lambda: message_rows.changes_after({CROWD: CROWD_SEQS - 20}, 500), 50),
    "missed, far behind": Case(lambda _: lambda: message_rows.changes_after({CROWD: 1000}, 500), 1100),
    "missed, many holes": Case(
        lambda _: lambda: message_rows.changes_after(dict.fromkeys(BUSY_IDS, DIRECT_SEQS - 1), 500), 10_200
    ),
    # A hundred sends; of what was written before nothing, though a transaction of then still runs.
    "committed since": Case(lambda facts: lambda: committed.committed_since(facts.seen, 2000), 100),
    "committed since, a part": Case(lambda facts: lambda: committed.committed_since(facts.seen, 10), 11),
    "committed since, others run": Case(
        lambda facts: (
            lambda: committed.committed_since(
                facts.seen._replace(running=frozenset(range(facts.seen.xmax - 50, facts.seen.xmax))), 2000
            )
        ),
        200,
    ),
    "notices since": Case(lambda facts: lambda: committed.notices_since(facts.seen, 500), 10),
    "admissions": Case(
        lambda _: lambda: participant_rows.admissions([(BUSY, 0), ("person-3", 0)]), 2 * BUSY_CONVERSATIONS
    ),
    "refused": Case(lambda _: lambda: revocation.are_refused([(BUSY, 0), ("person-3", 0)]), 4),
    "last seqs": Case(lambda _: lambda: conversation_rows.last_seqs(BUSY_IDS), BUSY_CONVERSATIONS),
    # A page of one's conversations, and both who are in each.
    "contacts": Case(
        lambda _: (presence_announcer.CONTACTS, [BUSY, "person-3"], [UUID(int=0)] * 2, 20, 100), 20 * 3 + 102
    ),
    "contacts, deep page": Case(
        lambda _: (presence_announcer.CONTACTS, [BUSY], [BUSY_IDS[4000]], 20, 100), 20 * 3
    ),
    # No more than tells that the group is a large one.
    "contacts, none in a crowd": Case(
        lambda _: (presence_announcer.CONTACTS, ["person-3"], [UUID(int=0)], 20, 100), 102
    ),
    # Of each who is asked for, their conversations, the asker there, and both who are in one that is shared.
    "acquainted, nobody": Case(lambda _: (presence.ACQUAINTED, BUSY, ["nobody", READER], 100), 6),
    "acquainted": Case(
        lambda _: (presence.ACQUAINTED, BUSY, [f"other-{FIRST_DIRECT + n}" for n in range(200)], 100), 200 * 4
    ),
    # No more than tells that the group is a large one.
    "acquainted, in a crowd": Case(
        lambda _: (presence.ACQUAINTED, "person-3", ["person-4", "person-5"], 100), 2 * 103, 2
    ),
    # The latest of one's conversations are known only when the heads of all have been seen; those above the
    # cursor, and what is hidden, in vain.
    "list, first page": Case(
        lambda _: lambda: conversation_rows.list_conversations(BUSY, None, 21),
        2 * BUSY_CONVERSATIONS + 21 * SHOWN,
        1 + 21,
    ),
    "list, deep page": Case(
        lambda facts: lambda: conversation_rows.list_conversations(BUSY, facts.deep, 101),
        3 * BUSY_CONVERSATIONS + 101 * SHOWN,
        BUSY_CONVERSATIONS,
    ),
    "list of a program": Case(
        lambda _: lambda: conversation_rows.list_conversations(PROGRAM, None, 21), 2 * (UNREAD_CEILING + 50), 10
    ),
    # The participants to count them, the first thousand messages, a look for each sender, their first thousand.
    "conversation, crowd": Case(
        lambda _: lambda: conversation_rows.get_conversation(CROWD, "person-3"),
        2 * (UNREAD_CEILING + CROWD_SIZE) + 20,
        2,
    ),
    # The unread among the many that are not: no more is read than of others.
    "conversation, all its own": Case(
        lambda _: lambda: conversation_rows.get_conversation(MONOLOGUE, PROGRAM), UNREAD_CEILING + 50, 5
    ),
    "conversation, all deleted": Case(
        lambda _: lambda: conversation_rows.get_conversation(GRAVEYARD, READER), UNREAD_CEILING + 50, 5
    ),
    # A row and its profile; the reader is passed over once, where they would come by their age.
    "participants, a page": Case(
        lambda _: lambda: participant_rows.participants(BUSY_IDS[:20], BUSY, 20), 20 * 5, 20
    ),
    "participants, first of a crowd": Case(
        lambda _: lambda: participant_rows.participants([CROWD], "person-3", 20), 43, 1
    ),
    "participants, a crowd": Case(
        lambda _: lambda: participant_rows.participants([CROWD], "person-3", EVERYBODY), 2 * CROWD_SIZE + 1, 1
    ),
    "participants, by name": Case(
        lambda _: lambda: participant_rows.named_participants(CROWD, ["person-3", "person-4"]), 4
    ),
    "membership": Case(lambda _: lambda: participant_rows.membership(BUSY_IDS[9], BUSY), 2),
    # A tenth of them have three reactions.
    "history, start": Case(
        lambda _: lambda: message_rows.history("person-3", CROWD, before=None, after=None, limit=51), 75
    ),
    "history, middle": Case(
        lambda _: lambda: message_rows.history("person-3", CROWD, before=CROWD_SEQS // 2, after=None, limit=51), 75
    ),
    "history, deep": Case(
        lambda _: lambda: message_rows.history("person-3", CROWD, before=101, after=None, limit=101), 150
    ),
    "history, forward": Case(
        lambda _: lambda: message_rows.history("person-3", CROWD, before=None, after=0, limit=101), 150
    ),
    "history, forward, deep": Case(
        lambda _: lambda: message_rows.history("person-3", CROWD, before=None, after=CROWD_SEQS - 1000, limit=101),
        150,
    ),
    # All its reactions, to count them.
    "message": Case(lambda facts: lambda: message_rows.get_message(POOL, "person-3", facts.loved), 901),
    "message sent as": Case(
        lambda _: lambda: message_rows.message_sent_as(CROWD, f"person-{1 + 77_777 % 499}", "client-77777"), 1
    ),
    "seq of": Case(lambda facts: lambda: message_rows.seq_of(CROWD, facts.loved), 1),
    "events after": Case(lambda _: lambda: message_rows.changes_after({CROWD: 123_456}, 100), 240),
    "places": Case(lambda _: lambda: event_log.places(dict.fromkeys([CROWD, *BUSY_IDS[:199]], 5)), 600),
    "memberships": Case(lambda _: lambda: participant_rows.memberships([CROWD, *BUSY_IDS[:199]], BUSY), 400),
    "admin, all": Case(
        lambda _: lambda: conversation_rows.all_conversations(BUSY_IDS[4000], None, None, 21), 21 * 6
    ),
    "admin, of a type": Case(
        lambda _: lambda: conversation_rows.all_conversations(None, "group", None, 21), 600, 5
    ),
    # Those that come after the cursor; they are put in order before the page is cut.
    "admin, of a user": Case(
        lambda _: lambda: conversation_rows.all_conversations(BUSY_IDS[2500], None, BUSY, 21),
        BUSY_CONVERSATIONS + 21 * 6,
        2,
    ),
    "append": Case(
        lambda facts: (
            event_log.APPEND,
            CROWD,
            [CROWD_SEQS + 1, CROWD_SEQS + 2],
            ["message:updated", "reaction:added"],
            [facts.loved, facts.loved],
            [None, '{"emoji": "x", "userId": "person-1"}'],
            CROWD_SEQS + 2,
        ),
        1,
    ),
    "lock": Case(lambda _: (changing.LOCK, CROWD), 1),
    "state": Case(lambda _: (changing.STATE, BUSY_IDS[9], BUSY, 1), 3, 1),
    # The head, the message, the participant, and as many more as it takes to call a group large.
    "read": Case(lambda _: (receipts.ADVANCE, CROWD, "person-3", CROWD_SEQS - 1, 100, 2**40), 104),
    "read all": Case(lambda _: (receipts.ADVANCE, BUSY_IDS[10], BUSY, None, 100, 2**40), 5),
    "where now": Case(lambda _: (receipts.WHERE_NOW, BUSY_IDS[10], BUSY, 2**40), 1),
    # All reactions of the message: how many different ones there are.
    "reaction added": Case(lambda facts: (reactions.ADD, facts.loved, EMOJI[3], "person-99", 30), 901),
    "reaction removed": Case(lambda facts: (reactions.REMOVE, facts.loved, EMOJI[3], "person-9"), 1),
    "enter": Case(lambda _: (participants.ADD, CROWD, ["one", "two"], 7), 0),
    "leave": Case(lambda _: (participants.REMOVE, CROWD, "person-3"), 1),
    # Who came at the same moment is put in order.
    "heir": Case(lambda _: (participants.NEXT_OWNER, CROWD), CROWD_SIZE),
    "hide": Case(lambda _: (conversations.HIDE, BUSY_IDS[11], BUSY), 2),
    # Everybody leaves, and is remembered.
    "dissolve": Case(lambda _: (conversations.DISSOLVE, CROWD), CROWD_SIZE + 2, pages=20 * CROWD_SIZE),
    # At most every 30 s, and never more of a table than the bound. Of webhooks none is pending or dead.
    "stats": Case(
        lambda _: (stats.STATS, stats.EXACT_BELOW),
        130_000 + stats.EXACT_BELOW,
        in_vain=2 * 150,
        pages=100_000,
        whole={"users", "conversations", "messages", "webhooks"},
    ),
    "stats, the last day": Case(
        lambda _: (stats.LAST_DAY, ids.first_of(0), stats.EXACT_BELOW),
        # Those that read side by side stop only once all together have enough.
        3 * stats.EXACT_BELOW,
        pages=300_000,
        whole={"messages"},
    ),
    # Before there was anything every slice has the same first messages, which are not its own.
    "stats, a sample": Case(
        lambda _: (stats.SAMPLE, *SLICES, stats.SLICE_ROWS),
        2 * stats.EXACT_BELOW,
        in_vain=stats.EXACT_BELOW,
        pages=300_000,
    ),
    "erase": Case(
        lambda _: (background_jobs.MESSAGES_TO_ERASE, CROWD, ERASED, 1000, background_jobs.PIECE),
        background_jobs.PIECE + 1,
    ),
    "purge, reactions": Case(
        lambda _: (background_jobs.PURGE_REACTIONS, CROWD, background_jobs.PIECE), 2 * background_jobs.PIECE
    ),
    "purge, messages": Case(
        lambda _: (background_jobs.PURGE_MESSAGES, CROWD, background_jobs.PIECE), 2 * background_jobs.PIECE
    ),
    "purge, events": Case(
        lambda _: (background_jobs.PURGE_EVENTS, CROWD, background_jobs.PIECE), 2 * background_jobs.PIECE
    ),
}


@pytest.fixture(scope="module")
async def facts(filled) -> Facts:
    seen = Seen.in_snapshot(await filled.fetchval(committed.SNAPSHOT))
    for number in range(100):
        await filled.execute(*send(new(BUSY_IDS[number % 10], BUSY)))
    deep = """
        SELECT activity_at, conversation_id FROM participants JOIN conversation_heads USING (conversation_id)
        WHERE user_id = $1 ORDER BY activity_at DESC, conversation_id DESC OFFSET 4500 LIMIT 1
    """
    loved = "SELECT id FROM messages WHERE conversation_id = $1 AND seq = $2"
    return Facts(await filled.fetchval(loved, CROWD, LOVED_SEQ), seen, tuple(await filled.fetchrow(deep, BUSY)))


@pytest.fixture(scope="module")
def table():
    lines = [f"{'':32}{'plan':9}{'returned':>9}{'read':>9}{'in vain':>9}{'pages':>9}{'ms':>9}"]
    yield lines
    print("", *lines, sep="\n")  # noqa: T201 - for whoever runs it with -s


def line(name: str, mode: str, found: Explained) -> str:
    counts = "".join(f"{count:9}" for count in (found.returned, found.read, found.removed, found.buffers))
    return f"{name:32}{mode.split('_')[1]:9}{counts}{found.milliseconds:9.2f}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
async def test_a_statement_reads_no_more_than_it_needs(name, mode, filled, facts, table, monkeypatch):
    case = CASES[name]
    call = case.call(facts)
    statement, values = (call[0], call[1:]) if isinstance(call, tuple) else await recorded(call, monkeypatch)
    found = await explain(filled, mode, statement, values)
    table.append(line(name, mode, found))
    assert found.sequential <= case.whole
    assert found.removed <= case.in_vain
    assert found.read <= case.read
    assert found.buffers <= 5 * (found.read + found.returned) + case.pages


async def updates(connection, name: str) -> tuple[int, int]:
    """Give how many rows of a table were updated, and how many of those without touching an index."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    counted = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = $1"
    return tuple(await connection.fetchrow(counted, name))


async def hot_share(connection, name: str, statement: str, runs: list[tuple[Any, ...]]) -> float:
    before = await updates(connection, name)
    for values in runs:
        assert await connection.fetchrow(statement, *values) is not None
    after = await updates(connection, name)
    assert after[0] - before[0] == len(runs)
    return (after[1] - before[1]) / len(runs)


@pytest.mark.parametrize("statement", [message_rows.SEND, message_rows.SEND_WAITING])
async def test_a_send_that_was_planned_for_an_empty_database_suits_a_full_one(statement, server_urls):
    async with new_database(server_urls[0]) as empty:
        connection = await asyncpg.connect(empty, server_settings=PLANS)
        # As whoever was the first to write left them behind: PostgreSQL knows that there is nothing.
        await connection.execute("VACUUM ANALYZE")
        values = message_rows.send_values([new(BUSY_IDS[0], BUSY, "once")], webhooks_enabled=True)
        planned = await explain(connection, "force_generic_plan", statement, values)
        await connection.close()
    scans = [
        node for node in planned.nodes() if node.get("Relation Name") in GROWING and "Scan" in node["Node Type"]
    ]
    assert {node["Relation Name"] for node in scans} >= {"messages", "participants", "conversation_heads"}
    for node in scans:
        assert "Index Cond" in node or "Recheck Cond" in node, (node["Node Type"], node["Relation Name"])


async def test_a_send_updates_no_index_of_the_head(filled):
    places = [CROWD, *BUSY_IDS[100:200]]
    runs = [send(new(places[n % 101], "person-7" if n % 101 == 0 else BUSY))[1:] for n in range(1000)]
    assert await hot_share(filled, "conversation_heads", message_rows.SEND, runs) > 0.99


async def test_reading_mostly_updates_no_index_of_the_participants(filled):
    # In a crowd they stand side by side, and each finds the room that the ones before left.
    crowd = [
        (CROWD, f"person-{1 + n % CROWD_SIZE}", CROWD_SEQS - 49 + n // CROWD_SIZE * 7, 100, 2**40)
        for n in range(2 * CROWD_SIZE)
    ]
    assert await hot_share(filled, "participants", receipts.ADVANCE, crowd) > 0.9
    one = [(place, BUSY, None, 100, 2**40) for place in BUSY_IDS[300:1300:2]]
    assert await hot_share(filled, "participants", receipts.ADVANCE, one) > 0.9


# What the count means, without regard to what it costs.
UNREAD = """
SELECT least(count(*), 1000) FROM messages m JOIN participants p USING (conversation_id)
WHERE conversation_id = $1 AND p.user_id = $2 AND m.seq > p.last_read_seq AND m.sender_id <> p.user_id
      AND m.deleted_at IS NULL
"""


@pytest.mark.parametrize(
    ("conversation_id", "user_id", "ends"),
    [
        (CROWD, "person-3", [1300, 1262, 1261, 1260, 1259, 1258, 1200, 900, 1, 0]),
        (MONOLOGUE, PROGRAM, [60_000, 6_001, 6_000, 1_001, 1_000, 999, 0]),
        (MONOLOGUE, READER, [60_000, 1_002, 1_001, 1_000, 999]),
        (GRAVEYARD, READER, [40_000, 4_001, 4_000, 1_000, 1, 0]),
        (GRAVEYARD, PROGRAM, [40_000, 999]),
    ],
)
async def test_unread_messages_are_counted_exactly_up_to_999(filled, conversation_id, user_id, ends):
    for end in ends:
        transaction = filled.transaction()
        await transaction.start()
        move = """
            UPDATE participants p SET last_read_seq = h.last_message_seq - $3 FROM conversation_heads h
            WHERE p.conversation_id = $1 AND h.conversation_id = $1 AND user_id = $2
        """
        await filled.execute(move, conversation_id, user_id, end)
        expected = await filled.fetchval(UNREAD, conversation_id, user_id)
        found = await filled.fetchrow(conversation_rows.GET_CONVERSATION, conversation_id, user_id)
        await transaction.rollback()
        assert found["unread_count"] == expected, end
