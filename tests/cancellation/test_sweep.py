"""Each use-case, cancelled at each place where it waits: nothing is left behind, and the next one goes its way."""

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
from cancelling import was_cancelled_at
from clients import somebody, token
from databases import new_database
from msgspec import Raw
from pods import ACTIONS, environment, until

from app.config.settings import Settings
from app.contract import ids
from app.contract.codec import encode
from app.contract.errors import Conflict, Forbidden, NotFound
from app.contract.schemas import (
    AddParticipants,
    AddReaction,
    CreateConversation,
    EditMessage,
    SendMessage,
    SocketSync,
    SyncUser,
    SyncUsers,
    UpdateConversation,
)
from app.identity.actor import Actor
from app.postgres import database, transactions
from app.process import wiring
from app.realtime.socketio.packets import event_frame
from app.runtime.supervisor import supervised
from app.usecases import (
    admin,
    catchup,
    conversations,
    messages,
    participants,
    presence,
    reactions,
    receipts,
    sessions,
    stats,
    typing,
    users,
    webhooks,
)
from app.usecases.changing import LOCK

# More than any of them waits.
MOST_WAITS = 60

LEFT_BEHIND = """
SELECT a.pid, a.state, a.query, array_agg(l.locktype) AS locks
FROM pg_stat_activity a LEFT JOIN pg_locks l ON l.pid = a.pid
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
      AND (a.state LIKE 'idle in transaction%' OR a.state = 'idle' AND l.pid IS NOT NULL)
GROUP BY a.pid, a.state, a.query
"""
# Whose entries are not 1, 2, 3, … up to where the head stands.
GAPS = """
SELECT h.conversation_id FROM conversation_heads h
LEFT JOIN (
    SELECT conversation_id, count(*) AS count, max(seq) AS latest FROM (
        SELECT conversation_id, seq FROM messages UNION ALL SELECT conversation_id, seq FROM events
    ) AS entries GROUP BY conversation_id
) entry USING (conversation_id)
WHERE coalesce(entry.count, 0) <> h.last_seq OR coalesce(entry.latest, 0) <> h.last_seq
"""
COMMITTED = """
SELECT EXISTS (SELECT 1 FROM messages WHERE conversation_id = $1 AND seq = $2)
       OR EXISTS (SELECT 1 FROM events WHERE conversation_id = $1 AND seq = $2)
       OR NOT EXISTS (SELECT 1 FROM conversations WHERE id = $1)
"""


class Socket:
    """A socket that keeps what it hears."""

    def __init__(self, user_id: str) -> None:
        self.user_id, self.socket_id = user_id, uuid4().hex
        self.heard: list[Any] = []
        self.link = SimpleNamespace(
            write=None, push=self.heard.append, enqueue=self.heard.extend, is_behind=False, unsent=None
        )
        self.expel = self.evict = lambda *_: None
        self.reconnect = lambda: None

    def send(self, event) -> None:
        self.heard.append(event_frame(event))


