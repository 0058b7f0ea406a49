"""Sends that are gathered into one statement: none is lost, doubled, out of order, or suffers for another."""

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from uuid import UUID

import asyncpg
import pytest
from cancelling import disturbed_at
from pods import until

from app.config.settings import Settings
from app.contract import ids
from app.contract.errors import ServiceUnavailable
from app.messages import send_queue, writer
from app.messages.send_queue import SendQueue
from app.messages.submissions import Submission
from app.messages.writer import Writer
from app.postgres import database, pool
from app.postgres.message_rows import NewMessage
from app.runtime.supervisor import Supervisor, supervised
from app.usecases.changing import LOCK

WAITS = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


class Sent(Submission):
    """A message whose sender waits for a future, and takes it back by cancelling that."""

    def __init__(self, message, on_stored):
        super().__init__(message)
        self.on_stored = on_stored
        self.done = asyncio.get_running_loop().create_future()
        self.done.add_done_callback(lambda _: self.abandon())

    def answer(self, stored, error):
        found = None if stored is None else self.on_stored(stored)
        if self.done.done():
            return
        if error is None:
            self.done.set_result(found)
        else:
            self.done.set_exception(error)


class Sends:
    """A queue of this process, and the statements that it runs."""

    def __init__(self, settings: Settings, supervisor: Supervisor) -> None:
        self.writer = Writer(settings)
        self.queue = SendQueue(self.writer, supervisor)

    def submit(self, message, on_stored):
        sent = Sent(message, on_stored)
        self.queue.submit(sent)
        return sent.done


@pytest.fixture
async def sends(servers):
    """Give a queue of this process."""
    async with supervised() as supervisor:
        found = Sends(Settings.read(servers.environment()), supervisor)
        supervisor.loop("send queue", found.queue.run_forever)
        yield found


@pytest.fixture
def statements(sends, monkeypatch):
    """List what each statement says; whoever waits for one is told, with what it says, when it is over."""
    write, found = sends.writer.write, SimpleNamespace(ran=[], on_end=[])

    async def noted(collect, *, waits):
        said = []

        def collect_and_note():
            messages = collect()
            said.extend(message.content for message in messages)
            found.ran.append(said)
            return messages

        try:
            return await write(collect_and_note, waits=waits)
        finally:
            for told in found.on_end:
                await told(said)

    monkeypatch.setattr(sends.writer, "write", noted)
    return found


@pytest.fixture
async def other(servers):
    """Give a connection of somebody else."""
    connection = await asyncpg.connect(servers.database_url)
    yield connection
    await connection.close()


def message(room: str, sender: str, content: str, client_message_id: str | None = None) -> NewMessage:
    fingerprint = None if client_message_id is None else content.encode()
    conversation_id = ids.from_wire(ids.CONVERSATION, room)
    return NewMessage(ids.new_id(), conversation_id, sender, content, "[]", client_message_id, fingerprint, 2**40)


async def ready(sends: Sends, room: str, sender: str) -> None:
    """Wait until the connections are there."""

    async def is_stored() -> bool:
        try:
            return await sends.submit(message(room, sender, "first"), lambda stored: stored.seq) is not None
        except OSError:
            return False

    await until(is_stored, "a first message")


async def contents(connection: asyncpg.Connection, room: str) -> list[str]:
    found = await connection.fetch(
        "SELECT content FROM messages WHERE conversation_id = $1 ORDER BY seq", UUID(room.removeprefix("conv_"))
    )
    return [row["content"] for row in found]


async def test_all_are_stored_in_the_order_in_which_they_came(sends, user, other):
    anna = user("anna")
    rooms = [await anna.group() for _ in range(7)]
    await ready(sends, rooms[0], anna.user_id)
    told = []
    futures = [
        sends.submit(
            message(rooms[n % 7], anna.user_id, f"{n}"), lambda stored, n=n: told.append((n % 7, stored.seq, n))
        )
        for n in range(1000)
    ]
    await asyncio.gather(*futures)
    for place, room in enumerate(rooms):
        expected = [f"{n}" for n in range(1000) if n % 7 == place]
        assert [content for content in await contents(other, room) if content != "first"] == expected
        mine = [(seq, n) for where, seq, n in told if where == place]
        assert mine == sorted(mine)
        assert [n for _, n in mine] == [n for n in range(1000) if n % 7 == place]


