"""What many connections at once may and may not do to each other."""

import asyncio
import random
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest
from clients import somebody
from pods import until

from app.config.settings import Settings
from app.config.types import Url
from app.contract import ids
from app.contract.errors import ChatError, Conflict, Unauthorized
from app.contract.schemas import (
    AddParticipants,
    AddReaction,
    CreateConversation,
    EditMessage,
    SendMessage,
    SyncUser,
    UpdateConversation,
)
from app.identity.actor import Actor
from app.messages import event_log
from app.messages.send_queue import SendQueue
from app.messages.writer import Writer
from app.postgres import conversation_rows, database, message_rows, participant_rows
from app.postgres.transactions import POOL
from app.runtime.supervisor import supervised
from app.usecases import (
    admin,
    background_jobs,
    changing,
    conversations,
    messages,
    participants,
    reactions,
    receipts,
    users,
)
from app.usecases.deps import Deps
from app.webhooks.outbox import Outbox

CONNECTIONS = 20


def actor(user_id: str) -> Actor:
    """Make somebody whose token is younger than any deletion of the test."""
    return Actor(user_id, can_read=True, can_write=True, expires_at=0, issued_at=time.time() + 3600)


@pytest.fixture
async def deps(servers, monkeypatch):
    """Give the use-cases a database with a connection for each task, no limits, and nobody who listens."""

    async def unlimited(*_: Any) -> None:
        pass

    monkeypatch.setattr(database, "POOL_SIZE", CONNECTIONS)
    told: list[Any] = []
    silent = SimpleNamespace(
        announce=lambda change, *_: told.append(change),
        publish_to_users=lambda *_: None,
        publish_to_room=lambda *_: None,
        close_room=lambda *_: None,
        reveal=lambda *_: None,
        invite=lambda *_, **__: None,
        expel=lambda *_: None,
        told=told,
    )
    settings = Settings.read(servers.environment())
    async with database.opened(Url(servers.database_url)), supervised() as supervisor:
        send_queue = SendQueue(Writer(settings), supervisor)
        supervisor.loop("send queue", send_queue.run_forever)
        yield Deps(
            settings=settings,
            database=database.Database(Url(servers.database_url)),
            tokens=None,
            fanout=silent,
            outbox=Outbox(settings, None),
            send_queue=send_queue,
            limits=SimpleNamespace(check=unlimited, check_soon=lambda *given: given[-1](None)),
            presence=None,
            receipts=SimpleNamespace(announce=unlimited),
            is_refused=None,
            typists=None,
        )


@pytest.fixture
async def connect(servers):
    """Open connections that are closed at the end."""
    opened = []

    async def make() -> asyncpg.Connection:
        opened.append(await asyncpg.connect(servers.database_url))
        return opened[-1]

    yield make
    for connection in opened:
        await connection.close()


async def group(deps, *people: str, kind: str = "group") -> Any:
    view, _ = await conversations.create_conversation(
        deps, actor(people[0]), CreateConversation(kind, list(people[1:])), None
    )
    return ids.from_wire(ids.CONVERSATION, view.id)


async def sending(connection, conversation_id, sender: str, token_second: int = 2**40):
    """Send as the line of a busy conversation does; gives None where nothing is stored."""
    message = message_rows.NewMessage(
        ids.new_id(), conversation_id, sender, "hello", "[]", None, None, token_second
    )
    rows = await connection.fetch(
        message_rows.SEND_WAITING, *message_rows.send_values([message], webhooks_enabled=False)
    )
    return next((row for row in rows if row["place"] is not None), None)


@asynccontextmanager
async def waiting_send(connect, conversation_id, sender: str, token_second: int = 2**40):
    """Give a transaction that holds the conversation, and a send that waits for it; commits at the end."""
    holder, other, watcher = [await connect() for _ in range(3)]
    async with holder.transaction():
        await holder.fetchrow(changing.LOCK, conversation_id)
        send = asyncio.create_task(sending(other, conversation_id, sender, token_second))
        waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
        await until(lambda: watcher.fetchval(waits, other.get_server_pid()), "the send waits")
        yield holder, send


