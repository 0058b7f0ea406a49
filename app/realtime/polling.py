"""What waits for the next poll of a session that has no WebSocket."""

import asyncio
from typing import Any


class ByteQueue(asyncio.Queue[Any]):
    """The queue of a session that polls, which knows how many bytes wait in it."""

    def _init(self, maxsize: int) -> None:
        self.bytes = 0
        super()._init(maxsize)

    def _put(self, item: Any) -> None:
        self.bytes += _size(item)
        super()._put(item)

    def _get(self) -> Any:
        item = super()._get()
        self.bytes -= _size(item)
        return item

    def discard(self) -> None:
        """Let go of all that waits."""
        while not self.empty():
            self.get_nowait()


def _size(item: Any) -> int:
    data = getattr(item, "data", None)
    return len(data) if isinstance(data, str | bytes) else 0
