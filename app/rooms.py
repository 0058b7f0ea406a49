"""The conversations that this pod follows, and who hears them: state alone, nothing here waits.

    (absent) ── first socket ──▶ FOLLOWING ── subscribed, last_seq read ──▶ LIVE ── last socket gone ──▶ (absent)

    LIVE, a change arrives:   seq = delivered + 1   out to the room, then what was held behind it
                              seq > delivered + 1   held; the hole is read from PostgreSQL soon
                              seq ≤ delivered       dropped: it was delivered already

`participant:removed` is the last that the sockets of the one who goes get.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from app import events
from app.events import Change, Event


class Subscriber(Protocol):
    """One socket, as far as delivery knows it; nothing of it blocks or raises."""

    @property
    def user_id(self) -> str: ...

    @property
    def socket_id(self) -> str: ...

    def deliver(self, frame: str) -> None:
        """Queue a frame for the client."""

    def deliver_if_idle(self, frame: str) -> None:
        """Queue a frame that is of use only now, unless the client is behind."""

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

    __slots__ = ("conversation_id", "delivered", "held", "pins", "subscribers")

    def __init__(self, conversation_id: UUID) -> None:
        self.conversation_id = conversation_id
        # None while FOLLOWING.
        self.delivered: int | None = None
        self.held: dict[int, Event] = {}
        self.subscribers: set[Subscriber] = set()
        # How many sockets are on their way in: a room that they wait for must not go away.
        self.pins = 0

    @property
    def is_empty(self) -> bool:
        return not self.subscribers and not self.pins


class Connecting:
    """What a socket must be told of that happened while it was on its way in."""

    __slots__ = ("departures", "invitations", "is_expelled")

    def __init__(self) -> None:
        self.invitations: list[Invitation] = []
        self.departures: set[UUID] = set()
        self.is_expelled = False


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

    def __init__(self, encode: Callable[[Event], str]) -> None:
        self._encode = encode
        self.rooms: dict[UUID, Room] = {}
        self.people: dict[str, Person] = {}
        self._emptied: set[Room] = set()

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
        """Forget the rooms that have become empty and still are; gives them."""
        noted, self._emptied = self._emptied, set()
        dropped = [room for room in noted if room.is_empty and self.rooms.get(room.conversation_id) is room]
        for room in dropped:
            del self.rooms[room.conversation_id]
        return dropped

    def _note_if_empty(self, room: Room) -> None:
        if room.is_empty:
            self._emptied.add(room)

    def enter(self, subscriber: Subscriber, room: Room) -> None:
        person = self.people.get(subscriber.user_id)
        if person is not None and subscriber in person.subscribers:
            room.subscribers.add(subscriber)
            person.subscribers[subscriber].add(room)

    def leave(self, subscriber: Subscriber) -> None:
        """Take a socket out of everything."""
        person = self.people.get(subscriber.user_id)
        for room in person.subscribers.pop(subscriber, set()) if person else ():
            room.subscribers.discard(subscriber)
            self._note_if_empty(room)

    def dismiss(self, user_id: str, room: Room) -> None:
        """Take all sockets of a user out of a room, also those that are on their way in."""
        person = self.people.get(user_id)
        if person is None:
            return
        for subscriber, rooms in person.subscribers.items():
            rooms.discard(room)
            room.subscribers.discard(subscriber)
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
        room.held[change.seq] = change.event
        if room.delivered is not None:
            self.go_live(room, room.delivered)

    def go_live(self, room: Room, delivered: int) -> None:
        """Send all that follows `delivered` without a hole, and tell of the hole where there is one."""
        for seq in [seq for seq in room.held if seq <= delivered]:
            del room.held[seq]
        while (event := room.held.pop(delivered + 1, None)) is not None:
            delivered += 1
            room.delivered = delivered
            self.send(room.subscribers, event)
            leaver = events.removed_user(event)
            if leaver is not None:
                self.dismiss(leaver, room)
        room.delivered = delivered
        if room.held:
            self.on_hole(room.conversation_id)

    def send(self, subscribers: Iterable[Subscriber], event: Event) -> None:
        """Send an event to sockets, encoded once."""
        frame = self._encode(event)
        if event.name in events.FLEETING:
            for subscriber in subscribers:
                subscriber.deliver_if_idle(frame)
        else:
            for subscriber in subscribers:
                subscriber.deliver(frame)