async def stored(conversation_id) -> tuple[list[int], int | None]:
    """Give the seqs of a conversation's messages and other entries, and where its head stands."""
    entries = """
        SELECT seq FROM messages WHERE conversation_id = $1
        UNION ALL SELECT seq FROM events WHERE conversation_id = $1
        ORDER BY seq
    """
    found = await POOL.rows(entries, conversation_id)
    head = await conversation_rows.last_seqs([conversation_id])
    return [entry["seq"] for entry in found], head.get(conversation_id)


async def test_a_removal_that_commits_while_a_send_waits_is_seen(deps, connect):
    anna, ben = somebody(), somebody()
    conversation_id = await group(deps, anna, ben)
    async with waiting_send(connect, conversation_id, ben) as (holder, send):
        await holder.execute(participants.REMOVE, conversation_id, ben)
        data = ['{"userId": "ben", "removedBy": "anna"}']
        await holder.execute(event_log.APPEND, conversation_id, [1], ["participant:removed"], [None], data, 1)
    assert await send is None
    assert await stored(conversation_id) == ([1], 1)


async def test_a_dissolution_that_commits_while_a_send_waits_is_seen(deps, connect):
    anna, ben = somebody(), somebody()
    conversation_id = await group(deps, anna, ben)
    async with waiting_send(connect, conversation_id, anna) as (holder, send):
        await holder.execute(conversations.DISSOLVE, conversation_id)
    assert await send is None
    assert await stored(conversation_id) == ([], None)


@pytest.mark.parametrize("is_synced", [True, False], ids=["with a profile", "without one"])
async def test_a_deletion_of_the_sender_that_commits_while_a_send_waits_is_seen(deps, connect, is_synced):
    anna, ben = somebody(), somebody()
    if is_synced:
        await users.sync_user(deps, SyncUser(ben, "Ben"))
    conversation_id = await group(deps, anna, ben, kind="direct")
    async with waiting_send(connect, conversation_id, ben, int(time.time())) as (_, send):
        await (await connect()).execute(users.DELETE, ben)
    assert await send is None
    assert await stored(conversation_id) == ([], 0)


async def test_who_was_deleted_marks_nothing_as_read(deps, connect):
    anna, ben = somebody(), somebody()
    conversation_id = await group(deps, anna, ben, kind="direct")
    await sending(await connect(), conversation_id, anna)
    await POOL.row(users.DELETE, ben)
    before = replace(actor(ben), issued_at=0)
    with pytest.raises(Unauthorized):
        await receipts.read_conversation(deps, before, conversation_id)
    (read,) = await POOL.rows(receipts.WHERE_NOW, conversation_id, ben, 0)
    assert read["last_read_seq"] == 0


async def test_a_hiding_that_commits_while_a_send_waits_is_seen(deps, connect):
    anna, ben = somebody(), somebody()
    conversation_id = await group(deps, anna, ben, kind="direct")
    async with waiting_send(connect, conversation_id, anna) as (holder, send):
        await holder.execute(conversations.HIDE, conversation_id, ben)
    assert (await send)["is_revealing"]
    revealed = "SELECT user_id FROM notices WHERE kind = 'revealed' AND conversation_id = $1"
    assert [row["user_id"] for row in await POOL.rows(revealed, conversation_id)] == [ben]
    # The message ended it.
    assert not (await sending(await connect(), conversation_id, anna))["is_revealing"]


async def test_a_read_cursor_that_moves_while_a_send_waits_does_no_harm(deps, connect):
    anna, ben = somebody(), somebody()
    conversation_id = await group(deps, anna, ben)
    await sending(await connect(), conversation_id, anna)
    async with waiting_send(connect, conversation_id, ben) as (_, send):
        await receipts.read_conversation(deps, actor(ben), conversation_id)
    assert (await send)["seq"] == 2


