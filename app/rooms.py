"""The conversations that this pod follows, and who hears them: state alone, nothing here waits.

    (absent) ── first socket ──▶ FOLLOWING ── subscribed, last_seq read ──▶ LIVE ── last socket gone ──▶ (absent)

    LIVE, a change arrives:   seq = delivered + 1   out to the room, then what was held behind it
                              seq > delivered + 1   held; the hole is read from PostgreSQL soon
                              seq ≤ delivered       dropped: it was delivered already

`participant:removed` is the last that the sockets of the one who goes get. What a room is sent within one tick of
the loop is written together; it is written before anybody enters or leaves, so that all hear just what is theirs.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

from app import events, metrics
from app.events import Change, Event


class Frame(NamedTuple):
    """An event, written once for all sockets: the packet for those that poll, and the bytes for WebSockets."""

    packet: bytes
    wire: bytes


class Link(Protocol):
    """What carries frames to a client; nothing of it blocks or raises."""

    # Takes frames, joined or not; None while the client polls.
    write: Callable[[bytes], None] | None

    def push(self, sent: Frame) -> None:
        """Send a frame, however the client is connected."""

    def enqueue(self, frames: Iterable[Frame]) -> None:
        """Keep frames for the next poll."""

    @property
    def is_behind(self) -> bool:
        """Whether the client does not keep up: what is of use only now is not sent to it."""


class Subscriber(Protocol):
    """One socket, as far as delivery knows it; nothing of it blocks or raises."""

    user_id: str

    @property
    def link(self) -> Link: ...

    @property
    def socket_id(self) -> str: ...

    def expel(self, until: int) -> None:
        """End the connection for good where its token was issued up to a second: its user was deleted then."""

    def evict(self) -> None:
        """Tell the client that its user has too many sockets, and end the connection for good."""

    def reconnect(self) -> None:
        """Close the transport: the client comes back by itself and loads afresh."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """That a user is now in a conversation, which stood at `seq` when its `event` was written."""

    user_id: str
    conversation_id: UUID
    seq: int
    event: Event


class Room:
    """A conversation that this pod follows."""

    __slots__ = ("committed", "conversation_id", "delivered", "held", "pending", "pins", "subscribers")

    def __init__(self, conversation_id: UUID) -> None:
        self.conversation_id = conversation_id
        # None while FOLLOWING.
        self.delivered: int | None = None
        self.held: dict[int, Change] = {}
        self.subscribers: dict[Subscriber, Link] = {}
        # Delivered in this tick of the loop, and not written yet.
        self.pending: list[Frame] = []
        # When the changes among these were committed.
        self.committed: list[float] = []
        # How many sockets are on their way in: a room that they wait for must not go away.
        self.pins = 0

    @property
    def is_empty(self) -> bool:
        return not self.subscribers and not self.pins


class Connecting:
    """What a socket must be told of that happened while it was on its way in."""

    __slots__ = ("departures", "invitations", "refused_until")

    def __init__(self) -> None:
        self.invitations: list[Invitation] = []
        self.departures: set[UUID] = set()
        # Of a user who was deleted: the last second whose tokens are refused.
        self.refused_until = -1


class Person:
    """A user with sockets on this pod."""

    __slots__ = ("connecting", "subscribers")

    def __init__(self) -> None:
        self.subscribers: dict[Subscriber, set[Room]] = {}
        self.connecting: dict[Subscriber, Connecting] = {}

    @property
    def is_gone(self) -> bool:
        return not self.subscribers and not self.connecting


class Rooms:
    """All rooms and people of this pod; `on_hole` is told of a room that waits for a change it has not got."""

    on_hole: Callable[[UUID], None]

    def __init__(self, encode: Callable[[Event], Frame]) -> None:
        self._encode = encode
        # The rooms with something to write.
        self._pending: list[Room] = []
        self.rooms: dict[UUID, Room] = {}
        self.people: dict[str, Person] = {}
        # Rooms that have become empty since `drop_empty` was last called, and between the two calls before.
        self._emptied: set[Room] = set()
        self._lingering: set[Room] = set()

    # Who is where

    def pin(self, conversation_ids: Iterable[UUID]) -> list[Room]:
        """Give the rooms, made where they are absent, and keep them until they are unpinned."""
        rooms = [self.rooms.setdefault(found, Room(found)) for found in conversation_ids]
        for room in rooms:
            room.pins += 1
        return rooms

    def unpin(self, rooms: Iterable[Room]) -> None:
        for room in rooms:
            room.pins -= 1
            self._note_if_empty(room)

    def drop_empty(self) -> list[Room]:
        """Forget the rooms in which nobody has been since this was last called; gives them."""
        lingering, self._lingering, self._emptied = self._lingering - self._emptied, self._emptied, set()
        dropped = [room for room in lingering if room.is_empty and self.rooms.get(room.conversation_id) is room]
        for room in dropped:
            del self.rooms[room.conversation_id]
        return dropped

    def _note_if_empty(self, room: Room) -> None:
        if room.is_empty:
            self._emptied.add(room)

    def enter(self, subscriber: Subscriber, room: Room) -> None:
        person = self.people.get(subscriber.user_id)
        if person is not None and subscriber in person.subscribers:
            # What was delivered before is not for this one.
            self._write(room)
            room.subscribers[subscriber] = subscriber.link
            person.subscribers[subscriber].add(room)

    def leave(self, subscriber: Subscriber) -> None:
        """Take a socket out of everything."""
        person = self.people.get(subscriber.user_id)
        for room in person.subscribers.pop(subscriber, set()) if person else ():
            room.subscribers.pop(subscriber, None)
            self._note_if_empty(room)

    def dismiss(self, user_id: str, room: Room) -> None:
        """Take all sockets of a user out of a room, also those that are on their way in."""
        person = self.people.get(user_id)
        if person is None:
            return
        self._write(room)
        for subscriber, rooms in person.subscribers.items():
            rooms.discard(room)
            room.subscribers.pop(subscriber, None)
        for connecting in person.connecting.values():
            connecting.departures.add(room.conversation_id)
        self._note_if_empty(room)

    def close(self, room: Room) -> None:
        """Take everybody out of a room."""
        for user_id in {subscriber.user_id for subscriber in room.subscribers}:
            self.dismiss(user_id, room)

    # What they hear

    def receive(self, change: Change) -> None:
        """Take in a committed change, from here or from another pod, as often and in whatever order it comes."""
        room = self.rooms.get(change.conversation_id)
        if room is None or (room.delivered is not None and change.seq <= room.delivered):
            return
        room.held[change.seq] = change
        if room.delivered is not None:
            self.go_live(room, room.delivered)

    def go_live(self, room: Room, delivered: int) -> None:
        """Send all that follows `delivered` without a hole, and tell of the hole where there is one."""
        for seq in [seq for seq in room.held if seq <= delivered]:
            del room.held[seq]
        while (change := room.held.pop(delivered + 1, None)) is not None:
            delivered += 1
            room.delivered = delivered
            self.broadcast(room, change.event)
            if change.committed and room.subscribers:
                room.committed.append(change.committed)
            leaver = events.removed_user(change.event)
            if leaver is not None:
                self.dismiss(leaver, room)
        room.delivered = delivered
        if room.held:
            self.on_hole(room.conversation_id)

    def broadcast(self, room: Room, event: Event) -> None:
        """Send an event to all in a room, at the end of this tick and together with what follows in it."""
        if not room.subscribers:
            return
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._write_pending)
        if not room.pending:
            self._pending.append(room)
        room.pending.append(self._encode(event))
        metrics.of(metrics.DELIVERIES, event.name).inc(len(room.subscribers))

    def _write_pending(self) -> None:
        pending, self._pending = self._pending, []
        for room in pending:
            self._write(room)

    @staticmethod
    def _write(room: Room) -> None:
        """Write what is pending in a room: one write for each socket, whatever came together."""
        frames = room.pending
        if not frames:
            return
        room.pending = []
        joined = frames[0].wire if len(frames) == 1 else b"".join([frame.wire for frame in frames])
        for link in room.subscribers.values():
            if link.write is None:
                link.enqueue(frames)
            else:
                link.write(joined)
        now = time.time()
        for committed in room.committed:
            # Another pod's clock may be ahead.
            metrics.DELIVERY_SECONDS.observe(max(0.0, now - committed))
        room.committed.clear()

    def send(self, subscribers: Iterable[Subscriber], event: Event) -> None:
        """Send an event to sockets at once, encoded once."""
        frame = self._encode(event)
        is_fleeting = event.name in events.FLEETING
        sent = 0
        for subscriber in subscribers:
            if not (is_fleeting and subscriber.link.is_behind):
                subscriber.link.push(frame)
                sent += 1
        metrics.of(metrics.DELIVERIES, event.name).inc(sent)
