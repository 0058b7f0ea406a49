"""How a REST call that sends a message is read in one go: to what Sanic makes of the same bytes, or not at all."""

import asyncio
from types import SimpleNamespace

import hypothesis
import pytest
from hypothesis import strategies
from sanic.exceptions import SanicException
from sanic.http import Http

from app.rest.app import MAX_HEADER_BYTES, create_app
from app.rest.connection import Connection, Exchange, Send
from app.runtime.health import Health

MAX_BODY = 20_000
PATH = b"/api/conversations/conv_0123456789abcdef0123456789abcdef/messages"
LENGTH = b"Content-Length: 15"
BODY = b'{"content":"x"}'
NEXT = b"POST /api/conversations/conv_1/messages HTTP/1.1\r\nContent-"

APP = create_app(
    SimpleNamespace(settings=SimpleNamespace(max_body_bytes=MAX_BODY, metrics_port=None)), Health(None)
)


class NoMoreError(Exception):
    """All was read, and more is needed."""


async def no_more():
    raise NoMoreError


async def unheard(*_, **__):
    """Take what is sent, and what Sanic tells of each step, which it leaves out once it serves."""


async def read(kind, received: bytes):
    """Read one request; gives what it says, and whether it was read in one go."""
    connection = Connection(loop=asyncio.get_running_loop(), app=APP)
    connection.recv_buffer = bytearray(received)
    http = kind(connection)
    http._receive_more, http._send, http.dispatch = no_more, unheard, unheard
    http.init_for_request()
    try:
        await http.http1_request_header()
        body = b"".join([data async for data in http])
    except (SanicException, NoMoreError) as error:
        return (type(error), http.keep_alive, bytes(http.recv_buffer)), False
    request = http.request
    headers = [(name.lower(), value) for name, value in request.headers.items()]
    said = (request.method, request.path, request.query_string, request.version, headers, request.body or body)
    rest = (http.keep_alive, bool(http.head_only), http.upgrade_websocket, http.expecting_continue)
    return (*said, *rest, bytes(http.recv_buffer)), isinstance(request, Send)


def request(*headers: bytes, line: bytes = b"POST %b HTTP/1.1" % PATH, body: bytes = BODY) -> bytes:
    return b"\r\n".join([line, *headers, b"", body])


async def same(received: bytes) -> bool:
    """Check that both readers see the same; tells whether it was read in one go."""
    (ours, in_one_go), (theirs, _) = await read(Exchange, received), await read(Http, received)
    assert ours == theirs
    return in_one_go


@pytest.mark.parametrize(
    "headers",
    [
        [b"Host: x", b"Authorization: Bearer a.b.c", b"Content-Type: application/json", LENGTH],
        [b"host: x", b"connection: keep-alive", b"content-length: 15", b"accept: */*", b"traceparent: 00-1-2-01"],
        [b"Connection: Keep-Alive", b"CONTENT-LENGTH:15", b"Origin: https://app.example.com", b"Empty:"],
        [LENGTH, b"Cookie: a=b; c=d", b"Cookie: e=f", b"X-Spaces:   a  b  ", b"!#$%&'*+-.^_`|~09: odd"],
        [b"Content-Length:    00015"],
    ],
)
async def test_what_clients_send_is_read_in_one_go(headers):
    assert await same(request(*headers))
    assert await same(request(*headers) + NEXT)


