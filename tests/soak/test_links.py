"""The process of the links does what the faults ask for, and leaves nothing behind."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager

import pytest
from proxy import proxied

from soak.control import HarnessError
from soak.links import running_links


@asynccontextmanager
async def echo():
    async def serve(reader, writer):
        while data := await reader.read(100):
            writer.write(data)

    async with proxied(serve) as port:
        yield f"redis://127.0.0.1:{port}/0"


@asynccontextmanager
async def linked_echo():
    async with echo() as url, running_links() as links:
        link = await links.open("pod-0 to Redis", url)
        port = int(link.url.rpartition(":")[2].removesuffix("/0"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield link, reader, writer
        finally:
            writer.close()


async def answer(reader, within=10.0):
    async with asyncio.timeout(within):
        return await reader.readexactly(1)


@pytest.mark.parametrize("directions", [("there", "back"), ("there",), ("back",)])
async def test_a_stalled_link_holds_back_until_it_is_healed(directions):
    async with linked_echo() as (link, reader, writer):
        writer.write(b"1")
        assert await answer(reader) == b"1"
        await link.stall(*directions)
        writer.write(b"2")
        with pytest.raises(TimeoutError):
            await answer(reader, within=0.2)
        await link.heal()
        assert await answer(reader) == b"2"


async def test_a_reset_ends_a_connection_by_an_rst():
    async with linked_echo() as (link, reader, writer):
        writer.write(b"1")
        await answer(reader)
        await link.reset()
        with pytest.raises(ConnectionResetError):
            await answer(reader)


async def test_a_link_follows_its_server():
    async with linked_echo() as (link, _, _), echo() as other:
        await link.point_to("redis://127.0.0.1:1/0")
        await link.point_to(other)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(link.url.split(":")[2].split("/")[0]))
        writer.write(b"1")
        assert await answer(reader) == b"1"
        writer.close()


async def test_the_process_of_the_links_ends_with_its_stdin_even_while_a_link_is_stalled():
    async with running_links() as links, echo() as url:
        link = await links.open("pod-0 to Redis", url)
        await link.stall("there", "back")
        _, writer = await asyncio.open_connection("127.0.0.1", int(link.url.split(":")[2].split("/")[0]))
        links.process.stdin.close()
        async with asyncio.timeout(10):
            assert await links.process.wait() == 0
        writer.close()


async def test_a_process_of_the_links_that_is_gone_is_the_harness_failing():
    async with running_links() as links, echo() as url:
        link = await links.open("pod-0 to Redis", url)
        os.kill(links.process.pid, signal.SIGKILL)
        with pytest.raises(HarnessError):
            await link.heal()