class World:
    """A pod without listeners, and what its use-cases are done with."""

    def __init__(self, pod, sql: asyncpg.Connection) -> None:
        self.deps = pod.rest.app.ctx.deps
        self.sql = sql
        self.announced: list[tuple[UUID, int]] = []
        self.meet()
        announce = self.deps.fanout.announce

        def announce_and_note(change, *others) -> None:
            self.announced.append((change.conversation_id, change.seq))
            announce(change, *others)

        self.deps.fanout.announce = announce_and_note

    def meet(self) -> None:
        """Go on with people who are in no conversation yet."""
        self.anna, self.ben, self.cleo = (self.actor(name) for name in ("anna", "ben", "cleo"))

    def actor(self, name: str) -> Actor:
        return self.deps.tokens.verify(token(somebody(name)))

    async def group(self) -> UUID:
        command = CreateConversation("group", [self.ben.user_id], "Trip")
        view, _ = await conversations.create_conversation(self.deps, self.anna, command, None)
        return ids.from_wire(ids.CONVERSATION, view.id)

    async def direct(self) -> tuple[UUID, str]:
        other = somebody()
        view, _ = await conversations.create_conversation(
            self.deps, self.anna, CreateConversation("direct", [other]), None
        )
        return ids.from_wire(ids.CONVERSATION, view.id), other

    async def message(self) -> tuple[UUID, UUID]:
        room = await self.group()
        sent, _ = await messages.send_message(self.deps, self.anna, room, SendMessage("hello"))
        return room, ids.from_wire(ids.MESSAGE, _id_of(sent))

    async def is_whole(self) -> bool:
        pools = database.connection()._pool, self.deps.send_queue._writer._pool
        return all(_is_whole(pool) for pool in pools) and not await self.sql.fetch(LEFT_BEHIND)

    async def check(self) -> None:
        """Look that nothing is left behind by what was cancelled."""
        assert asyncio.current_task() not in transactions.in_transaction, "the task is in a transaction"
        deps = self.deps
        await until(self.is_whole, "that connections and locks are given back")
        assert deps.database.heavy_reads._value == database.HEAVY_READS
        await until(self.is_idle, "that nothing waits in the send queue")
        announced, self.announced[:] = list(self.announced), []
        for conversation_id, seq in announced:
            assert await self.sql.fetchval(COMMITTED, conversation_id, seq), "announced, and not committed"

    async def is_idle(self) -> bool:
        queue = self.deps.send_queue
        return not queue._conversations and not queue._batches and not queue._dedicated


def _id_of(sent: Raw) -> str:
    return str(bytes(sent).split(b'"id":"', 1)[1].split(b'"', 1)[0].decode())


def _is_whole(pool: asyncpg.Pool | None) -> bool:
    holders = pool._holders if pool else ()
    return all(
        holder._in_use is None
        and not (holder._con and not holder._con.is_closed() and holder._con.is_in_transaction())
        for holder in holders
    )


@pytest.fixture(scope="module")
async def world(server_urls):
    limits = {f"RATE_LIMIT_{action}": "100000/s,100000" for action in ACTIONS}
    # A database of Redis that no other test uses.
    redis_url = urlsplit(server_urls[1])._replace(path="/15").geturl()
    async with new_database(server_urls[0]) as url:
        told = {"WEBHOOK_URL": "http://127.0.0.1:9/", "WEBHOOK_SECRET": "a-secret-that-signs-webhooks-in-tests"}
        settings = Settings.read(environment(url, redis_url, **limits, **told))
        sql = await asyncpg.connect(url)
        async with database.opened(settings.database_url), supervised() as supervisor:
            pod = wiring.build(settings, supervisor)
            await until(pod.database.is_ready, "that PostgreSQL is there")
            yield World(pod, sql)
        await sql.close()


# Each prepares what a use-case needs, and gives it, to be called more than once.


async def create_group(world):
    command = CreateConversation("group", [world.ben.user_id], "Trip", Raw(b'{"a":1}'))
    key = uuid4().hex
    return lambda: conversations.create_conversation(world.deps, world.anna, command, key)


async def create_direct(world):
    command = CreateConversation("direct", [somebody()])
    return lambda: conversations.create_conversation(world.deps, world.anna, command, None)


async def show_direct_again(world):
    room, other = await world.direct()
    await participants.leave_conversation(world.deps, world.anna, room)
    return lambda: conversations.create_conversation(
        world.deps, world.anna, CreateConversation("direct", [other]), None
    )


async def list_conversations(world):
    await world.message()
    return lambda: conversations.list_conversations(world.deps, world.anna, 3, None)


async def get_conversation(world):
    room, _ = await world.message()
    return lambda: conversations.get_conversation(world.deps, world.anna, room)


async def update_conversation(world):
    room = await world.group()
    command = UpdateConversation("Another", Raw(b'{"b":2}'))
    return lambda: conversations.update_conversation(world.deps, world.anna, room, command)


async def leave_group(world):
    room = await world.group()
    return lambda: participants.leave_conversation(world.deps, world.anna, room)


async def leave_group_as_the_last(world):
    room = await world.group()
    await participants.leave_conversation(world.deps, world.ben, room)
    return lambda: participants.leave_conversation(world.deps, world.anna, room)


