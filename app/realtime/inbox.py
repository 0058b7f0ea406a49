"""What a client sent, handled in order, and the acknowledgements, in the same order.

put ──▶ waiting ── its turn ──▶ handled ──▶ acknowledged
                                   └── handed to a writer: the next one's turn ──▶ acknowledged
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

# Past so many a client is not read from until all are handled.
MAX_WAITING = 256
# What of one socket may be with a writer at the same time.
MAX_WITH_WRITER = 64


class Inbox:
    """The messages of one socket that wait for their turn, and the answers that are still to come."""

    __slots__ = ("_answers", "_waiting", "end", "is_busy", "is_held")

    def __init__(self) -> None:
        self._waiting: deque[str | bytes] = deque()
        self._answers: deque[tuple[asyncio.Future[Any], Callable[[Any], None]]] = deque()
        # Whether somebody takes messages out.
        self.is_busy = False
        # Whether the client is not read from.
        self.is_held = False
        # Why the session ends once all is handled, if it does.
        self.end: str | None = None

    @property
    def is_empty(self) -> bool:
        return not self._waiting and not self._answers

    def put(self, message: str | bytes) -> bool:
        """Add a message; True where too many wait."""
        self._waiting.append(message)
        return len(self._waiting) > MAX_WAITING

    async def next(self) -> str | bytes | None:
        """Give the message whose turn it is, None where there is none."""
        while len(self._answers) >= MAX_WITH_WRITER:
            await asyncio.wait([self._answers[0][0]])
        return self._waiting.popleft() if self._waiting else None

    async def settle(self) -> None:
        """Wait until all that was handled is answered."""
        while self._answers:
            await asyncio.wait([self._answers[0][0]])

    def answer(self, result: Any, acknowledge: Callable[[Any], None]) -> None:
        """Acknowledge with a result, or with what a future brings, after all that came before."""
        if isinstance(result, asyncio.Future):
            self._answers.append((result, acknowledge))
            result.add_done_callback(self._on_answer)
        elif self._answers:
            done = asyncio.get_running_loop().create_future()
            done.set_result(result)
            self._answers.append((done, acknowledge))
        else:
            acknowledge(result)

    def _on_answer(self, _: asyncio.Future[Any]) -> None:
        while self._answers and self._answers[0][0].done():
            answer, acknowledge = self._answers.popleft()
            acknowledge(answer.result())
