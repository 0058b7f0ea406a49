"""From bytes to requests: the first request of a connection, and those that follow on it, parsed by httptools.

    connected ── request ──▶ answering ── answered ──▶ waiting for the next ── … ──▶ closed
        └── an upgrade to WebSocket: the transport changes hands, and this protocol is done

Requests of one connection are answered one after the other, in the order in which they came.
"""

import asyncio
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol, cast
from urllib.parse import parse_qsl

import httptools
from msgspec import UNSET

from app.codec import encode
from app.schemas import ErrorView

MAX_HEAD_BYTES = 16_384
HEAD_TIMEOUT = 10.0
BODY_TIMEOUT = 30.0
KEEP_ALIVE_TIMEOUT = 75.0
# What a client may send ahead of the answers; browsers send nothing ahead.
MAX_PIPELINED = 16
# Targets that are remembered as they were read: nearly all clients begin with the same one.
MAX_TARGETS = 128

_CODES = {403: "FORBIDDEN", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "PAYLOAD_TOO_LARGE"}
_CODES |= {500: "INTERNAL_ERROR", 503: "SERVICE_UNAVAILABLE"}


@dataclass(slots=True)
class Request:
    """An HTTP request; the names of its headers are in lower case, of repeated arguments the first one counts."""

    method: str = ""
    target: str = ""
    path: str = ""
    query: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    keep_alive: bool = True


@dataclass(slots=True)
class Response:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def error(status: HTTPStatus, message: str) -> Response:
    """Make an answer in the shape of all errors."""
    view = ErrorView(_CODES.get(status, "VALIDATION_ERROR"), message, UNSET)
    return Response(status, {"Content-Type": "application/json", "Vary": "Origin"}, encode(view))


def respond(transport: asyncio.Transport, response: Response, request: Request) -> None:
    """Write an answer, and close the connection where it was the last one."""
    status = HTTPStatus(response.status)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Date: {formatdate(usegmt=True)}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    lines.append(f"Content-Length: {len(response.body)}")
    if not request.keep_alive:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
    transport.write(head if request.method == "HEAD" else head + response.body)
    if not request.keep_alive:
        transport.close()


class Gate(Protocol):
    """What answers requests; it raises nothing."""

    async def answer(self, request: Request) -> Response: ...

    def upgrade(self, request: Request, transport: asyncio.Transport, ahead: bytes) -> Response | None:
        """Take over a connection that becomes a WebSocket, with what was read of it already, or refuse it."""


class HttpProtocol(asyncio.Protocol):
    """One connection, for as long as it speaks HTTP."""

    __slots__ = (
        "_body",
        "_deadline",
        "_gate",
        "_head_bytes",
        "_loop",
        "_max_body",
        "_open",
        "_parser",
        "_patience",
        "_request",
        "_requests",
        "_task",
        "_transport",
    )

    def __init__(self, gate: Gate, max_body: int, opened: set["HttpProtocol"]) -> None:
        self._gate = gate
        self._max_body = max_body
        self._open = opened
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        # The request that is being read; None between two.
        self._request: Request | None = None
        self._head_bytes = 0
        self._requests: list[Request] = []
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        # How long the rest of a request may take, where it has come to another part of it.
        self._patience: float | None = None

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self)
        self._wait(HEAD_TIMEOUT)

    def connection_lost(self, _: Exception | None) -> None:
        self._let_go()
        # A poll that nobody waits for ends, and its session with it; what was posted is carried out.
        if self._task is not None and self._requests and self._requests[0].method == "GET":
            self._task.cancel()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _let_go(self) -> None:
        self._transport = None
        self._open.discard(self)
        self._stop_waiting()

    def _wait(self, seconds: float) -> None:
        """Close the connection unless what is waited for comes in time."""
        self._stop_waiting()
        self._deadline = self._loop.call_later(seconds, self.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # Reading

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except _TooLargeError as error:
            self._refuse(error.status, str(error))
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _TooLargeError):
                self._refuse(error.__context__.status, str(error.__context__))
            else:
                self._refuse(HTTPStatus.BAD_REQUEST, "This is no HTTP/1.1 request")
        else:
            if self._request is not None and not self._request.method and self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_HEAD_TOO_LARGE.status, str(_HEAD_TOO_LARGE))
            elif self._patience is not None:
                self._wait(self._patience)
                self._patience = None

    def on_message_begin(self) -> None:
        self._request = Request()
        self._body = bytearray()
        self._patience = HEAD_TIMEOUT

    def on_url(self, url: bytes) -> None:
        assert self._request is not None
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._request is not None
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers = self._request.headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        request = self._request
        assert request is not None
        if _head_size(request) > MAX_HEAD_BYTES:
            raise _HEAD_TOO_LARGE
        request.path, request.query, request.arguments = _parts(request.target)
        request.method = self._parser.get_method().decode("latin-1")
        request.keep_alive = self._parser.should_keep_alive()
        if request.headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._patience = BODY_TIMEOUT

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > self._max_body:
            message = f"The body is larger than {self._max_body} bytes"
            raise _TooLargeError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        if self._parser.should_upgrade():
            return
        request, self._request = self._request, None
        assert request is not None
        request.body = bytes(self._body)
        self._patience = None
        self._stop_waiting()
        self._requests.append(request)
        if len(self._requests) > MAX_PIPELINED:
            raise _TooLargeError(HTTPStatus.BAD_REQUEST, "Too many requests were sent ahead of their answers")
        if self._task is None:
            self._task = self._loop.create_task(self._answer_all())

    # Answering

    async def _answer_all(self) -> None:
        """Answer what has come, and what comes meanwhile."""
        try:
            while self._requests and self._transport is not None:
                request = self._requests[0]
                response = await self._gate.answer(request)
                if self._transport is not None:
                    respond(self._transport, response, request)
                self._requests.pop(0)
        finally:
            self._task = None
        if self._transport is not None and self._request is None:
            self._wait(KEEP_ALIVE_TIMEOUT)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Say what is wrong and close: where the next request begins cannot be told."""
        if self._transport is not None and not self._transport.is_closing():
            respond(self._transport, error(status, message), Request(keep_alive=False))

    def _upgrade(self, ahead: bytes) -> None:
        """Hand the connection over; nothing of it comes here any more, unless it is refused."""
        request, transport = self._request, self._transport
        assert request is not None
        assert transport is not None
        if self._task is not None:
            self._refuse(HTTPStatus.BAD_REQUEST, "An upgrade must not be sent ahead of an answer")
            return
        self._let_go()
        # It knows this protocol: both would stay until the collector comes by.
        del self._parser
        request.keep_alive = False
        refusal = self._gate.upgrade(request, transport, ahead)
        if refusal is not None:
            respond(transport, refusal, request)


class _TooLargeError(Exception):
    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


_HEAD_TOO_LARGE = _TooLargeError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The headers are larger than 16 KiB")


def _head_size(request: Request) -> int:
    headers = request.headers
    return len(request.target) + sum(map(len, headers)) + sum(map(len, headers.values())) + 4 * len(headers)


@functools.lru_cache(MAX_TARGETS)
def _parts(target: str) -> tuple[str, str, Mapping[str, str]]:
    """Take the target of a request apart: its path, its query and the arguments in that."""
    url = httptools.parse_url(target.encode("latin-1"))
    query = (url.query or b"").decode("latin-1")
    return (url.path or b"/").decode("latin-1"), query, dict(reversed(parse_qsl(query)))
