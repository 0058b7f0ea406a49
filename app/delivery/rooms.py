"""Rooms: the conversations that this pod follows, their subscribers, and the writes to those; nothing here waits.

    (absent) ── first socket ──▶ FOLLOWING ── subscribed, last_seq read ──▶ LIVE ── last socket gone ──▶ (absent)
                                                                             │
                                                          deleted ──▶ CLOSED ┘ nobody enters any more

What a room is sent within one tick of the loop is written together; it is written before anybody enters or leaves,
so that all receive just what is theirs. In which order changes come into a room is the matter of `streams`.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

from app.contract import events
from app.contract.events import Change, Event
from app.observability import metrics


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

    def expel(self, until: int, deleted_at: float) -> None:
        """End the connection for good where its token was issued up to a second, or shown before a time.

        Its user was deleted then.
        """

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


class Joining:
    """A user who enters a room exactly where its stream stands at the seq of their invitation.

    While that is read, `invitation` is None, and what is delivered meanwhile is kept.
    """

    __slots__ = ("invitation", "kept", "kept_bytes", "user_id")

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.invitation: Invitation | None = None
        self.kept: list[Change] = []
        self.kept_bytes = 0


class Room:
    """A conversation that this pod follows."""

    __slots__ = (
        "buffered",
        "committed",
        "conversation_id",
        "delivered",
        "is_closed",
        "joining",
        "known",
        "live_since",
        "pending",
        "pins",
        "subscribers",
    )

    def __init__(self, conversation_id: UUID) -> None:
        self.conversation_id = conversation_id
        # None while FOLLOWING.
        self.delivered: int | None = None
        # The highest seq of which this pod knows that it is committed: above `delivered` there is a gap.
        self.known = 0
        # When it became LIVE, on the clock of `Rooms`.
        self.live_since = 0
        # What is committed and cannot be delivered yet, or a part of that.
        self.buffered: dict[int, Change] = {}
        self.subscribers: dict[Subscriber, Link] = {}
        self.joining: dict[str, Joining] = {}
        # Delivered in this tick of the loop, and not written yet.
        self.pending: list[Frame] = []
        # When the changes among these were committed.
        self.committed: list[float] = []
        # How many sockets are on their way in: a room that they wait for must not go away.
        self.pins = 0
        # Its conversation was deleted.
        self.is_closed = False

    @property
    def is_empty(self) -> bool:
        return not self.subscribers and not self.pins and not self.joining


class Connecting:
    """What happened to a user while a socket of theirs was on its way in."""

    __slots__ = ("changed", "deleted_at", "must_restart", "refused_until")

    def __init__(self) -> None:
        # Where they were added or removed: whether they are in must be read anew.
        self.changed: set[UUID] = set()
        # Of a user who was deleted: the last second whose tokens are refused.
        self.refused_until = -1
        # When that was, in seconds since 1970: it is no matter what a token says that was shown before.
        self.deleted_at = 0.0
        # Something of theirs could not be done: they must come back.
        self.must_restart = False


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
    """All rooms and people of this pod; `encode` turns an event into the frame that they send."""

    def __init__(self, encode: Callable[[Event], Frame]) -> None:
        self._encode = encode
        # The rooms with something to write.
        self._pending: list[Room] = []
        self.rooms: dict[UUID, Room] = {}
        self.people: dict[str, Person] = {}
        # How many rooms have become LIVE.
        self.clock = 0
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
            self.note_if_empty(room)

    def drop_empty(self) -> list[Room]:
        """Forget the rooms in which nobody has been since this was last called; gives them."""
        lingering, self._lingering, self._emptied = self._lingering - self._emptied, self._emptied, set()
        # One that was closed is no more among them, and may have come again.
        dropped = [
            room for room in lingering if room.is_empty and self.rooms.get(room.conversation_id, room) is room
        ]
        for room in dropped:
            self.rooms.pop(room.conversation_id, None)
        return dropped

    def note_if_empty(self, room: Room) -> None:
        if room.is_empty:
            self._emptied.add(room)

    def enter(self, subscriber: Subscriber, room: Room) -> None:
        person = self.people.get(subscriber.user_id)
        if person is not None and subscriber in person.subscribers and not room.is_closed:
            # What was delivered before is not for this one.
            self._write(room)
            room.subscribers[subscriber] = subscriber.link
            person.subscribers[subscriber].add(room)

    def leave(self, subscriber: Subscriber) -> None:
        """Take a socket out of everything."""
        person = self.people.get(subscriber.user_id)
        for room in person.subscribers.pop(subscriber, set()) if person else ():
            room.subscribers.pop(subscriber, None)
            self.note_if_empty(room)

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
            connecting.changed.add(room.conversation_id)
        self.note_if_empty(room)

    def outside(self, user_id: str, conversation_id: UUID) -> list[Subscriber]:
        """List the sockets of a user that are not in a conversation."""
        person, room = self.people.get(user_id), self.rooms.get(conversation_id)
        inside = room.subscribers if room else {}
        return [subscriber for subscriber in person.subscribers if subscriber not in inside] if person else []

    def close(self, room: Room) -> None:
        """Take everybody out of a room whose conversation was deleted, also those who are on their way in."""
        self._write(room)
        for subscriber in room.subscribers:
            self.people[subscriber.user_id].subscribers[subscriber].discard(room)
        room.subscribers.clear()
        room.joining.clear()
        room.is_closed = True
        if self.rooms.get(room.conversation_id) is room:
            del self.rooms[room.conversation_id]
        self.note_if_empty(room)

    def restart(self, user_id: str) -> None:
        """Have all sockets of a user come back and load afresh, also those that are on their way in."""
        person = self.people.get(user_id)
        if person is None:
            return
        for connecting in person.connecting.values():
            connecting.must_restart = True
        for subscriber in list(person.subscribers):
            subscriber.reconnect()

    # What they receive

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
