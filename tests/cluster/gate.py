"""A TCP proxy before a server, which may be shut (all connections are cut) or held (nothing is read from it)."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from proxy import CHUNK, carry, close, proxied


class Gate:
    """Where it listens, in place of the server's own address."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._target = (parts.hostname, parts.port)
        self._is_shut = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = url

    def shut(self) -> None:
        self._is_shut = True
        for writer in self._writers:
            writer.transport.abort()

    def open(self) -> None:
        self._is_shut = False

    def hold(self) -> None:
        self._flows.clear()

    def release(self) -> None:
        self._flows.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_shut:
            return
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, self._target)
        from_server, to_server = await asyncio.open_connection(sock=connection, limit=CHUNK)
        self._writers |= {writer, to_server}
        try:
            await asyncio.gather(carry(reader, to_server), carry(from_server, writer, self._flows))
        finally:
            self._writers -= {writer, to_server}
            await close(to_server)


@asynccontextmanager
async def gated(url: str) -> AsyncIterator[Gate]:
    """Put a gate before a server for the length of a block."""
    gate = Gate(url)
    async with proxied(gate.serve) as port:
        gate.url = url.replace(f":{gate._target[1]}/", f":{port}/")
        yield gate
