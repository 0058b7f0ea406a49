"""The queue of a polling session: packets that wait for the next poll, counted in bytes."""

import asyncio
from typing import Any

from app.realtime.engineio.library import Packet, QueueEmpty


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

    async def take(self, seconds: float) -> list[Packet]:
        """Wait for something and give all that is there; raises QueueEmpty where nothing comes in so many seconds.

        None in the queue ends the wait, and is not given.
        """
        try:
            async with asyncio.timeout(seconds):
                packets = [await self.get()]
        except (TimeoutError, asyncio.CancelledError) as error:
            raise QueueEmpty from error
        while not self.empty():
            packets.append(self.get_nowait())
        return [packet for packet in packets if packet is not None]

    def discard(self) -> None:
        """Let go of all that waits."""
        while not self.empty():
            self.get_nowait()


def _size(item: Any) -> int:
    data = getattr(item, "data", None)
    return len(data) if isinstance(data, str | bytes) else 0