async def hide_direct(world):
    room, _ = await world.direct()
    return lambda: participants.leave_conversation(world.deps, world.anna, room)


async def add_participants(world):
    room = await world.group()
    command = AddParticipants(user_ids=[world.cleo.user_id, somebody()])
    return lambda: participants.add_participants(world.deps, world.anna, room, command)


async def remove_participant(world):
    room = await world.group()
    return lambda: participants.remove_participant(world.deps, world.anna, room, world.ben.user_id)


async def send_message(world):
    room = await world.group()
    command = SendMessage("hello", client_message_id=uuid4().hex)
    return lambda: messages.send_message(world.deps, world.anna, room, command)


async def send_message_that_reveals(world):
    room, _ = await world.direct()
    await participants.leave_conversation(world.deps, world.anna, room)
    return lambda: messages.send_message(world.deps, world.anna, room, SendMessage("hello"))


async def send_message_as_a_stranger(world):
    room = await world.group()
    return lambda: messages.send_message(world.deps, world.cleo, room, SendMessage("hello"))


async def edit_message(world):
    _, message = await world.message()
    return lambda: messages.edit_message(world.deps, world.anna, message, EditMessage("other"))


async def delete_message(world):
    _, message = await world.message()
    return lambda: messages.delete_message(world.deps, world.anna, message)


async def list_messages(world):
    room, message = await world.message()
    after = ids.to_wire(ids.MESSAGE, message)
    return lambda: messages.list_messages(world.deps, world.anna, room, 10, None, after)


async def list_events(world):
    room, _ = await world.message()
    return lambda: catchup.list_events(world.deps, world.anna, room, 0, 10)


async def add_reaction(world):
    _, message = await world.message()
    return lambda: reactions.add_reaction(world.deps, world.ben, message, AddReaction("x"))


async def remove_reaction(world):
    _, message = await world.message()
    await reactions.add_reaction(world.deps, world.ben, message, AddReaction("x"))
    return lambda: reactions.remove_reaction(world.deps, world.ben, message, "x")


async def read_message(world):
    _, message = await world.message()
    return lambda: receipts.read_message(world.deps, world.ben, message)


async def read_conversation(world):
    room, _ = await world.message()
    return lambda: receipts.read_conversation(world.deps, world.ben, room)


async def conversation_presence(world):
    room = await world.group()
    return lambda: presence.conversation_presence(world.deps, world.anna, room)


async def online_among(world):
    await world.group()
    return lambda: presence.online_among(world.deps, world.anna, [world.ben.user_id])


async def type_something(world):
    room = await world.group()
    typist = typing.Typing(world.deps, world.anna)

    async def start_and_end():
        try:
            await typist.start(room)
            await typist.end(room)
        finally:
            typist.stop_all()

    return start_and_end


async def sync(world):
    room, _ = await world.message()
    command = SocketSync({ids.to_wire(ids.CONVERSATION, room): 0})
    return lambda: catchup.sync(world.deps, world.anna, command)


async def connect_and_disconnect(world):
    await world.group()
    socket = Socket(world.ben.user_id)

    async def come_and_go():
        await sessions.connect(world.deps, world.ben, socket)
        await sessions.disconnect(world.deps, socket)

    return come_and_go


async def authenticate(world):
    text = token(world.anna.user_id)

    async def refresh():
        await sessions.authenticate_socket(world.deps, text)
        await sessions.refresh(world.deps, world.anna, text)

    return refresh


async def sync_user(world):
    return lambda: users.sync_user(world.deps, SyncUser(world.cleo.user_id, "Cleo"))


async def sync_users(world):
    command = SyncUsers([Raw(encode(SyncUser(somebody(), "X"))) for _ in range(5)])
    return lambda: users.sync_users(world.deps, command)


async def get_user(world):
    await users.sync_user(world.deps, SyncUser(world.cleo.user_id, "Cleo"))
    return lambda: users.get_user(world.cleo.user_id)


