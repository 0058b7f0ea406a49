"""A connection to Redis that is read in bulk: however many replies come at once, they cost one call.

redis-py opens it, by the URL, with TLS, AUTH and timeouts. After that its transport and its parser work for us:
what is known of the insides of redis-py is known here alone. Whatever fails here is raised as one of `AWAY`.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from hiredis import Reader, pack_command
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

from app.config.types import Url
from app.redis.errors import AWAY

# A connection that is not open and let in by then is given up.
CONNECT_TIMEOUT = 2.0
# What was sent and is not taken by the other host in so many milliseconds ends the connection.
TCP_USER_TIMEOUT_MS = 10_000


class Link(asyncio.Protocol):
    """Sends commands; their replies come as a list, in which an error is an exception.

    `hear` is told whatever comes, as on a connection that has subscribed; without it one may `ask`. It must speak
    RESP2: in RESP3 what nobody asked for may come between replies.
    """

    def __init__(self, connection: Any, hear: Callable[[list[Any]], None] | None = None) -> None:
        # Kept, because a writer that goes closes its transport; a connection that has none does not.
        self._writer, connection._writer = connection._writer, None  # noqa: SLF001
        self._transport: asyncio.Transport = self._writer.transport
        self._parser: Reader = connection._parser._reader  # noqa: SLF001
        self._hear = hear or self._collect
        self._lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[list[Any]] | None = None
        self._replies: list[Any] = []
        self._wanted = 0
        name = self._transport.get_extra_info("sockname")
        # The address of this end; None on a socket of the file system.
        self.own_host = str(name[0]) if isinstance(name, tuple) else None
        _limit_silence(self._transport)
        # redis-py has read all that was answered so far.
        self._transport.set_protocol(self)

    @property
    def is_lost(self) -> bool:
        return self._lost.done()

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Call `tell` once the connection has ended."""
        self._lost.add_done_callback(lambda _: tell())

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

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
            self._hear(list(iter(self._parser.gets, NOT_ENOUGH_DATA)))
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
    described: ConnectionPool = ConnectionPool.from_url(
        url.reveal(), socket_connect_timeout=CONNECT_TIMEOUT, socket_timeout=CONNECT_TIMEOUT, retry=None, **options
    )
    # As links need it, whatever the URL says.
    described.connection_kwargs["protocol"] = 2
    return described


async def connect(described: ConnectionPool, hear: Callable[[list[Any]], None] | None = None) -> Link:
    """Open a connection, within `CONNECT_TIMEOUT`; raises one of `AWAY`."""
    connection = described.make_connection()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await connection.connect()
            await _require_quiet(connection)
        return Link(connection, hear)
    except BaseException as error:
        with suppress(Exception):
            await connection.disconnect(nowait=True)
        if not isinstance(error, Exception) or isinstance(error, AWAY):
            raise
        raise _as_away(error) from error


async def _require_quiet(connection: Any) -> None:
    """Refuse a connection that ended at once, which would never tell the link, or that has more to say."""
    if await connection.can_read():
        raise RedisConnectionError("the connection ended at once")


def _as_away(error: Exception) -> Exception:
    """Make one of AWAY of what event loops and parsers raise of a connection."""
    return error if isinstance(error, AWAY) else RedisConnectionError(f"{type(error).__name__}: {error}")


def _limit_silence(transport: asyncio.Transport) -> None:
    """Have the kernel end a connection whose other end takes nothing; redis-py has switched keepalives on."""
    found = transport.get_extra_info("socket")
    if found is not None and found.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