@pytest.mark.parametrize(
    "received",
    [
        request(),
        request(b"Content-Length: 15", b"Content-Length: 15"),
        request(b"Content-Length: 15", b"content-length: 3"),
        request(LENGTH, b"Transfer-Encoding: chunked"),
        request(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
        request(LENGTH, b"Transfer-Encoding : chunked"),
        request(LENGTH, b"Expect: 100-continue"),
        request(LENGTH, b"Expect: something"),
        request(LENGTH, b"Upgrade: websocket", b"Connection: Upgrade"),
        request(LENGTH, b"Connection: close"),
        request(LENGTH, b"Connection: keep-alive, x"),
        request(LENGTH, b"Connection: keep-alive "),
        request(LENGTH, b"Connection: keep-alive", b"Connection: close"),
        request(LENGTH, b"X: a\nTransfer-Encoding: chunked"),
        request(LENGTH, b"X: a\rb"),
        request(LENGTH, b"X: \x00"),
        request(LENGTH, b"X: a\tb"),
        request(LENGTH, b"X: \xc3\xa9"),
        request(LENGTH, b"\xff: x"),
        request(LENGTH, b"No colon"),
        request(LENGTH, b": no name"),
        request(LENGTH, b" Folded: x"),
        request(b"X: a", b" Content-Length: 3", LENGTH),
        request(LENGTH, b"A name: x"),
        request(b"Content-Length : 15"),
        request(b"Content-Length: +15"),
        request(b"Content-Length: 1_5"),
        request(b"Content-Length: -1"),
        request(b"Content-Length: 0xf"),
        request(b"Content-Length: 15 "),
        request(b"Content-Length: 15, 15"),
        request(b"Content-Length: "),
        request(b"Content-Length: 9999999999"),
        request(b"Content-Length: %d" % (MAX_BODY + 1), body=b"x" * (MAX_BODY + 1)),
        request(LENGTH, b"X: " + b"x" * MAX_HEADER_BYTES),
        request(LENGTH, line=b"POST %b HTTP/1.0" % PATH),
        request(LENGTH, line=b"POST %b HTTP/2.0" % PATH),
        request(LENGTH, line=b"POST  %b HTTP/1.1" % PATH),
        request(LENGTH, line=b"POST %b HTTP/1.1 " % PATH),
        request(LENGTH, line=b"post %b HTTP/1.1" % PATH),
        request(LENGTH, line=b"HEAD %b HTTP/1.1" % PATH),
        request(LENGTH, line=b"POST %b/ HTTP/1.1" % PATH),
        request(LENGTH, line=b"POST %b?a=b HTTP/1.1" % PATH),
        request(LENGTH, line=b"POST %b#a HTTP/1.1" % PATH),
        request(LENGTH, line=b"POST http://x%b HTTP/1.1" % PATH),
        request(LENGTH, line=b"POST /api/conversations//messages HTTP/1.1"),
        request(LENGTH, line=b"POST /api/conversations/a%2fb/messages HTTP/1.1"),
        request(LENGTH, line=b"POST /api/conversations/../messages HTTP/1.1"),
        request(LENGTH, line=b"POST /api/conversations HTTP/1.1"),
        b"\r\n" + request(LENGTH),
        request(LENGTH).replace(b"\r\n", b"\n"),
        NEXT,
    ],
)
async def test_what_is_unusual_is_left_to_sanic(received):
    assert not await same(received)
    assert not await same(received + NEXT)


async def test_what_has_not_all_come_is_left_to_sanic():
    for end in range(1, len(request(LENGTH))):
        assert not await same(request(LENGTH)[:end])


async def test_a_head_is_as_long_as_sanic_lets_it_be():
    usual = len(request(LENGTH, b"X: ")) - len(BODY) - 4
    assert await same(request(LENGTH, b"X: " + b"x" * (MAX_HEADER_BYTES - usual - 1)))
    assert not await same(request(LENGTH, b"X: " + b"x" * (MAX_HEADER_BYTES - usual)))


async def test_a_body_is_as_long_as_the_limit():
    assert await same(request(b"Content-Length: %d" % MAX_BODY, body=b"x" * MAX_BODY))
    assert await same(request(b"Content-Length: 0", body=b""))


PIECES = [
    PATH,
    LENGTH,
    BODY,
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: ",
    b"close",
    b"keep-alive",
    b"Expect:",
]
PIECES += [
    b"POST ",
    b" HTTP/1.1\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b"\t",
    b" ",
    b":",
    b"%",
    b"/",
    b"?",
    b"X",
]
PIECES += [b"\x00", b"\xff", b"15"]


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    strategies.lists(
        strategies.tuples(strategies.integers(0, 200), strategies.integers(0, 4), strategies.sampled_from(PIECES)),
        max_size=4,
    )
)
async def test_what_was_damaged_is_never_read_as_something_else(damages):
    received = request(b"Host: x", b"Connection: keep-alive", LENGTH, b"Accept: */*") + NEXT
    for place, length, piece in damages:
        received = received[:place] + piece + received[place + length :]
    await same(received)
