"""A pipe between two TCP connections, with back-pressure: it carries forwarded WebSockets."""

import asyncio
from collections.abc import Callable
from typing import cast

# How long what was written may take to go out once the other end is gone.
CLOSE_TIMEOUT = 5.0


class PipeEnd(asyncio.Protocol):
    """One end of a pipe, and the transport of the other."""

    __slots__ = ("_on_end", "_other", "_transport")

    def __init__(self, other: asyncio.Transport, on_end: Callable[[], None] | None = None) -> None:
        self._other = other
        self._on_end = on_end
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
        # One that is not read from would stay for ever.
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._other.abort)
        if self._on_end is not None:
            self._on_end()