async def test_who_is_removed_first_and_who_sends_first_are_told_apart(deps, connect):
    anna, ben = somebody(), somebody()
    conversation_id = await group(deps, anna, ben)
    sender, remover = await connect(), await connect()
    async with sender.transaction():
        assert await sending(sender, conversation_id, ben) is not None
        removal = asyncio.create_task(
            participants.remove_participant(deps, actor(anna), conversation_id, ben), name="removal"
        )
        await asyncio.sleep(0.1)
        assert not removal.done()
    await removal
    assert await sending(remover, conversation_id, ben) is None
    assert await stored(conversation_id) == ([1, 2], 2)


async def test_sends_edits_and_reactions_of_many_take_every_seq_once(deps):
    people = [somebody() for _ in range(CONNECTIONS)]
    conversation_id = await group(deps, *people)

    async def act(user_id: str, number: int) -> None:
        text = f"{user_id} {number}"
        sent, _ = await messages.send_message(deps, actor(user_id), conversation_id, SendMessage(text))
        message_id = ids.from_wire(ids.MESSAGE, msgspec.json.decode(sent)["id"])
        await reactions.add_reaction(deps, actor(people[number]), message_id, AddReaction("x"))
        await messages.edit_message(deps, actor(user_id), message_id, EditMessage("other"))

    async def acts(user_id: str) -> None:
        for number in range(10):
            await act(user_id, number)

    await asyncio.gather(*(acts(user_id) for user_id in people))
    expected = list(range(1, CONNECTIONS * 10 * 3 + 1))
    assert await stored(conversation_id) == (expected, expected[-1])
    assert sorted(change.seq for change in deps.fanout.told) == expected
    found = await conversation_rows.get_conversation(conversation_id, people[0])
    assert found["last_message_seq"] == max(
        change.seq for change in deps.fanout.told if change.event.name == "message:new"
    )


async def test_the_same_client_message_id_at_once_is_one_message(deps):
    anna, ben = somebody(), somebody()
    conversation_id = await group(deps, anna, ben)
    command = SendMessage("hello", client_message_id="once")
    sent = await asyncio.gather(
        *(messages.send_message(deps, actor(anna), conversation_id, command) for _ in range(CONNECTIONS))
    )
    assert len({msgspec.json.decode(message)["id"] for message, _ in sent}) == 1
    assert [is_new for _, is_new in sent].count(True) == 1
    assert await stored(conversation_id) == ([1], 1)


