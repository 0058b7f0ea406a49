"""A connection to Redis that is read in bulk: however many replies come at once, they cost one call.

redis-py only reads the URL, and makes the TLS context of `rediss://`; hiredis writes the commands and reads the
replies. Whatever fails here is raised as one of `AWAY`.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

from hiredis import Reader, pack_command
from redis.asyncio.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError

from app.config.types import Url
from app.redis.errors import AWAY

# A connection that is not open and let in by then is given up.
CONNECT_TIMEOUT = 2.0
# What was sent and is not taken by the other host in so many milliseconds ends the connection.
TCP_USER_TIMEOUT_MS = 10_000
# Have the kernel end a connection whose other end says or takes nothing, where it knows these options.
_TCP_OPTIONS = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": TCP_USER_TIMEOUT_MS,
}
# What `CLIENT LIST` shows of us; a server before Redis 7.2 refuses it, which does not matter.
_INTRODUCTION = ("CLIENT", "SETINFO", "LIB-NAME", "chat-service")
# Stands for the replies that have not arrived: None and False are replies.
_NOT_ENOUGH_DATA = object()


class Link(asyncio.Protocol):
    """Sends commands; their replies come as a list, in which an error is an exception.

    It speaks RESP2: in RESP3 what nobody asked for may come between replies. With an `encoding` replies are text.
    """

    def __init__(self, encoding: str | None = None) -> None:
        # Set before anything else happens.
        self._transport: asyncio.Transport
        self._reader = Reader(
            protocolError=InvalidResponse,
            replyError=_reply_error,
            encoding=encoding,
            notEnoughData=_NOT_ENOUGH_DATA,
        )
        self._on_replies: Callable[[list[Any]], None] = self._collect
        self._lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[list[Any]] | None = None
        self._replies: list[Any] = []
        self._wanted = 0
        # The address of this end; None on a socket of the file system.
        self.own_host: str | None = None

    @property
    def is_lost(self) -> bool:
        return self._lost.done()

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the connection has ended."""
        self._lost.add_done_callback(lambda _: callback())

    def listen(self, on_replies: Callable[[list[Any]], None]) -> None:
        """Hand whatever comes from now on to `on_replies`, as on a connection that subscribes; no more `ask`."""
        self._on_replies = on_replies

    def send(self, commands: Sequence[bytes]) -> None:
        """Send packed commands with one write: a later one for the same channel must not overtake them."""
        if self.is_lost:
            return
        try:
            self._transport.write(b"".join(commands))
        except RuntimeError as error:
            # uvloop, of a transport that was closed under it.
            self._end(error)

    async def ask(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed commands and give their replies; the next ones may be asked once these are there.

        Whoever gives up waiting must close the link: the replies would be taken for those of the next commands.
        """
        if self.is_lost:
            raise self._lost.result()
        self._replies, self._wanted = [], len(commands)
        self._answer = asyncio.get_running_loop().create_future()
        self.send(commands)
        return await self._answer

    async def stay(self, seconds: float) -> None:
        """Wait; raises what ended the connection, if that happens meanwhile."""
        await asyncio.wait([self._lost], timeout=seconds)
        if self.is_lost:
            raise self._lost.result()

    def close(self) -> None:
        self._end(RedisConnectionError("the connection is closed"))

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        name = transport.get_extra_info("sockname")
        if not isinstance(name, tuple):
            return
        self.own_host = str(name[0])
        try:
            _limit_silence(transport.get_extra_info("socket"))
        except OSError as error:
            self._end(error)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            self._on_replies(list(iter(self._reader.gets, _NOT_ENOUGH_DATA)))
        except Exception as error:  # noqa: BLE001 - it is raised where the link is waited for
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or RedisConnectionError("the connection was closed"))

    def _end(self, error: Exception) -> None:
        self._transport.abort()
        if self.is_lost:
            return
        lost = _as_away(error)
        self._lost.set_result(lost)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(lost)

    def _collect(self, replies: list[Any]) -> None:
        self._replies += replies
        answer, missing = self._answer, self._wanted - len(self._replies)
        if answer is None or answer.done() or missing < 0:
            # From here on all would be taken for the replies of others.
            raise RedisConnectionError("there are more replies than commands")
        if not missing:
            answer.set_result(self._replies)


def pack(*parts: Any) -> bytes:
    """Write a command as Redis reads it; by redis-py itself it would be done in Python."""
    packed: bytes = pack_command(parts)
    return packed


def pool(url: Url, **options: Any) -> ConnectionPool:
    """Describe connections to the Redis of a URL, as `connect` opens them."""
    described: ConnectionPool = ConnectionPool.from_url(url.reveal(), **options)
    # As links need it, whatever the URL says.
    described.connection_kwargs["protocol"] = 2
    return described


async def connect(described: ConnectionPool, on_replies: Callable[[list[Any]], None] | None = None) -> Link:
    """Open a connection and log in, within `CONNECT_TIMEOUT`; raises one of `AWAY`.

    `on_replies` is for a connection that subscribes: see `Link.listen`.
    """
    link = None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            server = described.make_connection()
            link = await _open(server)
            await _log_in(link, server)
    except BaseException as error:
        if link is not None:
            link.close()
        if not isinstance(error, Exception) or isinstance(error, AWAY):
            raise
        raise _as_away(error) from error
    if on_replies is not None:
        link.listen(on_replies)
    return link


async def _open(server: Any) -> Link:
    """Connect to what redis-py has read in the URL."""
    loop = asyncio.get_running_loop()
    encoding = server.encoder.encoding if server.encoder.decode_responses else None
    if isinstance(server, UnixDomainSocketConnection):
        _, link = await loop.create_unix_connection(lambda: Link(encoding), server.path)
        return link
    tls = server.ssl_context.get() if isinstance(server, SSLConnection) else None
    _, link = await loop.create_connection(lambda: Link(encoding), server.host, server.port, ssl=tls)
    return link


async def _log_in(link: Link, server: Any) -> None:
    """Send what the URL says: user, password, name and database."""
    required: list[tuple[Any, ...]] = []
    if server.username or server.password:
        user = [server.username] if server.username else []
        required.append(("AUTH", *user, server.password or ""))
    if server.client_name:
        required.append(("CLIENT", "SETNAME", server.client_name))
    if server.db:
        required.append(("SELECT", server.db))
    replies = await link.ask([pack(*command) for command in (*required, _INTRODUCTION)])
    for reply in replies[:-1]:
        if isinstance(reply, RedisError):
            raise reply


def _reply_error(text: str) -> RedisError:
    """Give an error reply as an exception; the whole reply is its text."""
    return NoScriptError(text) if text.startswith("NOSCRIPT ") else ResponseError(text)


def _as_away(error: Exception) -> Exception:
    """Make one of AWAY of what event loops and parsers raise of a connection."""
    return error if isinstance(error, AWAY) else RedisConnectionError(f"{type(error).__name__}: {error}")


def _limit_silence(found: socket.socket) -> None:
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS.items():
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
