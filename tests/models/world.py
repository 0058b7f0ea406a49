"""One pod's delivery between a PostgreSQL and a Redis of which a test decides what happens next.

The real `Fanout` runs on a loop without time of its own. Each question to PostgreSQL waits until it is told to be
answered: first it sees what is committed then, and later it returns, or fails. What is published waits to arrive,
in any order, twice or never. Nothing here is random: the same steps have the same outcome.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.contract import events
from app.contract.events import Change, Event
from app.delivery import committed, fanout, wire_format
from app.delivery.fanout import Fanout
from app.delivery.rooms import Frame, Invitation
from app.delivery.wire_format import Order
from app.messages import event_log
from app.postgres import conversation_rows, participant_rows
from app.postgres.transactions import POOL

TICK = 0.005
OTHER_POD = b"other"
# What ends a hiding is said in this one, and nobody comes or goes.
DIRECT = UUID(int=0xD)
# Here people come and go; nobody has a reason to believe that one group has anything to do with another.
GROUP = UUID(int=1)
USERS = ["anna", "ben"]


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time goes on only when it is told to."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def turn(self) -> None:
        """Run what can run, and the pause that gathers what is asked at the same time."""
        for _ in range(2):
            while True:
                self.call_soon(self.stop)
                self.run_forever()
                if not self._ready:
                    break
            self.now += TICK


@dataclass
class Question:
    """What was asked of PostgreSQL or of Redis."""

    # What asks: a loop of the pod, or those who connect.
    name: str
    look: Callable[[], Any]
    answer: asyncio.Future
    seen: Any = None
    is_seen: bool = False


@dataclass
class Entry:
    seq: int
    name: str
    user_id: str | None
    xid: int

    def change(self, conversation_id: UUID) -> Change:
        if self.name == events.PARTICIPANT_REMOVED:
            return events.participant_removed(conversation_id, self.seq, str(self.user_id), "owner")
        data = {"conversationId": conversation_id.hex, "seq": self.seq, "userId": self.user_id}
        return Change(conversation_id, self.seq, Event(self.name, json.dumps(data).encode()))


@dataclass
class Conversation:
    log: list[Entry] = field(default_factory=list)
    members: set[str] = field(default_factory=set)
    is_deleted: bool = False
    # Of a transaction that is open, which holds the head.
    held_by: int | None = None

    @property
    def last_seq(self) -> int:
        return len(self.log)


class Postgres:
    """What is committed."""

    def __init__(self) -> None:
        self.next_xid = 100
        self.running: set[int] = set()
        self.conversations = {
            DIRECT: Conversation(members=set(USERS)),
            GROUP: Conversation(members={"ben"}),
        }
        self.notices: list[dict[str, Any]] = []

    def begin(self) -> int:
        self.next_xid += 1
        self.running.add(self.next_xid)
        return self.next_xid

    def notice(
        self, xid: int, kind: str, user_id: str | None, conversation_id: UUID, seq: int | None = None
    ) -> None:
        self.notices.append(
            {
                "snapshot": None,
                "xid": str(xid),
                "id": len(self.notices),
                "kind": kind,
                "user_id": user_id,
                "conversation_id": conversation_id,
                "second": 0,
                "seq": seq,
            }
        )

    def answer(self, statement: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        snapshot = {"snapshot": f"0:{self.next_xid + 1}:{','.join(map(str, sorted(self.running)))}"}
        if statement == committed.SNAPSHOT:
            return [snapshot]
        if statement == committed.COMMITTED_SINCE:
            return [snapshot, *self._page(self._written(), *values)]
        if statement == committed.NOTICES_SINCE:
            return [snapshot, *self._page(self.notices, *values)]
        if statement == conversation_rows.LAST_SEQS:
            return [
                {"conversation_id": one, "last_seq": self.conversations[one].last_seq}
                for one in values[0]
                if not self.conversations[one].is_deleted
            ]
        assert statement == participant_rows.ADMISSIONS
        return [
            {"place": place, "conversation_id": conversation_id}
            for place, user_id in enumerate(values[0], 1)
            for conversation_id, found in self.conversations.items()
            if user_id in found.members
        ]

    def _written(self) -> list[dict[str, Any]]:
        return [
            {"snapshot": None, "xid": str(entry.xid), "conversation_id": conversation_id, "seq": entry.seq}
            for conversation_id, found in self.conversations.items()
            for entry in found.log
        ]

    @staticmethod
    def _page(rows: list[dict[str, Any]], xmax: str, running: list[str], most: int) -> list[dict[str, Any]]:
        found = sorted(
            (row for row in rows if int(row["xid"]) >= int(xmax) or row["xid"] in running),
            key=lambda row: int(row["xid"]),
        )
        return [row for row in found if row in found[:most] or row["xid"] == found[most - 1]["xid"]]

    def changes_after(self, positions: dict[UUID, int], most: int) -> list[Change]:
        return [
            entry.change(conversation_id)
            for conversation_id, seq in positions.items()
            if not self.conversations[conversation_id].is_deleted
            for entry in self.conversations[conversation_id].log[seq : seq + most]
        ]

    def invitation(self, conversation_id: UUID, user_id: str) -> Invitation | None:
        found = self.conversations[conversation_id]
        if user_id not in found.members:
            return None
        data = {"id": conversation_id.hex, "lastSeq": found.last_seq}
        event = Event(events.CONVERSATION_NEW, json.dumps(data).encode())
        return Invitation(user_id, conversation_id, found.last_seq, event)


class Redis:
    """Pub/sub: what is subscribed, and what is on its way."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.is_up = True
        self.wanted: set[str] = set()
        self.subscribed: set[str] = set()
        self.arriving: list[tuple[str, bytes]] = []

    def attach(
        self,
        on_message: Callable[[str, bytes], None],
        on_doubt: Callable[[], None],
        on_unreadable: Callable[[str], None],
    ) -> "Redis":
        self.on_message, self.on_doubt, self.on_unreadable = on_message, on_doubt, on_unreadable
        return self

    def is_subscribed(self, channel: str) -> bool:
        return channel in self.subscribed

    def publish(self, channel: str, payload: bytes) -> None:
        """Take what this pod says: there is nobody else to hear it."""

    async def subscribe(self, channels: Any) -> None:
        self.wanted |= set(channels)
        if self.is_up:
            await self._world.ask(lambda: self.subscribed.update(self.wanted & set(channels)))

    async def unsubscribe(self, channels: Any) -> None:
        self.wanted -= set(channels)
        self.subscribed -= set(channels)

    def say(self, channel: str, payload: bytes) -> None:
        """Publish as another pod."""
        if self.is_up and channel in self.subscribed:
            self.arriving.append((channel, payload))

    def go(self) -> None:
        self.is_up = False
        self.subscribed.clear()

    def come_back(self) -> None:
        self.is_up = True
        self.subscribed = set(self.wanted)
        self.on_doubt()


