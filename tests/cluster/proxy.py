"""A TCP server of a test that passes connections on, and closes every one of them at its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

CHUNK = 65_536

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def carry(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, flows: asyncio.Event | None = None
) -> None:
    """Carry bytes one way until that side is over; while `flows` is clear nothing moves."""
    with suppress(OSError):
        while data := await source.read(CHUNK):
            if flows is not None:
                await flows.wait()
            sink.write(data)
            await sink.drain()
    sink.close()


async def close(*writers: asyncio.StreamWriter) -> None:
    """Close connections and wait until they are."""
    for writer in writers:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def proxied(serve: Serve) -> AsyncIterator[int]:
    """Listen for the length of a block; gives the port."""
    serving: set[asyncio.Task[None]] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await serve(reader, writer)
        except asyncio.CancelledError:
            return
        finally:
            serving.discard(task)
            await close(writer)

    server = await asyncio.start_server(tracked, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
