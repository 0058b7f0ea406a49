"""HTTP client of webhooks: HTTP/1.1 posts to one address, over kept-alive connections.

Nothing of an answer is of interest but its status and `Retry-After`; of the rest a little is read, so that the
connection can be used again. No redirects, no cookies, no proxies. A general client takes longer over a post than
all the rest of a delivery does.
"""

import asyncio
import base64
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from socket import SOCK_STREAM
from typing import cast
from urllib.parse import quote, unquote, urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from app.config.types import Url

# What is read of an answer; a connection with more on it is not used again.
MAX_HEAD = 16_384
MAX_ANSWER = 4096
READ_TIMEOUT = 1.0
# Of each address that the name has: one that swallows all must not hide the next one.
CONNECT_TIMEOUT = 3.0
# Shorter than the 5 s of Node.js: a request that meets the end of its connection is a failed attempt.
KEEP_ALIVE = 4.0
SWITCHING_PROTOCOLS = 101
CLOSED = "the connection was closed"
# What stands in an address as it is, escapes among it (RFC 3986, section 2).
_AS_IT_IS = "/?:@!$&'()*+,;=~%"


class NoAnswerError(ConnectionError):
    """The connection ended, or what came is no answer; the message says which."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side made of a post."""

    status: int
    retry_after: str | None


class Poster:
    """Posts to one address; `headers` go with every post."""

    def __init__(self, url: Url, headers: Mapping[str, str], timeout: float) -> None:
        parts = urlsplit(url.reveal())
        assert parts.hostname is not None
        self._host = parts.hostname.encode("idna").decode()
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._ssl else 80)
        named = f"[{self._host}]" if ":" in self._host else self._host
        about = {"Host": named if parts.port is None else f"{named}:{parts.port}", **headers}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            about["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_AS_IT_IS)
        self._head = f"POST {target} HTTP/1.1\r\n{_lines(about)}".encode()
        self._timeout = timeout
        # With the time since when; the one that was used last is used next.
        self._idle: deque[tuple[float, _Connection]] = deque()

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post; raises TimeoutError, or another OSError where no answer came."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        connection = self._kept(loop.time())
        if connection is None:
            async with asyncio.timeout_at(end):
                connection = await self._connect()
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        try:
            return await connection.post(
                b"".join((self._head, _lines(headers).encode(), length, body)), end - loop.time()
            )
        finally:
            if connection.is_free:
                self._idle.append((loop.time(), connection))
            else:
                connection.close()

    def close(self) -> None:
        """End the connections that are idle; the others end with what is under way."""
        while self._idle:
            self._idle.pop()[1].close()

    def _kept(self, now: float) -> "_Connection | None":
        while self._idle and self._idle[0][0] < now - KEEP_ALIVE:
            self._idle.popleft()[1].close()
        while self._idle:
            _, connection = self._idle.pop()
            if connection.is_free:
                return connection
        return None

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        reason: OSError = NoAnswerError("the name has no address")
        for *_, address in await loop.getaddrinfo(self._host, self._port, type=SOCK_STREAM):
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    _, connection = await loop.create_connection(
                        _Connection,
                        str(address[0]),
                        self._port,
                        ssl=self._ssl,
                        server_hostname=self._host if self._ssl else None,
                    )
            except OSError as error:
                reason = error
            else:
                return connection
        raise reason


class _Connection(asyncio.Protocol):
    """One connection, on which one post at a time is under way."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._answered: asyncio.Future[Answer] | None = None
        self.is_free = False

    def post(self, request: bytes, within: float) -> asyncio.Future[Answer]:
        """Send a request; its answer comes within so many seconds, or TimeoutError."""
        self._status = 0
        self._retry_after: str | None = None
        self._left = MAX_HEAD
        self._answered = self._loop.create_future()
        self._timer = self._loop.call_later(within, self._end, TimeoutError())
        if self.is_free:
            self.is_free = False
            self._transport.write(request)
        else:
            self._end(NoAnswerError(CLOSED))
        return self._answered

    def close(self) -> None:
        """End the connection at once, whatever is under way."""
        self.is_free = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_free = True

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or NoAnswerError(CLOSED))

    def data_received(self, data: bytes) -> None:
        if self.is_free:
            # Nobody has asked: it must not be taken for the next answer.
            self.close()
            return
        is_head = not self._status
        if is_head:
            self._left -= len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._end(NoAnswerError("what came is no answer"))
            return
        if self._left < 0:
            self._end(NoAnswerError("the head of the answer is too long"))
        elif is_head and self._status and not self.is_free:
            self._timer.cancel()
            self._timer = self._loop.call_later(READ_TIMEOUT, self._end, TimeoutError())

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        # Those before it (1xx) announce the answer.
        if status >= 200 or status == SWITCHING_PROTOCOLS:
            self._status = status
            self._left = MAX_ANSWER

    def on_body(self, part: bytes) -> None:
        self._left -= len(part)

    def on_message_complete(self) -> None:
        if self._status:
            self.is_free = self._left >= 0 and self._parser.should_keep_alive()
            self._settle()

    def _end(self, error: Exception) -> None:
        """Use the connection no more; where an answer has begun, that is the answer."""
        self.close()
        self._settle(error)

    def _settle(self, error: Exception | None = None) -> None:
        if self._answered is None:
            return
        self._timer.cancel()
        if self._answered.done():
            return
        if error is None or self._status:
            self._answered.set_result(Answer(self._status, self._retry_after))
        else:
            self._answered.set_exception(error)


def _lines(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