class Crowd:
    """People who do all that can be done to a few conversations, in no order."""

    def __init__(self, deps: Deps) -> None:
        self.deps = deps
        self.people = [somebody() for _ in range(8)]
        self.places: list[Any] = []
        self.known: list[Any] = []
        self.done: dict[str, int] = {}
        self.chance = random.Random(7)
        self.acts = {
            self.send: 20, self.react: 10, self.edit: 10, self.delete: 5, self.read: 20, self.read_message: 5,
            self.add: 20, self.remove: 5, self.leave: 5, self.rename: 5, self.dissolve: 2, self.create: 3,
            self.expel: 1, self.chore: 2, self.page: 5,
        }  # fmt: skip

    async def act(self, end: float) -> None:
        while time.monotonic() < end:
            (one,) = self.chance.choices(list(self.acts), list(self.acts.values()))
            where = self.chance.choice(self.places)
            inside = [row["user_id"] for row in await participant_rows.participants([where], "", 20)]
            if not inside and where in self.places:
                self.places.remove(where)
                one = self.create
            # Some are strangers, and some of those who are in will be out by the time they act.
            who = self.chance.choice(inside if inside and self.chance.random() < 0.9 else self.people)
            try:
                await one(actor(who), where)
            except ChatError:
                outcome = f"refused to {one.__name__}"
            else:
                outcome = one.__name__
            self.done[outcome] = self.done.get(outcome, 0) + 1

    async def create(self, who: Actor, _: Any) -> None:
        kind = self.chance.choice(["direct", "group"])
        others = [person for person in self.people if person != who.user_id]
        named = self.chance.sample(others, 1 if kind == "direct" else 4)
        conversation_id = await group(self.deps, who.user_id, *named, kind=kind)
        self.known.append(conversation_id)
        # Not too many, so that people meet.
        self.places = [*self.places[-5:], conversation_id]

    async def send(self, who: Actor, where: Any) -> None:
        await messages.send_message(self.deps, who, where, SendMessage("hello"))

    async def message(self, where: Any) -> Any:
        latest = await message_rows.history("", where, before=None, after=None, limit=5)
        if not latest:
            raise Conflict("There is none yet")
        return self.chance.choice(latest)["id"]

    async def react(self, who: Actor, where: Any) -> None:
        await reactions.add_reaction(
            self.deps, who, await self.message(where), AddReaction(self.chance.choice("abc"))
        )

    async def edit(self, who: Actor, where: Any) -> None:
        await messages.edit_message(self.deps, who, await self.message(where), EditMessage(uuid4().hex))

    async def delete(self, who: Actor, where: Any) -> None:
        await messages.delete_message(self.deps, who, await self.message(where))

    async def read(self, who: Actor, where: Any) -> None:
        await receipts.read_conversation(self.deps, who, where)

    async def read_message(self, who: Actor, where: Any) -> None:
        await receipts.read_message(self.deps, who, await self.message(where))

    async def add(self, who: Actor, where: Any) -> None:
        named = self.chance.sample(self.people, 3)
        await participants.add_participants(self.deps, who, where, AddParticipants(user_ids=named))

    async def remove(self, who: Actor, where: Any) -> None:
        await participants.remove_participant(self.deps, who, where, self.chance.choice(self.people))

    async def leave(self, who: Actor, where: Any) -> None:
        await participants.leave_conversation(self.deps, who, where)

    async def rename(self, who: Actor, where: Any) -> None:
        command = UpdateConversation(title=uuid4().hex)
        await conversations.update_conversation(self.deps, who, where, command)

    async def dissolve(self, _: Actor, where: Any) -> None:
        await admin.delete_conversation(self.deps, where)

    async def expel(self, who: Actor, _: Any) -> None:
        await users.delete_user(self.deps, who.user_id, erase=True)
        await users.sync_user(self.deps, SyncUser(who.user_id, "back"))

    async def chore(self, _who: Actor, _where: Any) -> None:
        await background_jobs.work(self.deps)

    async def page(self, who: Actor, _: Any) -> None:
        await conversations.list_conversations(self.deps, who, 20, None)


DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"

# What was left of conversations that are gone, once all background jobs are done.
LEFT_BEHIND = """
SELECT count(*) AS count
FROM (SELECT conversation_id FROM messages UNION ALL SELECT conversation_id FROM events
      UNION ALL SELECT conversation_id FROM participants UNION ALL SELECT conversation_id FROM conversation_heads
      UNION ALL SELECT coalesce(m.conversation_id, r.message_id)
                FROM reactions r LEFT JOIN messages m ON m.id = r.message_id
     ) AS kept
WHERE conversation_id NOT IN (SELECT id FROM conversations)
"""


async def test_nobody_locks_out_anybody_for_good(deps, connect):
    crowd = Crowd(deps)
    for _ in range(6):
        crowd.places.append(await group(deps, *crowd.people[:6]))
    crowd.known += crowd.places
    watcher = await connect()
    before = await watcher.fetchval(DEADLOCKS)
    # Whatever is no ChatError, a deadlock above all, ends the test.
    await asyncio.gather(*(crowd.act(time.monotonic() + 5) for _ in range(CONNECTIONS)))
    await watcher.execute("SELECT pg_stat_force_next_flush()")
    assert await watcher.fetchval(DEADLOCKS) == before
    assert min(crowd.done.get(one.__name__, 0) for one in crowd.acts) > 0, crowd.done

    while await background_jobs.work(deps):
        pass
    for conversation_id in crowd.known:
        seqs, last_seq = await stored(conversation_id)
        assert seqs == list(range(1, (last_seq or 0) + 1))
    assert await POOL.row(LEFT_BEHIND) == {"count": 0}
