"""Limits of the HTTP connections of a listener and of the bytes that they hold: the longest idle is evicted first.

Clients that open connections, or bodies, and leave them idle lose them to clients that go on at once.
"""

from collections.abc import Callable
from typing import Protocol

from app.observability import metrics

# What may be held of requests that are not complete, or not answered, over all connections.
MAX_HELD_BYTES = 32 << 20


class Holder(Protocol):
    """A connection, as far as its place and its bytes are concerned."""

    def evict(self) -> None:
        """Close at once."""


class Connections:
    """All connections of a listener that speak HTTP, or have not spoken yet; `kind` is what metrics call them."""

    def __init__(
        self, most: Callable[[], int], kind: str = "connection", max_held_bytes: int = MAX_HELD_BYTES
    ) -> None:
        # Gives how many there may be now.
        self._most = most
        self._kind = kind
        self._max_held_bytes = max_held_bytes
        self._all: set[Holder] = set()
        # Those that have no complete request, the longest first.
        self._waiting: dict[Holder, None] = {}
        # What each holds, the first to hold something first.
        self._held: dict[Holder, int] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, one: Holder) -> bool:
        """Take in a connection, evicting one that waits where the limit is reached; False where none waits."""
        if len(self._all) >= self._most() and not self.make_room():
            return False
        self._all.add(one)
        self._waiting[one] = None
        return True

    def make_room(self) -> bool:
        """End the connection that has waited for a request for the longest; False where none waits."""
        oldest = next(iter(self._waiting), None)
        if oldest is None:
            metrics.of(metrics.REFUSED, self._kind).inc()
            return False
        self._evict(oldest, self._kind)
        return True

    def wait(self, one: Holder) -> None:
        """Note that a connection has nothing to be answered."""
        if one in self._all:
            self._waiting[one] = None

    def finish(self, one: Holder) -> None:
        """Know that a connection has answered all that it read: it holds nothing, and waits."""
        self._held_bytes -= self._held.pop(one, 0)
        if one in self._all:
            self._waiting[one] = None

    def work(self, one: Holder) -> None:
        """Note that a connection has a request that is being answered."""
        self._waiting.pop(one, None)

    def leave(self, one: Holder) -> None:
        self._all.discard(one)
        self._waiting.pop(one, None)

    def hold(self, one: Holder, size: int) -> bool:
        """Count bytes that a connection holds, where need be at the cost of others that have read for longer.

        False where that is not enough.
        """
        self._held[one] = self._held.get(one, 0) + size
        self._held_bytes += size
        if self._held_bytes <= self._max_held_bytes:
            return True
        for other in list(self._held):
            if other is not one and other in self._waiting:
                self._evict(other, "body")
                if self._held_bytes <= self._max_held_bytes:
                    return True
        metrics.of(metrics.REFUSED, "body").inc()
        return False

    def release(self, one: Holder) -> None:
        """Note that a connection holds nothing any more."""
        self._held_bytes -= self._held.pop(one, 0)

    def _evict(self, one: Holder, reason: str) -> None:
        metrics.of(metrics.REFUSED, reason).inc()
        self.leave(one)
        self.release(one)
        one.evict()

    def close(self) -> None:
        """End all."""
        for one in list(self._all):
            one.evict()