class Socket:
    """A client: what it hears must make sense to it, always."""

    write = None
    is_behind = False

    def __init__(self, world: "World", user_id: str) -> None:
        self.world, self.user_id = world, user_id
        self.socket_id = str(id(self))
        self.link = self
        self.is_connected = False
        self.is_over = False
        # Where somebody was a member while they connected: what they may load once they are in.
        self.may_load = {one for one, found in world.postgres.conversations.items() if user_id in found.members}
        self.loaded: dict[UUID, int] = {}
        self.heard: dict[UUID, int] = {}
        self.told: dict[UUID, set[int]] = defaultdict(set)
        self.out: set[UUID] = set()
        # Messages that end a hiding, which must be announced.
        self.reveals: set[int] = set()

    def on_connected(self) -> None:
        self.is_connected = True
        for conversation_id in self.may_load:
            self.loaded[conversation_id] = self.world.postgres.conversations[conversation_id].last_seq

    def push(self, frame: Frame) -> None:
        try:
            self.hear(frame.packet)
        except AssertionError as error:
            # Whoever sends would log it and go on.
            self.world.errors.append(error)

    def enqueue(self, frames: list[Frame]) -> None:
        for frame in frames:
            self.push(frame)

    def hear(self, event: Any) -> None:
        assert self.is_connected
        if self.is_over:
            return
        data = json.loads(event.data)
        if event.name == events.CONVERSATION_NEW:
            conversation_id = UUID(hex=data["id"])
            if conversation_id in self.out:
                self.out.discard(conversation_id)
                for before in (self.loaded, self.heard, self.told):
                    before.pop(conversation_id, None)
            self.told[conversation_id].add(data["lastSeq"])
            return
        conversation_id = UUID(hex=data["conversationId"].removeprefix("conv_"))
        assert conversation_id not in self.out, f"{event} after one's own removal"
        if event.name == events.CONVERSATION_DELETED:
            self.out.add(conversation_id)
            return
        self._place(conversation_id, data["seq"])
        if data["seq"] in self.reveals and conversation_id == DIRECT:
            assert max(self.told[DIRECT], default=0) >= data["seq"], (
                "a message that ends a hiding, without conversation:new"
            )
        if events.removed_user(event) == self.user_id:
            self.out.add(conversation_id)

    def _place(self, conversation_id: UUID, seq: int) -> None:
        before = self.heard.get(conversation_id)
        if before is not None:
            assert seq == before + 1, f"{seq} after {before}"
        else:
            # In from the start, or from an invitation on.
            loaded, told = self.loaded.get(conversation_id, -1), self.told[conversation_id]
            assert seq <= loaded + 1 or seq - 1 in told, f"{seq} where {loaded} were loaded and {told} told"
        self.heard[conversation_id] = seq

    def has(self, conversation_id: UUID) -> int:
        """Give up to which seq the client has everything."""
        if conversation_id in self.heard:
            return self.heard[conversation_id]
        return max(self.loaded.get(conversation_id, -1), *self.told[conversation_id], -1)

    def expel(self, until: int, deleted_at: float) -> None:
        raise AssertionError(until, deleted_at)

    def evict(self) -> None:
        raise AssertionError

    def reconnect(self) -> None:
        self.world.errors.append(AssertionError("a socket is sent away, though PostgreSQL lost nothing"))


