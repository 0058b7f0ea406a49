"""The queue of presence changes that this pod is to announce, each kept until it was.

(decided) ──▶ waiting ── taken ──▶ in hand ── announced ──▶ (forgotten)
                 ▲─────── failed ─────┘
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

# Past this the oldest are dropped here: Redis gives them again, to any pod.
MAX_CHANGES = 100_000


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """That a user came or went; `number` grows with each change of that user.

    `traceparent` is the place in a trace at which they came; that they went is found out outside of any.
    """

    user_id: str
    is_online: bool
    number: int
    traceparent: str | None = None


class PresenceChanges:
    """A queue that holds the newest change of each user."""

    def __init__(self) -> None:
        self._waiting: dict[str, PresenceChange] = {}
        self._in_hand: dict[str, PresenceChange] = {}
        self._ready = asyncio.Event()

    def add(self, change: PresenceChange) -> None:
        """Queue a change, unless it or a newer one of that user is here."""
        if change.number <= max(_number(self._waiting, change), _number(self._in_hand, change)):
            return
        self._waiting.pop(change.user_id, None)
        self._waiting[change.user_id] = change
        if len(self._waiting) > MAX_CHANGES:
            del self._waiting[next(iter(self._waiting))]
        self._ready.set()

    async def next(self, most: int) -> list[PresenceChange]:
        """Wait for changes, and take so many at most in hand, the oldest first."""
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        return self.take(most)

    def take(self, most: int) -> list[PresenceChange]:
        """Take so many at most in hand."""
        taken = [self._waiting.pop(user_id) for user_id in list(self._waiting)[:most]]
        self._in_hand.update((change.user_id, change) for change in taken)
        return taken

    def is_newest(self, change: PresenceChange) -> bool:
        """Whether a change that was taken is still the newest of its user."""
        return self._in_hand.get(change.user_id) is change

    def done(self, changes: Iterable[PresenceChange]) -> None:
        """Forget changes that were announced."""
        for change in changes:
            if self.is_newest(change):
                del self._in_hand[change.user_id]

    def put_back(self, changes: Iterable[PresenceChange]) -> None:
        """Queue changes again that could not be announced, behind the others."""
        for change in changes:
            if self.is_newest(change):
                del self._in_hand[change.user_id]
                self.add(change)

    def users(self, most: int) -> list[str]:
        """List users, so many at most, whose changes are here."""
        return [*self._in_hand, *self._waiting][:most]


def _number(changes: dict[str, PresenceChange], change: PresenceChange) -> int:
    found = changes.get(change.user_id)
    return found.number if found else 0
