"""A TCP proxy between one process and one database, which can stall, delay, reset and refuse."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from proxy import CHUNK, close, proxied

# Linger for 0 s: closing sends an RST.
RESET = struct.pack("ii", 1, 0)


class Direction:
    """Which way bytes go, and what happens to them on it."""

    def __init__(self) -> None:
        self.flows = asyncio.Event()
        self.flows.set()
        self.delay = 0.0

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Carry bytes until that side is over; a delay holds back what comes next as well."""
        with suppress(OSError):
            while data := await source.read(CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self.flows.wait()
                sink.write(data)
                await sink.drain()
        # A black hole swallows the end of a connection, too.
        await self.flows.wait()
        sink.close()


class Link:
    """The proxy; `url` is what the process is given in place of the server's own."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.there, self.back = Direction(), Direction()
        self._writers: set[asyncio.StreamWriter] = set()
        self._target = _address(url)

    def point_to(self, url: str) -> None:
        """Follow the server, which may have got another port at its restart."""
        self._target = _address(url)

    def stall(self, *directions: Direction) -> None:
        """Let nothing through and close nothing: a black hole."""
        for direction in directions:
            direction.flows.clear()

    def delay(self, seconds: float) -> None:
        self.there.delay = self.back.delay = seconds / 2

    def heal(self) -> None:
        for direction in (self.there, self.back):
            direction.flows.set()
            direction.delay = 0.0

    def reset(self) -> None:
        """End every connection by an RST."""
        for writer in list(self._writers):
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.there.flows.wait()
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            return
        self._writers |= {writer, to_server}
        try:
            await asyncio.gather(self.there.carry(reader, to_server), self.back.carry(from_server, writer))
        finally:
            self._writers -= {writer, to_server}
            await close(to_server)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


@asynccontextmanager
async def linked(name: str, url: str) -> AsyncIterator[Link]:
    """Put a link before a server for the length of a block."""
    link = Link(name, url)
    async with proxied(link.serve) as port:
        link.url = url.replace(f":{_address(url)[1]}/", f":{port}/")
        yield link
