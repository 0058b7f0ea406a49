"""What a client sent and nobody has handled yet: in order, and not without end."""

from collections import deque

# Past so many a client is not read from until all are handled.
MAX_WAITING = 256


class Inbox:
    """The messages of one socket that wait for their turn."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[str | bytes] = deque()

    def put(self, message: str | bytes) -> bool:
        """Add a message; True where too many wait."""
        self._waiting.append(message)
        return len(self._waiting) > MAX_WAITING

    def next(self) -> str | bytes | None:
        return self._waiting.popleft() if self._waiting else None
