"""The process of the links: TCP proxies which stall, delay and reset as they are told.

Commands come on stdin, a line of JSON each. The loop is its own, so that what the clients of the soak do never
holds up a database. It ends with its stdin, and so with the process that started it, however that one ends.
"""

import asyncio
import json
import socket
import struct
import sys
from contextlib import AsyncExitStack, suppress
from typing import Any

import uvloop
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


class Proxy:
    """Carries the connections of one link."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._directions = {"there": Direction(), "back": Direction()}
        self._writers: set[asyncio.StreamWriter] = set()

    def point_to(self, host: str, port: int) -> None:
        self._target = host, port

    def stall(self, *names: str) -> None:
        for name in names:
            self._directions[name].flows.clear()

    def delay(self, seconds: float) -> None:
        for direction in self._directions.values():
            direction.delay = seconds / 2

    def heal(self) -> None:
        for direction in self._directions.values():
            direction.flows.set()
            direction.delay = 0.0

    def reset(self) -> None:
        for writer in list(self._writers):
            # A transport that has closed itself has no socket any more.
            if (found := writer.get_extra_info("socket")) is not None:
                with suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = self._directions["there"], self._directions["back"]
        self._writers.add(writer)
        try:
            await there.flows.wait()
            try:
                from_server, to_server = await asyncio.open_connection(*self._target)
            except OSError:
                return
            self._writers.add(to_server)
            try:
                await asyncio.gather(there.carry(reader, to_server), back.carry(from_server, writer))
            finally:
                self._writers.discard(to_server)
                await close(to_server)
        finally:
            self._writers.discard(writer)


async def run() -> None:
    """Do what stdin says until it ends; each command is answered on stdout under its number."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    made: dict[str, Proxy] = {}
    async with AsyncExitStack() as stack:
        while line := await commands.readline():
            command: dict[str, Any] = json.loads(line)
            name, do, arguments = command["link"], command["do"], command["arguments"]
            port = None
            if do == "open":
                made[name] = Proxy(*arguments)
                port = await stack.enter_async_context(proxied(made[name].serve))
            else:
                getattr(made[name], do)(*arguments)
            sys.stdout.write(json.dumps({"number": command["number"], "port": port}) + "\n")
            sys.stdout.flush()
        for one in made.values():
            # Nothing may wait for a peer that does not read.
            one.reset()


if __name__ == "__main__":
    uvloop.run(run())
