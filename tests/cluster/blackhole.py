"""A TCP proxy before a server that may vanish without closing anything, and be replaced at the same address."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from proxy import CHUNK, close, proxied


class BlackHole:
    """Where it listens, in place of the server's own address."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._target = (parts.hostname, parts.port)
        self._is_gone = False
        self._connections: set[asyncio.Event] = set()
        self._stops_at: bytes | None = None
        self.stopped = asyncio.Event()
        self._goes_on = asyncio.Event()
        self.url = url

    def vanish(self) -> None:
        """Pass nothing on any more, either way; who connects is not answered."""
        self._is_gone = True
        for flows in self._connections:
            flows.clear()

    def replace(self) -> None:
        """Answer whoever connects from now on; what was there before stays silent."""
        self._is_gone = False
        self._connections.clear()

    def stop_at(self, word: bytes) -> None:
        """Hold up the first thing that a client says with this word in it, and what it says after that."""
        self._stops_at = word

    def go_on(self) -> None:
        self._goes_on.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flows = asyncio.Event()
        if not self._is_gone:
            flows.set()
        self._connections.add(flows)
        await flows.wait()
        from_server, to_server = await asyncio.open_connection(*self._target, limit=CHUNK)
        try:
            await asyncio.gather(
                self._carry(reader, to_server, flows, is_asking=True), self._carry(from_server, writer, flows)
            )
        finally:
            await close(to_server)

    async def _carry(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        flows: asyncio.Event,
        *,
        is_asking: bool = False,
    ) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK):
                if is_asking and self._stops_at is not None and self._stops_at in data:
                    self._stops_at = None
                    self.stopped.set()
                    await self._goes_on.wait()
                await flows.wait()
                sink.write(data)
                await sink.drain()
        await flows.wait()
        sink.close()


@asynccontextmanager
async def black_hole(url: str) -> AsyncIterator[BlackHole]:
    """Put a proxy before a server for the length of a block."""
    made = BlackHole(url)
    async with proxied(made.serve) as port:
        made.url = url.replace(f":{made._target[1]}/", f":{port}/")
        yield made
