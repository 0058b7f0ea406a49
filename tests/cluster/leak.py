"""A TCP proxy before Redis that swallows what is published while it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from proxy import CHUNK, carry, close, proxied

PUBLISH = b"*3\r\n$7\r\nPUBLISH"


class Leak:
    """Answers for Redis where it swallows something, so that nobody notices."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.is_leaking = False
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection(*self._target)
        try:
            await asyncio.gather(self._leak(reader, to_redis, writer), carry(from_redis, writer))
        finally:
            await close(to_redis)

    async def _leak(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(CHUNK):
            if self.is_leaking and data.startswith(PUBLISH):
                back.write(b":0\r\n" * data.count(PUBLISH))
            else:
                sink.write(data)
        sink.close()


@asynccontextmanager
async def leaking(redis_url: str) -> AsyncIterator[Leak]:
    """Put a leak before a Redis for the length of a block."""
    parts = urlsplit(redis_url)
    leak = Leak(parts.hostname or "127.0.0.1", parts.port or 6379)
    async with proxied(leak.serve) as port:
        leak.url = redis_url.replace(f":{parts.port}", f":{port}")
        yield leak