async def erase_user(world):
    room = await world.group()
    leaver = world.actor("leaver")
    await participants.add_participants(world.deps, world.anna, room, AddParticipants(user_id=leaver.user_id))
    await messages.send_message(world.deps, leaver, room, SendMessage("gone soon"))
    return lambda: users.delete_user(world.deps, leaver.user_id, erase=True)


async def list_all_conversations(world):
    await world.message()
    return lambda: admin.list_conversations(world.deps, 3, None, None, None)


async def delete_conversation(world):
    room, _ = await world.message()
    return lambda: admin.delete_conversation(world.deps, room)


async def get_stats(world):
    found = stats.Stats()
    return lambda: found.get(world.deps)


async def list_webhooks(world):
    await world.message()
    return lambda: webhooks.list_webhooks(None, 3, None)


async def replay_webhook(world):
    _, message = await world.message()
    webhook = await world.sql.fetchval(
        "UPDATE webhooks SET state = 'dead' WHERE message_id = $1 RETURNING id", message
    )
    return lambda: webhooks.replay_webhook(world.deps, webhook)


CASES = [
    create_group,
    create_direct,
    show_direct_again,
    list_conversations,
    get_conversation,
    update_conversation,
    leave_group,
    leave_group_as_the_last,
    hide_direct,
    add_participants,
    remove_participant,
    send_message,
    send_message_that_reveals,
    send_message_as_a_stranger,
    edit_message,
    delete_message,
    list_messages,
    list_events,
    add_reaction,
    remove_reaction,
    read_message,
    read_conversation,
    conversation_presence,
    online_among,
    type_something,
    sync,
    connect_and_disconnect,
    authenticate,
    sync_user,
    sync_users,
    get_user,
    erase_user,
    list_all_conversations,
    delete_conversation,
    get_stats,
    list_webhooks,
    replay_webhook,
]


async def attempt(world, use_case) -> None:
    """Do a use-case as the wires do; what a client may be told of it is a refusal, and never a failure."""
    with suppress(Conflict, Forbidden, NotFound):
        await world.deps.database.serve(use_case)


@pytest.mark.parametrize("is_late", [False, True], ids=["while it waits", "when its answer is there"])
@pytest.mark.parametrize("prepare", CASES, ids=lambda prepare: prepare.__name__)
async def test_whatever_is_cancelled_leaves_nothing_behind(world, prepare, is_late):
    world.meet()
    for place in range(MOST_WAITS):
        use_case = await prepare(world)
        was_cancelled, _ = await was_cancelled_at(place, attempt(world, use_case), is_late=is_late)
        await world.check()
        if not was_cancelled:
            break
        # It may have been done, and be told so.
        await attempt(world, use_case)
        await world.check()
    assert 0 < place < MOST_WAITS - 1
    assert not await world.sql.fetch(GAPS)
    people = world.deps.fanout._rooms.people.values()
    assert not any(person.connecting or person.subscribers for person in people), "a socket is left"
    assert not any(room.pins for room in world.deps.fanout._rooms.rooms.values()), "a room is held"
    assert not any(person.sockets for person in world.deps.presence._users.values()), "somebody is left online"


async def test_a_message_whose_sender_gives_up_before_its_turn_is_not_stored(world):
    world.meet()
    room = await world.group()

    def say(content: str) -> asyncio.Task[Any]:
        return asyncio.create_task(messages.send_message(world.deps, world.anna, room, SendMessage(content)))

    async def is_in_a_statement() -> bool:
        return world.deps.send_queue._dedicated == 1

    async def is_waiting() -> bool:
        return len(world.deps.send_queue._conversations[room].submissions) == 2

    async with world.sql.transaction():
        await world.sql.fetchrow(LOCK, room)
        begun = say("begun")
        await until(is_in_a_statement, "that the first is in a statement")
        given_up = say("given up")
        await until(is_waiting, "that the second waits")
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
    await begun
    await say("last")
    stored = await world.sql.fetch("SELECT content FROM messages WHERE conversation_id = $1 ORDER BY seq", room)
    assert [row["content"] for row in stored] == ["begun", "last"]
    await world.check()