async def test_a_conversation_that_is_held_holds_up_itself_alone(sends, user, other):
    anna = user("anna")
    held, free = await anna.group(), [await anna.group() for _ in range(20)]
    await ready(sends, held, anna.user_id)
    async with other.transaction():
        await other.fetchrow(LOCK, UUID(held.removeprefix("conv_")))
        waiting = [sends.submit(message(held, anna.user_id, f"{n}"), lambda stored: stored.seq) for n in range(10)]
        for n in range(5):
            seqs = await asyncio.gather(
                *(sends.submit(message(room, anna.user_id, "x"), lambda stored: stored.seq) for room in free)
            )
            assert seqs == [n + 1] * 20
        assert not any(future.done() for future in waiting)
    assert await asyncio.gather(*waiting) == list(range(2, 12))
    assert await contents(other, held) == ["first", *(f"{n}" for n in range(10))]


async def test_more_held_conversations_than_lines_hold_up_no_other(sends, user, other):
    anna = user("anna")
    held = [await anna.group() for _ in range(writer.LINES + 2)]
    free = await anna.group()
    await ready(sends, free, anna.user_id)
    async with other.transaction():
        for room in sorted(held):
            await other.fetchrow(LOCK, UUID(room.removeprefix("conv_")))
        waiting = [sends.submit(message(room, anna.user_id, "x"), lambda stored: stored.seq) for room in held]
        assert await sends.submit(message(free, anna.user_id, "x"), lambda stored: stored.seq) == 2
        assert not any(future.done() for future in waiting)
    assert await asyncio.gather(*waiting) == [1] * len(held)


async def test_what_is_given_up_before_its_turn_is_not_written(sends, user, other):
    anna = user("anna")
    held = await anna.group()
    await ready(sends, held, anna.user_id)
    told = []
    async with other.transaction():
        await other.fetchrow(LOCK, UUID(held.removeprefix("conv_")))
        begun = sends.submit(message(held, anna.user_id, "begun"), lambda stored: stored.seq)
        for text in ("given up", "waiting"):
            sent = Sent(
                message(held, anna.user_id, text), lambda stored, text=text: told.append((text, stored.seq))
            )
            sends.queue.submit(sent)
            if text == "given up":
                sent.abandon()
    assert await begun == 2

    async def is_told() -> bool:
        return bool(told)

    await until(is_told, "the one that waits")
    assert told == [("waiting", 3)]
    assert await contents(other, held) == ["first", "begun", "waiting"]


