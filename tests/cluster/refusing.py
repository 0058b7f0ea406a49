"""A proxy before Redis that speaks RESP: it has chosen commands refused, resets connections, or stays silent."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from hiredis import Reader, pack_command
from proxy import CHUNK, carry, close, proxied

# Redis itself answers with the error, in its place among the other replies.
ERROR = "return redis.error_reply(ARGV[1])"
EVERYTHING = "*"


class Refusing:
    """What is done to connections; `url` is where it listens in place of Redis."""

    def __init__(self, url: str) -> None:
        self._redis = urlsplit(url)
        self._writers: set[asyncio.StreamWriter] = set()
        # The errors for each command, by its first word, or for EVERYTHING.
        self.errors: dict[str, Iterator[str]] = {}
        self.resets = False
        self.is_silent = False
        # Whether what is published arrives as garbage.
        self.garbles = False
        self.connections = 0
        self.url = ""

    def refuse(self, errors: Iterator[str], *commands: str) -> None:
        """Have some commands, else all, answered with one error after the other."""
        self.errors = dict.fromkeys(commands or [EVERYTHING], errors)

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            _reset(writer)

    def allow(self) -> None:
        """Pass all on again, and end what was kept silent."""
        was_silent, self.is_silent = self.is_silent, False
        self.errors, self.resets = {}, False
        if was_silent:
            self.cut()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.resets:
            _reset(writer)
            return
        from_redis, to_redis = await asyncio.open_connection(self._redis.hostname, self._redis.port)
        self._writers.add(writer)
        try:
            # Clients need no password, so that also their first command may be refused.
            if self._redis.password:
                to_redis.write(pack_command(("AUTH", self._redis.password)))
                await from_redis.readline()
            await asyncio.gather(self._pass_on(reader, to_redis), carry(from_redis, writer))
        finally:
            self._writers.discard(writer)
            await close(to_redis)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        commands = Reader()
        try:
            while data := await source.read(CHUNK):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    if not self.is_silent:
                        sink.write(pack_command(self._answered(command)))
        except OSError:
            pass
        sink.close()

    def _answered(self, command: list[bytes]) -> tuple[bytes | str, ...]:
        errors = self.errors.get(command[0].decode().upper(), self.errors.get(EVERYTHING))
        if errors is not None:
            return "EVAL", ERROR, "0", next(errors)
        if self.garbles and command[0] == b"PUBLISH":
            return (*command[:2], b"\xff")
        return tuple(command)


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def refusing(redis_url: str) -> AsyncIterator[Refusing]:
    """Put such a proxy before a Redis for the length of a block."""
    found = Refusing(redis_url)
    async with proxied(found.serve) as port:
        found.url = f"redis://127.0.0.1:{port}{found._redis.path}"
        yield found
