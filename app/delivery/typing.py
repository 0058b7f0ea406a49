"""Typing indicators: of this pod, over all sockets of each user, and of all pods together.

A pod publishes `true` when the first of a user's sockets there starts, again every 3 s while one goes on, and
`false` when the last one has stopped. Each pod keeps which pods say so of whom, and sends its sockets when the
first one begins and when the last one ends. What is not renewed lapses: everybody gets the end, whatever is lost.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID

from app.contract import events
from app.contract.events import Event

# What a client started lapses by itself.
LAPSE = 6.0
# A start that goes on is published again.
RENEWAL = 3.0
# A pod that did not renew it has died, or Redis has lost the end: two renewals and some delay.
EXPIRY = 6.5
MAX_TYPISTS = 100_000

_Typist = tuple[UUID, str]


class Typists:
    """Who types in which conversation, as pods publish it; `show` is called where that changes."""

    def __init__(self, show: Callable[[UUID, str, Event], None]) -> None:
        self._show = show
        # When each saying lapses, in that order: all last equally long.
        self._ends: dict[tuple[_Typist, bytes], float] = {}
        self._origins: dict[_Typist, set[bytes]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def receive(self, conversation_id: UUID, user_id: str, origin: bytes, *, is_typing: bool) -> None:
        """Receive the state of a user from a pod."""
        typist = (conversation_id, user_id)
        if is_typing:
            self._begin(typist, origin)
        else:
            self._end(typist, origin)

    def _begin(self, typist: _Typist, origin: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._ends.pop((typist, origin), None)
        self._ends[typist, origin] = loop.time() + EXPIRY
        origins = self._origins.setdefault(typist, set())
        is_first = not origins
        origins.add(origin)
        if self._timer is None:
            self._timer = loop.call_later(EXPIRY, self._lapse)
        if is_first:
            self._show(*typist, _event(typist, is_typing=True))
        if len(self._ends) > MAX_TYPISTS:
            self._end(*next(iter(self._ends)))

    def _end(self, typist: _Typist, origin: bytes) -> None:
        if self._ends.pop((typist, origin), None) is None:
            return
        origins = self._origins[typist]
        origins.remove(origin)
        if not origins:
            del self._origins[typist]
            self._show(*typist, _event(typist, is_typing=False))

    def _lapse(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for (typist, origin), end in list(self._ends.items()):
            if end > loop.time():
                self._timer = loop.call_at(end, self._lapse)
                break
            self._end(typist, origin)


class _Started:
    """The sockets of one user that type in one conversation, by when each lapses."""

    __slots__ = ("lapses", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.lapses: dict[object, float] = {}
        self.timer = timer


class LocalTypists:
    """Who types on this pod; `publish_to_room` sends to everybody in a conversation, on all pods."""

    def __init__(self, publish_to_room: Callable[[UUID, Event], None]) -> None:
        self._publish_to_room = publish_to_room
        self._started: dict[_Typist, _Started] = {}

    def start(self, conversation_id: UUID, user_id: str, socket: object) -> None:
        """Note that a user types on a socket, for the next 6 s."""
        typist = (conversation_id, user_id)
        loop = asyncio.get_running_loop()
        started = self._started.get(typist)
        if started is None:
            started = self._started[typist] = _Started(loop.call_later(RENEWAL, self._go_on, typist))
            self._publish(typist, is_typing=True)
        started.lapses[socket] = loop.time() + LAPSE

    def stop(self, conversation_id: UUID, user_id: str, socket: object) -> None:
        """Note that a user does not type on a socket any more; nothing happens where they did not."""
        typist = (conversation_id, user_id)
        started = self._started.get(typist)
        if started is not None and started.lapses.pop(socket, None) is not None and not started.lapses:
            started.timer.cancel()
            del self._started[typist]
            self._publish(typist, is_typing=False)

    def is_typing(self, conversation_id: UUID, user_id: str, socket: object) -> bool:
        """Whether a user types on a socket."""
        started = self._started.get((conversation_id, user_id))
        return started is not None and socket in started.lapses

    def _go_on(self, typist: _Typist) -> None:
        """Publish it again while a socket goes on, and the end when the last one has lapsed."""
        loop = asyncio.get_running_loop()
        started = self._started[typist]
        now = loop.time()
        for socket in [socket for socket, lapse in started.lapses.items() if lapse <= now]:
            del started.lapses[socket]
        if started.lapses:
            started.timer = loop.call_at(min(now + RENEWAL, max(started.lapses.values())), self._go_on, typist)
            self._publish(typist, is_typing=True)
        else:
            del self._started[typist]
            self._publish(typist, is_typing=False)

    def _publish(self, typist: _Typist, *, is_typing: bool) -> None:
        self._publish_to_room(typist[0], _event(typist, is_typing=is_typing))


def _event(typist: _Typist, *, is_typing: bool) -> Event:
    return events.user_typing(*typist, is_typing=is_typing)
