"""What a pod holds in memory: nothing of those whom nobody knows, and nothing of those who have gone."""

import asyncio
import itertools
import json

import pytest
from clients import somebody, token
from memory import Growth, on_linux
from pods import pods
from stuck import HANDSHAKE, NO_MASK

POLLING = "/socket.io/?EIO=4&transport=polling"
MEGABYTE = 1 << 20
AT_ONCE = 20
# What the allocator keeps, and what is read before it is known that it is refused.
SLACK = 30 * MEGABYTE


async def many(count, work):
    """Do something so often, some at the same time."""
    turns = iter(range(count))

    async def take_turns():
        for _ in turns:
            await work()

    await asyncio.gather(*(take_turns() for _ in range(AT_ONCE)))


async def exchange(pod, sent):
    """Send a request, and read its answer; gives the status and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.ws_port)
    try:
        writer.write(sent)
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            return int(head.split()[1]), await reader.readexactly(length)
    finally:
        writer.close()


def post(target, body):
    return f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@on_linux
async def test_bodies_of_those_whom_nobody_knows_are_not_kept(servers, tmp_path):
    async with pods(servers.environment(), tmp_path, 1) as (pod,):
        paths = (POLLING, f"{POLLING}&sid=pod.unknown.0123456789abcdef", "/elsewhere")
        sent = itertools.cycle([post(path, b"x" * MEGABYTE) for path in paths])

        async def send():
            assert (await exchange(pod, next(sent)))[0] in {400, 404}

        await many(AT_ONCE, send)
        growth = Growth(pod.process.pid)
        await many(200, send)
        assert growth.peak < SLACK


@on_linux
async def test_bodies_of_sessions_are_let_go_once_they_are_handled(servers, tmp_path):
    async with pods(servers.environment(), tmp_path, 1) as (pod,):

        async def talk():
            """Connect, and send a megabyte of what no Engine.IO is."""
            _, opened = await exchange(pod, f"GET {POLLING} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            url = f"{POLLING}&sid={json.loads(opened[1:])['sid']}"
            await exchange(pod, post(url, ("40" + json.dumps({"token": token(somebody())})).encode()))
            status, _ = await exchange(pod, f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert status == 200
            await exchange(pod, post(url, b"x" * (MEGABYTE - 1)))

        await many(AT_ONCE, talk)
        growth = Growth(pod.process.pid)
        await many(200, talk)
        # Those of all that are sent at the same time, each once as bytes and twice as text.
        assert growth.peak < 3 * AT_ONCE * MEGABYTE + SLACK


@on_linux
@pytest.mark.timeout(240)
async def test_clients_that_come_and_go_leave_nothing(servers, tmp_path):
    async with pods(servers.environment(), tmp_path, 1) as (pod,):
        packets = [("40" + json.dumps({"token": token(somebody())})).encode() for _ in range(50)]
        turn = 0

        async def come_and_go():
            nonlocal turn
            packet, turn = packets[turn % len(packets)], turn + 1
            reader, writer = await asyncio.open_connection("127.0.0.1", pod.ws_port)
            try:
                writer.write(HANDSHAKE)
                await reader.readuntil(b"\r\n\r\n")
                writer.write(bytes([0x81, 0x80 | 126]) + len(packet).to_bytes(2) + NO_MASK + packet)
                async with asyncio.timeout(20):
                    await reader.readuntil(b"40{")
            finally:
                writer.close()

        await many(500, come_and_go)
        growth = Growth(pod.process.pid)
        await many(1500, come_and_go)
        assert growth.peak < 4 * MEGABYTE
