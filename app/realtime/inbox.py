"""What a client sent, handled in order, and the acknowledgements, in the same order.

put ──▶ waiting ── its turn ──▶ handled ──▶ acknowledged
                                   └── handed to the writer: the next one's turn ──▶ acknowledged
"""

import asyncio
from collections.abc import Callable

from app.realtime.packets import acknowledgement
from app.rooms import Frame

# Past so many a client is not read from until all are handled.
MAX_WAITING = 256
# What of one socket may be with the writer at the same time.
MAX_WITH_WRITER = 64


class Reply:
    """The place of one acknowledgement among those of its socket; `number` is what the client wants it under."""

    __slots__ = ("answer", "number")

    def __init__(self, number: str) -> None:
        # Empty where the client wants none.
        self.number = number
        # JSON, once it is there.
        self.answer: bytes | None = None

    def is_there(self) -> bool:
        return self.answer is not None


class Inbox:
    """The messages of one socket that wait for their turn, and the acknowledgements that are still to come."""

    __slots__ = ("_moved", "_push", "_replies", "_waiting", "is_busy", "is_last")

    def __init__(self, push: Callable[[Frame], None]) -> None:
        self._push = push
        # Both are short: a list takes less memory than a deque.
        self._waiting: list[str | bytes] = []
        self._replies: list[Reply] = []
        # What waits for a reply.
        self._moved: asyncio.Future[None] | None = None
        # Whether somebody takes messages out.
        self.is_busy = False
        # Whether the session ends once all is handled.
        self.is_last = False

    @property
    def is_settled(self) -> bool:
        """Whether all that was handled is acknowledged."""
        return not self._replies

    @property
    def has_room(self) -> bool:
        """Whether one more may be with the writer."""
        return len(self._replies) < MAX_WITH_WRITER

    @property
    def is_empty(self) -> bool:
        return not self._waiting and not self._replies

    def put(self, message: str | bytes) -> bool:
        """Add a message; True where too many wait."""
        self._waiting.append(message)
        return len(self._waiting) > MAX_WAITING

    async def next(self) -> str | bytes | None:
        """Give the message whose turn it is, None where there is none."""
        await self.make_room()
        return self._waiting.pop(0) if self._waiting else None

    async def make_room(self) -> None:
        """Wait until one more may be with the writer."""
        while not self.has_room:
            await self._move()

    async def settle(self) -> None:
        """Wait until all that was handled is acknowledged."""
        while self._replies:
            await self._move()

    async def _move(self) -> None:
        if self._moved is None:
            self._moved = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._moved])

    def expect(self, reply: Reply) -> None:
        """Keep the place of an acknowledgement."""
        self._replies.append(reply)

    def answer(self, reply: Reply, answer: bytes) -> None:
        """Acknowledge with an answer, which is JSON, after all that came before."""
        reply.answer = answer
        while self._replies and (first := self._replies[0]).answer is not None:
            del self._replies[0]
            if first.number:
                self._push(acknowledgement(first.number, first.answer))
            # It is there, and need not be kept.
            first.answer = b""
        if self._moved is not None:
            self._moved.set_result(None)
            self._moved = None
