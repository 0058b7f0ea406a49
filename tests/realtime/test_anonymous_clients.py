"""What the socket listener takes of clients that nobody knows: little, and for a short time."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import aiohttp
import pytest
from clients import ear, somebody, token
from pods import pods, until
from scraping import series

POLLING = "/socket.io/?EIO=4&transport=polling"
WEBSOCKET = "/socket.io/?EIO=4&transport=websocket"


@asynccontextmanager
async def connection(pod):
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.ws_port)
    try:
        yield reader, writer
    finally:
        writer.close()


def head(target, *headers, method="POST"):
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *headers, "\r\n"]).encode()


async def status(reader):
    async with asyncio.timeout(20):
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length: ")[2].split("\r\n")[0])
        body = await reader.readexactly(length)
    code = int(answer.split()[1])
    if code >= 400:
        assert set(json.loads(body)) == {"code", "message"}
    return code


async def opened(http, pod):
    """Open a session; gives its URL."""
    async with http.get(pod.ws + POLLING) as response:
        return f"{pod.ws}{POLLING}&sid={json.loads((await response.text())[1:])['sid']}"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        # Answered by the head alone: the body never comes.
        (head(POLLING, "Content-Length: 1000000"), 400),
        (head(f"{POLLING}&sid=made.up.0123456789abcdef", "Content-Length: 1000000"), 400),
        (head(POLLING, "Transfer-Encoding: chunked"), 400),
        (head(POLLING, "Content-Length: 1000000000"), 413),
        (head("/elsewhere", "Content-Length: 1000000"), 404),
        (head(POLLING, "Content-Length: 99999999999999999999999"), 400),
        (head(POLLING, *(f"X-{number}: x" for number in range(101))), 413),
        (head(POLLING, *["X: x"] * 5000), 413),
        (head(POLLING, "X: " + "x" * 9000, "X: " + "x" * 9000), 413),
        (head("/socket.io/?" + "a=b&" * 40, method="GET"), 400),
        (b"\r\n" * 10_000, 413),
        (b"\xff\xfe / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET /\0 HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\xff: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: \0\r\n\r\n", 400),
        (b"\0" * 100, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
async def test_what_nobody_known_sends_is_refused_at_once(cluster, sent, code):
    async with connection(cluster[0]) as (reader, writer):
        writer.write(sent)
        assert await status(reader) == code
        async with asyncio.timeout(20):
            assert await reader.read() == b""


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("d=" + "4%22&" * 10_000, 400),
        ("40" + "x" * 70_000, 413),
    ],
)
async def test_what_is_no_connect_is_not_read_of_a_session_that_has_no_socket(cluster, said, code):
    async with aiohttp.ClientSession() as http:
        url = await opened(http, cluster[0])
        async with http.post(url, data=said) as response:
            assert response.status == code


async def test_there_is_no_jsonp(cluster):
    async with aiohttp.ClientSession() as http:
        url = await opened(http, cluster[0])
        async with http.post(f"{url}&j=0", data="3") as response:
            assert response.status == 400


async def test_a_body_in_tiny_pieces_is_refused_and_one_in_usual_ones_is_not(cluster):
    async with aiohttp.ClientSession() as http:
        url = await opened(http, cluster[0])
        target = url.removeprefix(cluster[0].ws)
        for size, code in ((1, 400), (512, 200)):
            packet = "40" + json.dumps({"token": token(somebody()), "more": "x" * 20_000})
            chunks = [packet[begin : begin + size] for begin in range(0, len(packet), size)]
            body = "".join(f"{len(chunk):x}\r\n{chunk}\r\n" for chunk in [*chunks, ""])
            async with connection(cluster[0]) as (reader, writer):
                writer.write(head(target, "Transfer-Encoding: chunked") + body.encode())
                assert await status(reader) == code


async def test_what_is_around_a_body_is_bounded_as_well(cluster):
    async with aiohttp.ClientSession() as http:
        target = (await opened(http, cluster[0])).removeprefix(cluster[0].ws)
    for around in (b"1;" + b"x" * 1000, b"0\r\nX: " + b"x" * 1000):
        async with connection(cluster[0]) as (reader, writer):
            writer.write(head(target, "Transfer-Encoding: chunked") + around)
            going_on = asyncio.create_task(go_on(writer))
            assert await status(reader) == 400
            going_on.cancel()


async def go_on(writer):
    """Send without end, in pieces that come one by one."""
    with suppress(OSError):
        while True:
            writer.write(b"x" * 1000)
            await writer.drain()
            await asyncio.sleep(0.01)


async def test_a_client_that_waits_to_be_told_sends_its_body_only_where_that_is_read(cluster):
    async with aiohttp.ClientSession() as http:
        target = (await opened(http, cluster[0])).removeprefix(cluster[0].ws)
    expect = ("Content-Length: 1", "Expect: 100-continue")
    async with connection(cluster[0]) as (reader, writer):
        writer.write(head(target, *expect))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"3")
        assert await status(reader) == 200
    async with connection(cluster[0]) as (reader, writer):
        writer.write(head(POLLING, *expect))
        assert await status(reader) == 400


async def test_what_is_sent_ahead_of_an_answer_waits_for_it(cluster):
    async with aiohttp.ClientSession() as http:
        url = await opened(http, cluster[0])
        target = url.removeprefix(cluster[0].ws)
        async with connection(cluster[0]) as (reader, writer):
            writer.write(head(target, method="GET"))
            # Answered, so that the poll is being answered as well.
            async with http.post(url, data="3") as response:
                assert response.status == 200
            writer.write(head("/health/ready", method="GET") * 2000 + head("/elsewhere", method="GET"))
            async with http.post(url, data="40" + json.dumps({"token": "wrong"})) as response:
                assert response.status == 200
            codes = [await status(reader)]
            while codes[-1] == 200:
                codes.append(await status(reader))
            # Those that come in one read are bounded.
            assert codes[-1] in {400, 404}


async def test_a_session_has_one_poll_at_a_time(cluster):
    async with aiohttp.ClientSession() as http:
        for pod in cluster:
            target = (await opened(http, cluster[0])).removeprefix(cluster[0].ws)
            async with connection(pod) as (first, writer), connection(pod) as (second, other):
                writer.write(head(target, method="GET"))
                other.write(head(target, method="GET"))
                _, pending = await asyncio.wait(
                    refused := [asyncio.create_task(status(one)) for one in (first, second)],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                assert [await one for one in refused if one not in pending] == [400]
                for one in pending:
                    one.cancel()


async def test_a_client_that_reads_no_answers_is_not_answered_without_end(cluster):
    async with connection(cluster[0]) as (reader, writer):
        reader._transport.pause_reading()
        sent = 0

        async def send():
            nonlocal sent
            while True:
                writer.write(head("/elsewhere", method="GET") * 10)
                await writer.drain()
                sent += 10

        # Once its answers fill what the kernels hold, it is not read from either.
        task = asyncio.create_task(send())

        async def is_held():
            before = sent
            await asyncio.sleep(0.5)
            return sent == before and sent > 0

        await until(is_held, "the listener reads no more", 30)
        task.cancel()


async def test_silent_sessions_make_room_for_those_who_ask_for_a_socket(servers, tmp_path):
    async with pods(servers.environment(MAX_SOCKETS="4"), tmp_path, 1) as (pod,), AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        oldest = await opened(http, pod)
        # The least that a pod takes of these, however few sockets it takes.
        await asyncio.gather(*(opened(http, pod) for _ in range(600)))
        for _ in range(4):
            assert await (await stack.enter_async_context(ear(pod, somebody()))).call("presence:ping", {}) == {
                "ok": True
            }
        async with http.post(oldest, data="3") as response:
            assert response.status == 400
        # All places are taken, whoever asks.
        async with http.get(pod.ws + POLLING) as response:
            assert response.status == 503
        refused = await series(http, pod.http)
        assert refused["chat_refused_total", "anonymous"] >= 89
        assert refused["chat_refused_total", "socket"] >= 1


async def test_those_who_were_let_in_are_never_more_than_max_sockets(servers, tmp_path):
    async with pods(servers.environment(MAX_SOCKETS="3"), tmp_path, 1) as (pod,), aiohttp.ClientSession() as http:
        urls = [await opened(http, pod) for _ in range(10)]

        async def ask(url):
            async with http.post(url, data="40" + json.dumps({"token": token(somebody())})) as response:
                await response.read()

        await asyncio.gather(*map(ask, urls))

        async def are_all_in():
            return (await series(http, pod.http))["chat_sockets",] == 3

        await until(are_all_in, "three sockets")
