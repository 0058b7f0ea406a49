"""Two connections that are one: what comes on one goes out on the other, as fast as that takes it."""

import asyncio
from typing import cast


class PipeEnd(asyncio.Protocol):
    """One end of a pipe, and the transport of the other."""

    __slots__ = ("_other", "_transport")

    def __init__(self, other: asyncio.Transport) -> None:
        self._other = other
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._other.write(data)

    def pause_writing(self) -> None:
        """Read no more from the other one than goes out here."""
        self._other.pause_reading()

    def resume_writing(self) -> None:
        self._other.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        self._other.close()
