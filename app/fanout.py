"""Ordered delivery of what was committed, on whichever pod, to the sockets of this one.

Every pod follows the conversations in which it has sockets and no others. For each it keeps `delivered`, the seq
that its sockets have got to; local and remote changes take the same path, so that all pods agree on the order.

    (absent) ── first socket ──▶ FOLLOWING ── subscribed, last_seq read ──▶ LIVE ── last socket gone ──▶ (absent)

    LIVE, a change arrives:   seq = delivered + 1   out to the room, then what was held behind it
                              seq > delivered + 1   held; after 50 ms the hole is read from PostgreSQL
                              seq ≤ delivered       dropped: it was delivered already

Redis may lose anything. Every 5 s, and every second while the bus is in doubt, the pod looks in PostgreSQL for
what was committed since it last looked; what it had not got becomes a hole like any other.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Protocol
from uuid import UUID, uuid4

from app import events, store, views
from app.bus import Bus
from app.events import Change, Event

HOLE_PATIENCE = 0.05
LOOK_INTERVAL = 5.0
LOOK_INTERVAL_IN_DOUBT = 1.0
REPAIR_BATCH = 500
MAX_INVITATIONS = 10_000

_CONVERSATION_CHANNEL = "chat:c:"
_USER_CHANNEL = "chat:u:"

_log = logging.getLogger(__name__)


class Subscriber(Protocol):
    """One socket, as far as delivery knows it."""

    @property
    def user_id(self) -> str: ...

    def deliver(self, frame: str) -> None:
        """Queue a frame for the client; never blocks, never raises."""


class _Room:
    """A conversation that this pod follows."""

    __slots__ = ("conversation_id", "delivered", "held", "pins", "subscribers")

    def __init__(self, conversation_id: UUID) -> None:
        self.conversation_id = conversation_id
        # None while FOLLOWING.
        self.delivered: int | None = None
        self.held: dict[int, Event] = {}
        self.subscribers: set[Subscriber] = set()
        # How many sockets are on their way in: a room that they wait for must not go away.
        self.pins = 0


class _Person:
    """A user with sockets on this pod; `connecting` holds the invitations that wait for each socket."""

    __slots__ = ("connecting", "subscribers")

    def __init__(self) -> None:
        self.subscribers: dict[Subscriber, set[_Room]] = {}
        self.connecting: dict[Subscriber, list[_Invitation]] = {}


class _Invitation:
    """That a user is now in a conversation, which stood at `seq` when its `event` was written."""

    __slots__ = ("conversation_id", "event", "seq", "user_id")

    def __init__(self, user_id: str, conversation_id: UUID, seq: int, event: Event) -> None:
        self.user_id, self.conversation_id, self.seq, self.event = user_id, conversation_id, seq, event


class Fanout:
    """The rooms of this pod. `encode` turns an event into the frame that a socket sends."""

    def __init__(self, bus: Bus, encode: Callable[[Event], str]) -> None:
        self._bus = bus
        self._encode = encode
        self._pod = uuid4().hex.encode()
        self._rooms: dict[UUID, _Room] = {}
        self._people: dict[str, _Person] = {}
        self._holes: set[UUID] = set()
        self._hole_found = asyncio.Event()
        self._look_now = asyncio.Event()
        self._horizon: str | None = None
        self._invitations: asyncio.Queue[_Invitation] = asyncio.Queue(MAX_INVITATIONS)
        bus.attach(self._on_message, self._look_now.set)

    # Sockets come and go.

    async def attach(self, subscriber: Subscriber) -> None:
        """Put a socket into all its user's conversations.

        When this returns the socket is in: the caller must tell the client so before it awaits anything.
        """
        person = self._people.setdefault(subscriber.user_id, _Person())
        waiting = person.connecting[subscriber] = []
        pinned: list[_Room] = []
        try:
            await self._bus.subscribe([_USER_CHANNEL + subscriber.user_id])
            pinned = self._pin(await store.conversations_of(subscriber.user_id))
            await self._follow(pinned)
            for room in pinned:
                room.subscribers.add(subscriber)
            person.subscribers[subscriber] = set(pinned)
        finally:
            # After a success none of this waits: the rooms are not empty, and the person is here.
            person.connecting.pop(subscriber, None)
            await self._unpin(pinned)
            await self._forget_if_gone(subscriber.user_id)
        for invitation in waiting:
            self._invite(invitation)

    async def detach(self, subscriber: Subscriber) -> None:
        """Take a socket out of everything."""
        person = self._people.get(subscriber.user_id)
        if person is None or subscriber not in person.subscribers:
            return
        left = person.subscribers.pop(subscriber)
        for room in left:
            room.subscribers.discard(subscriber)
        await self._drop_empty(left)
        await self._forget_if_gone(subscriber.user_id)

    # News comes in, from use-cases after their commit and from other pods.

    def announce(self, change: Change) -> None:
        """Deliver a committed change here and tell the other pods."""
        self._receive(change)
        payload = b"%d %b %b" % (change.seq, change.event.name.encode(), change.event.data)
        self._bus.publish(_CONVERSATION_CHANNEL + change.conversation_id.hex, payload)

    def announce_to(self, user_ids: Iterable[str], conversation_id: UUID, seq: int, event: Event) -> None:
        """Tell users, wherever their sockets are, that they are in a conversation which stands at `seq`."""
        payload = b"%b %b %d %b %b" % (
            self._pod,
            conversation_id.hex.encode(),
            seq,
            event.name.encode(),
            event.data,
        )
        for user_id in user_ids:
            self._invite(_Invitation(user_id, conversation_id, seq, event))
            self._bus.publish(_USER_CHANNEL + user_id, payload)

    def _on_message(self, channel: str, payload: bytes) -> None:
        if channel.startswith(_CONVERSATION_CHANNEL):
            seq, name, data = payload.split(b" ", 2)
            conversation_id = UUID(hex=channel.removeprefix(_CONVERSATION_CHANNEL))
            self._receive(Change(conversation_id, int(seq), Event(name.decode(), data)))
        elif channel.startswith(_USER_CHANNEL):
            pod, conversation, seq, name, data = payload.split(b" ", 4)
            if pod != self._pod:
                user_id = channel.removeprefix(_USER_CHANNEL)
                event = Event(name.decode(), data)
                self._invite(_Invitation(user_id, UUID(hex=conversation.decode()), int(seq), event))

    def _receive(self, change: Change) -> None:
        room = self._rooms.get(change.conversation_id)
        if room is None or (room.delivered is not None and change.seq <= room.delivered):
            return
        room.held[change.seq] = change.event
        if room.delivered is not None:
            self._deliver(room, room.delivered)

    def _deliver(self, room: _Room, delivered: int) -> None:
        """Send all that follows `delivered` without a hole; mark the hole where there is one."""
        while (event := room.held.pop(delivered + 1, None)) is not None:
            delivered += 1
            frame = self._encode(event)
            for subscriber in room.subscribers:
                subscriber.deliver(frame)
        room.delivered = delivered
        if room.held:
            self._mark(room.conversation_id)

    def _mark(self, conversation_id: UUID) -> None:
        self._holes.add(conversation_id)
        self._hole_found.set()

    # Rooms come and go.

    def _pin(self, conversation_ids: Iterable[UUID]) -> list[_Room]:
        rooms = [
            self._rooms.setdefault(conversation_id, _Room(conversation_id)) for conversation_id in conversation_ids
        ]
        for room in rooms:
            room.pins += 1
        return rooms

    async def _unpin(self, rooms: list[_Room]) -> None:
        for room in rooms:
            room.pins -= 1
        await self._drop_empty(rooms)

    async def _follow(self, rooms: list[_Room]) -> None:
        """Make rooms LIVE: subscribed first, and only then is `last_seq` read, so that nothing falls between."""
        fresh = [room for room in rooms if room.delivered is None]
        if not fresh:
            return
        await self._bus.subscribe([_CONVERSATION_CHANNEL + room.conversation_id.hex for room in fresh])
        last_seqs = await store.last_seqs([room.conversation_id for room in fresh])
        for room in fresh:
            # Another socket that waited for the same room may have been faster.
            if room.delivered is None:
                delivered = last_seqs.get(room.conversation_id, 0)
                room.held = {seq: event for seq, event in room.held.items() if seq > delivered}
                self._deliver(room, delivered)

    async def _drop_empty(self, rooms: Iterable[_Room]) -> None:
        empty = [room for room in rooms if not room.subscribers and not room.pins]
        for room in empty:
            self._rooms.pop(room.conversation_id, None)
        if empty:
            await self._bus.unsubscribe([_CONVERSATION_CHANNEL + room.conversation_id.hex for room in empty])

    async def _forget_if_gone(self, user_id: str) -> None:
        person = self._people.get(user_id)
        if person is not None and not person.subscribers and not person.connecting:
            del self._people[user_id]
            await self._bus.unsubscribe([_USER_CHANNEL + user_id])

    # People enter conversations while they are connected.

    def _invite(self, invitation: _Invitation) -> None:
        person = self._people.get(invitation.user_id)
        if person is None:
            return
        for waiting in person.connecting.values():
            waiting.append(invitation)
        if person.subscribers:
            try:
                self._invitations.put_nowait(invitation)
            except asyncio.QueueFull:
                _log.error("too many new conversations at once: some sockets learn of theirs when they reconnect")

    async def admit_forever(self) -> None:
        """Let people into the conversations that they were added to, one after the other."""
        while True:
            invitation = await self._invitations.get()
            await self._admit(invitation)

    async def _admit(self, invitation: _Invitation) -> None:
        pinned = self._pin([invitation.conversation_id])
        room = pinned[0]
        try:
            await self._follow(pinned)
            person = self._people.get(invitation.user_id)
            new = {who for who in (person.subscribers if person else ()) if who not in room.subscribers}
            frame = self._encode(invitation.event)
            for subscriber in new:
                subscriber.deliver(frame)
            await self._catch_up(room, invitation.seq, new)
            for subscriber in new:
                if person is not None and subscriber in person.subscribers:
                    room.subscribers.add(subscriber)
                    person.subscribers[subscriber].add(room)
        finally:
            await self._unpin(pinned)

    async def _catch_up(self, room: _Room, position: int, subscribers: Collection[Subscriber]) -> None:
        """Bring subscribers from `position` to where the room is; returns without an await in between."""
        while subscribers and room.delivered is not None and position < room.delivered:
            for row in await store.missed({room.conversation_id: position}, REPAIR_BATCH):
                if row["seq"] > room.delivered:
                    break
                change = events.message_new(row["conversation_id"], views.message(row))
                frame = self._encode(change.event)
                for subscriber in subscribers:
                    subscriber.deliver(frame)
                position = change.seq

    # What Redis lost is found in PostgreSQL.

    async def repair_forever(self) -> None:
        """Fill the holes of all rooms, a moment after they were found: most fill by themselves."""
        while True:
            await self._hole_found.wait()
            await asyncio.sleep(HOLE_PATIENCE)
            self._hole_found.clear()
            await self._repair()

    async def _repair(self) -> None:
        holes, self._holes = self._holes, set()
        delivered = {
            conversation_id: room.delivered
            for conversation_id in holes
            if (room := self._rooms.get(conversation_id)) is not None and room.delivered is not None
        }
        try:
            rows = await store.missed(delivered, REPAIR_BATCH) if delivered else []
        except Exception:
            self._holes |= holes
            self._hole_found.set()
            raise
        counts: dict[UUID, int] = {}
        for row in rows:
            change = events.message_new(row["conversation_id"], views.message(row))
            counts[change.conversation_id] = counts.get(change.conversation_id, 0) + 1
            self._receive(change)
        for conversation_id, count in counts.items():
            if count == REPAIR_BATCH:
                self._mark(conversation_id)

    async def look_forever(self) -> None:
        """Look in PostgreSQL, from time to time, for what was committed since the last look."""
        while True:
            await self._look()
            interval = LOOK_INTERVAL if self._bus.is_up else LOOK_INTERVAL_IN_DOUBT
            try:
                async with asyncio.timeout(interval):
                    await self._look_now.wait()
            except TimeoutError:
                pass
            self._look_now.clear()

    async def _look(self) -> None:
        # The horizon is taken before the rows are read: what commits in between is seen twice, never missed.
        horizon = await store.horizon()
        if self._horizon is not None:
            for conversation_id, last_seq in (await store.committed_since(self._horizon)).items():
                room = self._rooms.get(conversation_id)
                if room is not None and room.delivered is not None and room.delivered < last_seq:
                    self._mark(conversation_id)
        self._horizon = horizon