class World:
    """All of it."""

    def __init__(self, monkeypatch: Any) -> None:
        self.loop = Loop()
        asyncio.set_event_loop(self.loop)
        self.postgres = Postgres()
        self.redis = Redis(self)
        self.questions: list[Question] = []
        self.sockets: list[Socket] = []
        self.connecting: list[tuple[Socket, asyncio.Task]] = []
        # What other pods, or this one, have committed and not yet told of.
        self.untold: list[Callable[[], None]] = []
        self.tasks: dict[str, asyncio.Task] = {}
        self.errors: list[Exception] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context["exception"]))
        # What the transaction that holds the group will do.
        self.held = ("", "")
        monkeypatch.setattr(POOL, "rows", self._rows)
        monkeypatch.setattr(event_log, "changes_after", self._changes_after)
        # Pages so short that there are several.
        monkeypatch.setattr("app.delivery.repair.WRITTEN_AT_ONCE", 2)
        monkeypatch.setattr("app.delivery.repair.NOTICES_AT_ONCE", 1)
        monkeypatch.setattr("app.delivery.repair.ROWS_AT_ONCE", 4)
        monkeypatch.setattr("app.delivery.repair.ROOMS_AT_ONCE", 2)
        monkeypatch.setattr("app.delivery.streams.MAX_BUFFERED_BYTES", 400)
        monkeypatch.setattr(fanout, "MAX_READINGS", 2)
        self.fanout = Fanout(self.redis.attach, lambda event: Frame(event, b""), self._invitation)
        self.rooms = self.fanout._rooms
        self.start("look", self.fanout.repair.look)
        self.loop.turn()
        self.answer_all()

    # What the pod asks

    async def ask(self, look: Callable[[], Any]) -> Any:
        current = asyncio.current_task()
        name = next((name for name, task in self.tasks.items() if task is current), "connect")
        question = Question(name, look, self.loop.create_future())
        self.questions.append(question)
        return await question.answer

    async def _rows(self, statement: str, *values: Any) -> Any:
        return await self.ask(lambda: self.postgres.answer(statement, values))

    async def _changes_after(self, positions: dict[UUID, int], most: int) -> Any:
        return await self.ask(lambda: self.postgres.changes_after(positions, most))

    async def _invitation(self, conversation_id: UUID, user_id: str) -> Any:
        return await self.ask(lambda: self.postgres.invitation(conversation_id, user_id))

    def open_questions(self, name: str | None = None) -> list[Question]:
        self.questions = [one for one in self.questions if not one.answer.done()]
        return [one for one in self.questions if name in {None, one.name}]

    def step(self, place: int, name: str | None = None) -> None:
        """Let a question see what is there, or return with what it saw."""
        questions = self.open_questions(name)
        if not questions:
            return
        question = questions[place % len(questions)]
        if question.is_seen:
            question.answer.set_result(question.seen)
        else:
            question.seen, question.is_seen = question.look(), True
        self.run()

    def fail(self, place: int) -> None:
        if questions := self.open_questions():
            questions[place % len(questions)].answer.set_exception(OSError("away"))
            self.run()

    def answer_all(self, name: str | None = None) -> None:
        self.run()
        while self.open_questions(name):
            self.step(0, name)

    # What the pod does in the background

    def work(self, name: str) -> None:
        """Begin what a loop of the pod does again and again, unless it is at it."""
        work = {
            "look": self.fanout.repair.look,
            "fill": self.fanout.repair.fill,
            "sweep": self.fanout.subscriptions.sweep,
        }
        if name in work:
            self.start(name, work[name])
            self.run()

    def finish(self, name: str) -> None:
        """Let a loop do all that there is to do, or all who connect come in."""
        self.work(name)
        self.answer_all(name)

    def start(self, name: str, work: Callable[[], Any]) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.loop.create_task(work())

    def run(self) -> None:
        """Let everything go on as far as it can without an answer."""
        while True:
            self.loop.turn()
            for name, task in list(self.tasks.items()):
                if task.done():
                    del self.tasks[name]
                    if not task.cancelled() and (error := task.exception()) and not isinstance(error, OSError):
                        raise error
            if self.fanout.invitations._due and "admit" not in self.tasks:
                self.start("admit", self.fanout.invitations.admit_next)
            else:
                break
        self._look_after_sockets()

    def _look_after_sockets(self) -> None:
        for socket, task in list(self.connecting):
            if task.done():
                self.connecting.remove((socket, task))
                if not task.cancelled() and (error := task.exception()) and not isinstance(error, OSError):
                    raise error
        for socket in [one for one in self.sockets if one.is_over]:
            self.leave(socket)
        for error in self.errors:
            raise error

    # Who comes and goes

    def connect(self, user_id: str) -> None:
        socket = Socket(self, user_id)

        async def come() -> None:
            await self.fanout.attach(socket, 1, lambda: self.ask(lambda: None))
            socket.on_connected()
            self.sockets.append(socket)

        self.connecting.append((socket, self.loop.create_task(come())))
        self.run()

    def leave(self, socket: Socket) -> None:
        socket.is_over = True
        self.sockets.remove(socket)
        self.fanout.detach(socket)

    # What is committed

    def change(self, conversation_id: UUID, kind: str, user_id: str, *, here: bool) -> None:
        """Commit a change, unless another transaction holds the conversation."""
        if self.postgres.conversations[conversation_id].held_by is None:
            self.commit(conversation_id, kind, user_id, self.postgres.begin(), here=here)

    def tell(self, place: int) -> None:
        """Have another pod publish what it has committed, or this one deliver it."""
        if self.untold:
            self.untold.pop(place % len(self.untold))()

    def disturb(self, what: str, place: int, user_id: str, kind: str) -> None:
        """Do what happens now and then."""
        group = self.postgres.conversations[GROUP]
        if what == "lose":
            self.untold.clear()
            self.redis.arriving.clear()
        elif what == "leave" and self.sockets:
            self.leave(self.sockets[place % len(self.sockets)])
        elif what == "cancel" and self.connecting:
            self.connecting[place % len(self.connecting)][1].cancel()
            self.run()
        elif what == "fail":
            self.fail(place)
        elif what == "redis":
            self.redis.go() if self.redis.is_up else self.redis.come_back()
        elif what == "hold" and group.held_by is None:
            # What it will change is decided now, and its id is given.
            group.held_by = self.postgres.begin()
            self.held = (kind, user_id)
        elif what == "release" and group.held_by is not None:
            xid, group.held_by = group.held_by, None
            self.commit(GROUP, *self.held, xid, here=False)
        elif what == "dissolve":
            self.change(GROUP, "dissolve", "", here=False)

    def commit(self, conversation_id: UUID, kind: str, user_id: str, xid: int, *, here: bool) -> None:
        """Commit a change; that it is told of is another step, which may never come."""
        found = self.postgres.conversations[conversation_id]
        self.postgres.running.discard(xid)
        if found.is_deleted:
            return
        if kind == "dissolve":
            self._dissolve(conversation_id, found, xid, here=here)
            return
        name = self._move(conversation_id, found, kind, user_id, xid)
        entry = Entry(found.last_seq + 1, name, user_id, xid)
        found.log.append(entry)
        change = entry.change(conversation_id)
        if kind == "reveal":
            self.postgres.notice(xid, "revealed", user_id, conversation_id, entry.seq)
            for socket in self.sockets:
                if socket.user_id == user_id:
                    socket.reveals.add(entry.seq)
            change = Change(conversation_id, wire_format.UNNUMBERED, wire_format.NOTHING)
        self.untold.append(lambda: self._say(change, here=here))
        if name == events.PARTICIPANT_ADDED:
            self.untold.append(lambda: self._welcome(conversation_id, user_id, here=here))

    def _move(self, conversation_id: UUID, found: Conversation, kind: str, user_id: str, xid: int) -> str:
        """Add or remove somebody, where there is somebody to; gives the name of the event."""
        if kind == "add" and user_id not in found.members:
            found.members.add(user_id)
            self.postgres.notice(xid, "joined", user_id, conversation_id)
            for socket, _ in self.connecting:
                if socket.user_id == user_id:
                    socket.may_load.add(conversation_id)
            return events.PARTICIPANT_ADDED
        if kind == "remove" and user_id in found.members:
            found.members.remove(user_id)
            return events.PARTICIPANT_REMOVED
        return events.MESSAGE_NEW

    def _dissolve(self, conversation_id: UUID, found: Conversation, xid: int, *, here: bool) -> None:
        found.members.clear()
        found.is_deleted = True
        self.postgres.notice(xid, "dissolved", None, conversation_id)
        gone = events.conversation_deleted(conversation_id)
        self.untold.append(lambda: self._say(Change(conversation_id, wire_format.UNNUMBERED, gone), here=here))

    def _say(self, change: Change, *, here: bool) -> None:
        if not here:
            channel = wire_format.conversation_channel(change.conversation_id)
            self.redis.say(channel, wire_format.write_change(OTHER_POD, change, None))
        elif change.event == wire_format.NOTHING:
            self._call(lambda: self.fanout.reveal(change.conversation_id))
        elif change.seq == wire_format.UNNUMBERED:
            self._call(lambda: self.fanout.close_room(change.conversation_id, change.event))
        else:
            self._call(lambda: self.fanout.announce(change, None))

    def _welcome(self, conversation_id: UUID, user_id: str, *, here: bool) -> None:
        """Read the conversation, and have the invitation on its way, at two times."""
        invitation = self.postgres.invitation(conversation_id, user_id)
        if invitation is None:
            return
        if here:
            self.untold.append(lambda: self._call(lambda: self.fanout.invite(invitation)))
        else:
            order = Order(wire_format.INVITE, conversation_id.hex, invitation.seq, invitation.event)
            self.redis.say(wire_format.user_channel(user_id), wire_format.write_order(OTHER_POD, order))

    def _call(self, do: Callable[[], None]) -> None:
        self.loop.call_soon(do)
        self.run()

    def arrive(self, place: int, *, is_again: bool) -> None:
        """Let something that was published come, in any order."""
        if self.redis.arriving:
            place %= len(self.redis.arriving)
            channel, payload = self.redis.arriving[place] if is_again else self.redis.arriving.pop(place)
            # Like Redis, that says nothing on a channel that was left meanwhile.
            if channel in self.redis.wanted:
                self._call(lambda: self.redis.on_message(channel, payload))

    # What must hold

    def quiesce(self) -> None:
        """Lose all that is on its way, and let the pod look: then everybody is where PostgreSQL has them."""
        self.untold.clear()
        self.redis.arriving.clear()
        self.answer_all()
        for _ in range(100):
            self.start("look", self.fanout.repair.look)
            self.answer_all()
            if self.fanout._gaps.found.is_set():
                self.start("fill", self.fanout.repair.fill)
                self.answer_all()
                continue
            rows = [*self.postgres._written(), *self.postgres.notices]
            newest = max((int(row["xid"]) for row in rows), default=0)
            if self.fanout.repair._changes_seen.xmax > newest and not self.fanout.invitations._due:
                break
        else:
            raise AssertionError("there is no end to it")
        assert not self.connecting
        for socket in self.sockets:
            # Not even in what is no more.
            rooms = self.rooms.people[socket.user_id].subscribers[socket]
            assert rooms == {one for one in self.rooms.rooms.values() if socket in one.subscribers}
            for conversation_id, found in self.postgres.conversations.items():
                self._compare(socket, conversation_id, found)

    def _compare(self, socket: Socket, conversation_id: UUID, found: Conversation) -> None:
        room = self.rooms.rooms.get(conversation_id)
        is_in = room is not None and socket in room.subscribers
        assert is_in == (socket.user_id in found.members), (
            f"{socket.user_id} {'is' if is_in else 'is not'} in {conversation_id}, of which {found.members} are"
        )
        if is_in:
            assert conversation_id not in socket.out
            assert socket.has(conversation_id) == found.last_seq

    def close(self) -> None:
        """End all; whatever was taken must have been given back."""
        try:
            for _, task in self.connecting:
                task.cancel()
            self.answer_all()
            for socket in list(self.sockets):
                self.leave(socket)
            for _ in range(3):
                self.loop.run_until_complete(self.fanout.subscriptions.sweep())
            assert self.rooms.rooms == {}
            assert self.rooms.people == {}
            assert self.redis.wanted == set()
            assert self.fanout._streams._buffered_bytes == 0
            assert self.fanout.invitations._due_bytes == 0
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.turn()
            self.loop.close()
            asyncio.set_event_loop(None)
