"""Parsing of HTTP requests on the socket listener, by httptools: bounds of head, headers, query and body."""

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import IntEnum
from http import HTTPStatus
from urllib.parse import parse_qsl

import httptools
from msgspec import UNSET

from app.contract.codec import encode
from app.contract.schemas import ErrorView

MAX_HEAD_BYTES = 16_384
MAX_BODY_BYTES = 1 << 20
MAX_HEADERS = 100
MAX_ARGUMENTS = 32
# Targets that are remembered as they were read: nearly all clients begin with the same one.
MAX_TARGETS = 128
# Requests that may come in one read; browsers send none ahead of an answer.
MAX_PIPELINED = 16
# A body may come in so many pieces of any size, whether reads or chunks, and in one more for so many bytes.
FREE_PIECES = 1024
LEAST_PIECE = 256

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
    write(transport, response, request)
    if not request.keep_alive:
        transport.close()


def write(transport: asyncio.Transport, response: Response, request: Request) -> None:
    """Write an answer, and leave the connection as it is."""
    status = HTTPStatus(response.status)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Date: {formatdate(usegmt=True)}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    lines.append(f"Content-Length: {len(response.body)}")
    if not request.keep_alive:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
    transport.write(head if request.method == "HEAD" else head + response.body)


class Stage(IntEnum):
    """What a reader waits for."""

    REQUEST = 0
    HEAD = 1
    BODY = 2


class RequestReader:
    """Reads the requests of one connection; `requests` are those that are complete.

    `refusal` is set where a client sends what is not read; the reader is of no use from then on.
    """

    __slots__ = (
        "_body",
        "_body_limit",
        "_head_bytes",
        "_limit",
        "_parser",
        "_pieces",
        "_raw_bytes",
        "_request",
        "expects_continue",
        "is_refused",
        "refusal",
        "requests",
        "stage",
    )

    def __init__(self, body_limit: Callable[[Request], int]) -> None:
        # Tells how many bytes the body of a request may have; one that may have none is complete with its head.
        self._body_limit = body_limit
        # It knows this reader: `close` breaks the cycle, which the collector would leave for long.
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._body = bytearray()
        self._limit = self._head_bytes = self._raw_bytes = self._pieces = 0
        self.stage = Stage.REQUEST
        self.requests: list[Request] = []
        self.refusal: Response | None = None
        # Whether the client waits to be told that it may send the body.
        self.expects_continue = False
        # Whether nothing more is read: a refusal is to follow, or the last request has a body that nobody wants.
        self.is_refused = False

    def close(self) -> None:
        """Let go of all that was read."""
        self._parser = self._request = None
        self._body = bytearray()
        self._body_limit = _none
        self.requests = []

    def feed(self, data: bytes) -> bytes | None:
        """Read on; gives what came after the head of an upgrade, None where there is none."""
        assert self._parser is not None
        self._raw_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return data[upgrade.args[0] :]
        except httptools.HttpParserError:
            if not self.is_refused:
                self._refuse(HTTPStatus.BAD_REQUEST, "This is no HTTP/1.1 request")
            return None
        if self.stage < Stage.BODY and self._raw_bytes > MAX_HEAD_BYTES:
            self._refuse(*_HEAD_TOO_LARGE)
        elif self._raw_bytes > 2 * len(self._body) + 2 * MAX_HEAD_BYTES:
            # Extensions of chunks and trailers, which nothing else bounds.
            self._refuse(HTTPStatus.BAD_REQUEST, "The body is smaller than what it comes in")
        return None

    def take_upgrade(self) -> Request:
        """Give the request that asks for an upgrade."""
        request = self._request
        assert request is not None
        request.keep_alive = False
        return request

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self.is_refused = True
        self.refusal = error(status, message)
        self._body = bytearray()

    def _stop(self, status: HTTPStatus, message: str) -> None:
        self._refuse(status, message)
        raise _StopError

    # What the parser calls

    def on_message_begin(self) -> None:
        self._request = Request()
        self._head_bytes = 0
        self.stage = Stage.HEAD

    def on_url(self, url: bytes) -> None:
        assert self._request is not None
        self._count(len(url))
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._request is not None
        self._count(len(name) + len(value) + 4)
        headers = self._request.headers
        if len(headers) >= MAX_HEADERS:
            self._stop(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"There are more than {MAX_HEADERS} headers")
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._stop(*_HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        request, parser = self._request, self._parser
        assert request is not None
        assert parser is not None
        request.path, request.query, request.arguments = _parts(request.target)
        request.method = parser.get_method().decode("latin-1")
        request.keep_alive = parser.should_keep_alive()
        self.stage = Stage.BODY
        self._raw_bytes = self._pieces = 0
        size = int(request.headers.get("content-length", "0"))
        if size or "transfer-encoding" in request.headers:
            self._expect(request, size)

    def _expect(self, request: Request, size: int) -> None:
        """Decide from its head whether the body of a request is read."""
        if size > MAX_BODY_BYTES:
            self._stop(*_too_large(MAX_BODY_BYTES))
        self._limit = self._body_limit(request)
        if not self._limit:
            request.keep_alive = False
            self.requests.append(request)
            self.is_refused = True
            raise _StopError
        if size > self._limit:
            self._stop(*_too_large(self._limit))
        self.expects_continue = request.headers.get("expect", "").lower() == "100-continue"

    def on_body(self, body: bytes) -> None:
        self._pieces += 1
        self._body += body
        if len(self._body) > self._limit:
            self._stop(*_too_large(self._limit))
        if self._pieces > FREE_PIECES + len(self._body) // LEAST_PIECE:
            self._stop(HTTPStatus.BAD_REQUEST, "The body comes in too small pieces")

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._parser.should_upgrade():
            return
        request, self._request = self._request, None
        assert request is not None
        if self._body:
            request.body, self._body = bytes(self._body), bytearray()
        self._raw_bytes = 0
        self.expects_continue = False
        self.stage = Stage.REQUEST
        self.requests.append(request)
        if len(self.requests) > MAX_PIPELINED:
            self.requests.pop()
            self._stop(HTTPStatus.BAD_REQUEST, "Too many requests were sent ahead of their answers")


class _StopError(Exception):
    """Stops the parser."""


_HEAD_TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The headers are larger than 16 KiB"


def _too_large(limit: int) -> tuple[HTTPStatus, str]:
    return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {limit} bytes"


def _none(_: Request) -> int:
    return 0


@functools.lru_cache(MAX_TARGETS)
def _parts(target: str) -> tuple[str, str, Mapping[str, str]]:
    """Take the target of a request apart: its path, its query and the arguments in that."""
    url = httptools.parse_url(target.encode("latin-1"))
    query = (url.query or b"").decode("latin-1")
    arguments = parse_qsl(query, max_num_fields=MAX_ARGUMENTS)
    return (url.path or b"/").decode("latin-1"), query, dict(reversed(arguments))
