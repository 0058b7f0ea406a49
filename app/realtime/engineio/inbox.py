"""The inbox of a session: messages are handled in order, and acknowledged in the same order.

put ──▶ waiting ── its turn ──▶ handled ──▶ acknowledged
                                   └── handed to the writer: the next one's turn ──▶ acknowledged
"""

import asyncio
from collections import deque
from collections.abc import Callable
from sys import getsizeof

from app.delivery.rooms import Frame

# Past so much, in messages and in the bytes that they take here, a client is not read from until all are handled.
MAX_WAITING = 256
MAX_WAITING_BYTES = 262_144
# What of one socket may be with the writer at the same time.
MAX_WITH_WRITER = 64
# What may wait, in bytes, for an acknowledgement before it; past it nothing more is handled.
MAX_HELD_BACK = 262_144


class Reply:
    """The place of one acknowledgement among those of its socket; `number` is what the client wants it under."""

    __slots__ = ("answer", "number")

    def __init__(self, number: str) -> None:
        # Empty where the client wants none.
        self.number = number
        # JSON, once it is there.
        self.answer: bytes | None = None


class Inbox:
    """The messages of one socket that wait for their turn, and the acknowledgements that are still to come."""

    __slots__ = (
        "_acknowledgement",
        "_held_back",
        "_moved",
        "_push",
        "_replies",
        "_waiting",
        "_waiting_bytes",
        "is_busy",
        "is_last",
        "rests_until",
    )

    def __init__(self, push: Callable[[Frame], None], acknowledgement: Callable[[str, bytes], Frame]) -> None:
        self._push = push
        self._acknowledgement = acknowledgement
        # Most messages need not wait: what they wait in is made for the first that does.
        self._waiting: deque[str | bytes] | None = None
        self._waiting_bytes = 0
        # Short: a list takes less memory than a deque.
        self._replies: list[Reply] = []
        # The bytes of the answers among these that are there.
        self._held_back = 0
        # What waits for a reply.
        self._moved: asyncio.Future[None] | None = None
        # Whether somebody takes messages out.
        self.is_busy = False
        # Whether the session ends once all is handled.
        self.is_last = False
        # When the next one has its turn, by the clock of the loop: too much has failed.
        self.rests_until = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether all that was handled is acknowledged."""
        return not self._replies

    @property
    def has_room(self) -> bool:
        """Whether one more may be with the writer."""
        return len(self._replies) < MAX_WITH_WRITER and self._held_back < MAX_HELD_BACK

    @property
    def is_empty(self) -> bool:
        return not self._waiting and not self._replies

    def put(self, message: str | bytes) -> bool:
        """Add a message; True where too many wait."""
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(message)
        self._waiting_bytes += getsizeof(message)
        return len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES

    async def next(self) -> str | bytes | None:
        """Give the message whose turn it is, None where there is none."""
        if self.rests_until:
            await self._rest()
        await self.make_room()
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        self._waiting_bytes -= getsizeof(message)
        return message

    def discard(self) -> None:
        """Forget what waits for its turn: its session is over."""
        self._waiting = None
        self._waiting_bytes = 0
        self.rests_until = 0.0
        self._notify()

    async def make_room(self) -> None:
        """Wait until one more may be with the writer."""
        while not self.has_room:
            await self._move()

    async def settle(self) -> None:
        """Wait until all that was handled is acknowledged."""
        while self._replies:
            await self._move()

    async def _rest(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self.rests_until - loop.time()) > 0:
            await self._move(left)
        self.rests_until = 0.0

    async def _move(self, patience: float | None = None) -> None:
        if self._moved is None:
            self._moved = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._moved], timeout=patience)

    def _notify(self) -> None:
        if self._moved is not None:
            self._moved.set_result(None)
            self._moved = None

    def expect(self, reply: Reply) -> None:
        """Keep the place of an acknowledgement."""
        self._replies.append(reply)

    def answer(self, reply: Reply, answer: bytes) -> None:
        """Acknowledge with an answer, which is JSON, after all that came before."""
        reply.answer = answer
        if self._replies[0] is not reply:
            self._held_back += len(answer)
        while self._replies and (first := self._replies[0]).answer is not None:
            del self._replies[0]
            if first is not reply:
                self._held_back -= len(first.answer)
            if first.number:
                self._push(self._acknowledgement(first.number, first.answer))
            # It is there, and need not be kept.
            first.answer = b""
        if self._moved is not None:
            self._notify()
