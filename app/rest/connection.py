"""A connection of the REST listener, and the requests that come on it: Sanic's, but for those that send a message.

Such a request comes whole nearly always. It is then read here in one go, to what Sanic would make of it, and its
answer is written likewise, in less than half of the time. All else is Sanic's: what comes in pieces or says
anything unusual, what a connection waits for, and every answer that tells of an error.
"""

import functools
import re
import time
from types import SimpleNamespace
from typing import Any

from sanic import Request, Sanic
from sanic.config import Config
from sanic.exceptions import BadURL
from sanic.headers import format_http1_response
from sanic.http import Http, Stage
from sanic.response import BaseHTTPResponse
from sanic.server import HttpProtocol

from app.contract import cors

HEADER_TIMEOUT = 10
KEEP_ALIVE = 75

_SEND = b"POST /api/conversations/"
# Headers that concern neither the connection nor the body.
_PLAIN = (
    r"(?!(?i:c(?:ontent-length|onnection(?!: *keep-alive\r\n))|transfer-encoding|expect|upgrade):)"
    r"[0-9A-Za-z!#$%&'*+.^_`|~-]+:[ -~]*\r\n"
)
# A strict part of what Sanic takes, which sees the same in it; what differs by a character is left to Sanic.
_HEAD = re.compile(
    r"POST (/api/conversations/([0-9A-Za-z_-]+)/messages) HTTP/1\.1\r\n"
    rf"((?:{_PLAIN})*(?i:content-length): *([0-9]{{1,9}})\r\n(?:{_PLAIN})*)"
)
_HEADER = re.compile(r"([^:]+): *(.*)\r\n")
_END = b"content-type: application/json\r\n\r\n"
_KEPT, _CLOSED = b"connection: keep-alive\r\n" + _END, b"connection: close\r\n" + _END


class ServiceRequest(Request[Sanic[Config, SimpleNamespace], SimpleNamespace]):
    """A request as routes take it: HEAD is GET, and what is no address leads nowhere, where Sanic would raise."""

    __slots__ = ("started",)

    def __init__(self, url_bytes: bytes, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(url_bytes, *args, **kwargs)
        except BadURL:
            super().__init__(b"/", *args, **kwargs)
        self.started = time.perf_counter()
        if self.method == "HEAD":
            # What GET answers; Sanic keeps the body to itself.
            self.method = "GET"

    async def receive_body(self) -> None:
        """Read the body, during which the connection may still have to give way."""
        await super().receive_body()  # type: ignore[no-untyped-call]
        if isinstance(self.stream, Exchange):
            self.stream.protocol.app.ctx.connections.work(self.stream.protocol)


class Send(ServiceRequest):
    """A request that sends a message and was read whole."""

    __slots__ = ("conversation_id",)

    conversation_id: str


class Exchange(Http):
    """The requests of one connection, one after the other, and their answers."""

    async def http1_request_header(self) -> None:
        """Read the head of a request, or all of one that sends a message."""
        if self.recv_buffer.startswith(_SEND) and (request := self._take_send()):
            self.keep_alive = True
            self.request, request.stream = request, self
        else:
            await super().http1_request_header()  # type: ignore[no-untyped-call]
        ctx = self.protocol.app.ctx
        if ctx.health.draining:
            # The next request is for another pod: here it would meet a connection that is closed just then.
            self.keep_alive = False
        if not self.request_body:
            ctx.connections.work(self.protocol)

    def init_for_request(self) -> None:
        """Expect another request: the one before is answered."""
        super().init_for_request()  # type: ignore[no-untyped-call]
        self.protocol.app.ctx.connections.finish(self.protocol)

    def _take_send(self) -> Send | None:
        """Take a request that sends a message, where all of it has come."""
        buffer, protocol = self.recv_buffer, self.protocol
        end = buffer.find(b"\r\n\r\n", 0, self.HEADER_MAX_SIZE + 3) + 2
        found = _HEAD.fullmatch(buffer[:end].decode("ascii", "replace"))
        if found is None:
            return None
        url, conversation_id, headers, length = found.groups()
        size = int(length)
        if size > self.request_max_size or len(buffer) < end + 2 + size:
            return None
        request = Send(url.encode(), _HEADER.findall(headers), "1.1", "POST", protocol.transport, protocol.app)
        request.route = protocol.app.ctx.send_route
        request.conversation_id = conversation_id
        request.body = bytes(buffer[end + 2 : end + 2 + size])
        del buffer[: end + 2 + size]
        return request

    async def write(self, response: BaseHTTPResponse, origin: str | None, allowed: tuple[str, ...]) -> None:
        """Write an answer in JSON, whole, that has no headers of its own."""
        start = _start(response.status, origin if origin in allowed else None, allowed)
        body = response.body or b""
        end = _KEPT if self.keep_alive else _CLOSED
        await self._send(b"%bcontent-length: %d\r\n%b%b" % (start, len(body), end, body))
        self.stage = Stage.IDLE


@functools.cache
def _start(status: int, origin: str | None, allowed: tuple[str, ...]) -> bytes:
    """Give the head of an answer as Sanic begins it, up to the length of the body."""
    headers = cors.headers(origin, allowed, preflight=False)
    return format_http1_response(status, [(name.encode(), value.encode()) for name, value in headers.items()])[:-2]


# In each of these a client has so long for all of it, and not for each piece.
_TIMED = (Stage.REQUEST, Stage.HANDLER)


class Connection(HttpProtocol):
    """A connection, whose client has 10 s for the head of a request, and a minute for the rest."""

    HTTP_CLASS = Exchange

    def connection_made(self, transport: Any) -> None:
        """Expect the first request as soon as what begins the others."""
        super().connection_made(transport)  # type: ignore[no-untyped-call]
        self.keep_alive_timeout = HEADER_TIMEOUT
        if not self.app.ctx.connections.enter(self):
            self.evict()

    def evict(self) -> None:
        """End the connection at once, whatever is on its way."""
        if self.transport is not None:
            self.transport.abort()

    def retire(self) -> bool:
        """End once the request that is under way is answered, at once where there is none; True for that."""
        http = self.http
        if http is None or (http.stage is Stage.IDLE and not http.recv_buffer):
            self.close()
            return True
        http.keep_alive = False
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place up."""
        self.app.ctx.connections.leave(self)
        self.app.ctx.connections.release(self)
        super().connection_lost(exc)  # type: ignore[no-untyped-call]

    def data_received(self, data: bytes) -> None:
        """Take in what the client sent, where there is room for it."""
        if not self.app.ctx.connections.hold(self, len(data)):
            self.evict()
            return
        since = self._time
        super().data_received(data)
        self.keep_alive_timeout = KEEP_ALIVE
        http = self.http
        if http is not None and http.stage in _TIMED:
            self._time = since