async def test_a_bad_row_fails_alone(sends, user, other):
    anna = user("anna")
    rooms = [await anna.group() for _ in range(5)]
    await ready(sends, rooms[0], anna.user_id)
    contents_of = ["good", "also good", "NUL \x00", "good", "good"]
    answers = await asyncio.gather(
        *(
            sends.submit(message(room, anna.user_id, content), lambda stored: stored.seq)
            for room, content in zip(rooms, contents_of, strict=True)
        ),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [int, int, asyncpg.CharacterNotInRepertoireError, int, int]
    assert await contents(other, rooms[2]) == []


async def test_where_a_batch_goes_one_by_one_nothing_overtakes_what_was_held(
    sends, user, other, statements, monkeypatch
):
    # One that takes all that there is.
    monkeypatch.setattr(send_queue, "BATCHES", 1)
    anna = user("anna")
    held, spoilt = await anna.group(), await anna.group()
    await ready(sends, held, anna.user_id)
    statements.ran.clear()
    holding = other.transaction()
    await holding.start()
    await other.fetchrow(LOCK, UUID(held.removeprefix("conv_")))

    async def let_go(said):
        # The conversation is free from the moment at which its first message was put off.
        if said == ["1"]:
            await holding.rollback()

    statements.on_end.append(let_go)
    said = [(held, "1"), (spoilt, "NUL \x00"), (held, "2"), (spoilt, "good"), (held, "3")]
    answers = await asyncio.gather(
        *(sends.submit(message(room, anna.user_id, content), lambda stored: stored.seq) for room, content in said),
        return_exceptions=True,
    )
    assert statements.ran == [["1", "2", "3", "NUL \x00", "good"], ["1"], ["NUL \x00"], ["good"], ["1", "2", "3"]]
    assert isinstance(answers.pop(1), asyncpg.CharacterNotInRepertoireError)
    assert answers == [2, 3, 1, 4]
    assert await contents(other, held) == ["first", "1", "2", "3"]


@pytest.mark.parametrize(("conversations", "sizes"), [(1, [12]), (2, [6, 6]), (12, [6, 6])])
async def test_what_comes_at_once_goes_in_even_shares_and_no_conversation_is_torn(
    sends, user, statements, conversations, sizes
):
    anna = user("anna")
    rooms = [await anna.group() for _ in range(conversations)]
    await ready(sends, rooms[0], anna.user_id)
    statements.ran.clear()
    said = [message(room, anna.user_id, "at once") for room in rooms for _ in range(12 // conversations)]
    await asyncio.gather(*(sends.submit(one, lambda stored: stored.seq) for one in said))
    assert [len(said) for said in statements.ran] == sizes


async def test_what_postgresql_rolls_back_for_a_deadlock_is_written_again(sends, user, other, servers, statements):
    anna = user("anna")
    room = await anna.group()
    await ready(sends, room, anna.user_id)
    statements.ran.clear()
    conversation_id = UUID(room.removeprefix("conv_"))
    watcher = await asyncpg.connect(servers.database_url)
    async with other.transaction():
        await other.fetch("SELECT 1 FROM participants WHERE conversation_id = $1 FOR UPDATE", conversation_id)
        sent = sends.submit(message(room, anna.user_id, "again"), lambda stored: stored.seq)
        await until(lambda: watcher.fetchval(WAITS), "the send waits")
        # It waits for this connection, and this one for it: it came first, and is the first to be told.
        await other.fetchrow(LOCK, conversation_id)
    assert await sent == 2
    await watcher.close()
    assert statements.ran[0] == statements.ran[1] == ["again"]
    assert await contents(other, room) == ["first", "again"]


async def test_who_may_not_gets_nothing_and_takes_no_seq(sends, user):
    anna, stranger = user("anna"), user("stranger")
    room = await anna.group()
    await ready(sends, room, anna.user_id)
    answers = await asyncio.gather(
        sends.submit(message(room, anna.user_id, "one"), lambda stored: stored.seq),
        sends.submit(message(room, stranger.user_id, "no"), lambda stored: stored.seq),
        sends.submit(message("conv_" + "0" * 32, anna.user_id, "nowhere"), lambda stored: stored.seq),
        sends.submit(message(room, anna.user_id, "two"), lambda stored: stored.seq),
    )
    assert answers == [2, None, None, 3]


async def test_the_same_message_many_times_at_once_is_one(sends, user, other):
    anna = user("anna")
    room = await anna.group()
    await ready(sends, room, anna.user_id)
    announced = []
    answers = await asyncio.gather(
        *(sends.submit(message(room, anna.user_id, "once", "an-id"), announced.append) for _ in range(30)),
        sends.submit(message(room, anna.user_id, "after"), announced.append),
    )
    assert answers == [None] * 31
    assert [stored.seq for stored in announced] == [2, 3]
    assert await contents(other, room) == ["first", "once", "after"]


async def test_who_goes_away_harms_nobody(sends, user, other, servers):
    anna = user("anna")
    room = await anna.group()
    await ready(sends, room, anna.user_id)
    announced = []
    watcher = await asyncpg.connect(servers.database_url)
    async with other.transaction():
        await other.fetchrow(LOCK, UUID(room.removeprefix("conv_")))
        under_way = sends.submit(message(room, anna.user_id, "under way"), announced.append)
        await until(lambda: watcher.fetchval(WAITS), "the line waits")
        queued = sends.submit(message(room, anna.user_id, "queued"), announced.append)
        last = sends.submit(message(room, anna.user_id, "last"), announced.append)
        under_way.cancel()
        queued.cancel()
    await last
    await watcher.close()
    # What was under way is stored and told; what only waited was taken back.
    assert await contents(other, room) == ["first", "under way", "last"]
    assert [stored.seq for stored in announced] == [2, 3]


async def test_too_much_is_refused_at_once(sends, user, monkeypatch):
    anna = user("anna")
    room = await anna.group()
    monkeypatch.setattr(send_queue, "MAX_WAITING", 10)
    futures = [sends.submit(message(room, anna.user_id, "x"), lambda stored: stored.seq) for _ in range(10)]
    with pytest.raises(ServiceUnavailable):
        sends.submit(message(room, anna.user_id, "x"), lambda stored: stored.seq)
    await asyncio.gather(*futures, return_exceptions=True)


@pytest.mark.parametrize("is_late", [False, True], ids=["while it waits", "when its answer is there"])
async def test_wherever_the_connection_of_a_statement_is_ended_postgresql_is_away(sends, user, is_late):
    anna = user("anna")
    room = await anna.group()
    await ready(sends, room, anna.user_id)
    place, was_reached = 0, True
    while was_reached:
        # The statement is prepared on a connection of its own each time.
        pool.terminate_pooled()
        write = sends.writer.write(lambda: [message(room, anna.user_id, "hello")], waits=False)
        with suppress(*database.AWAY):
            was_reached, _ = await disturbed_at(place, write, pool.terminate_pooled, is_late=is_late)
        place += 1
    assert 3 < place < 40
