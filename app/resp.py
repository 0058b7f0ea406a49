"""A connection to Redis that is read in bulk: however many replies come at once, they cost one call.

redis-py opens it, by the URL, with TLS, AUTH and timeouts. After that its transport and its parser work for us:
what is known of the insides of redis-py is known here alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from hiredis import Reader, pack_command
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

Command = tuple[Any, ...]


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
        # redis-py has read all that was answered so far.
        self._transport.set_protocol(self)

    @property
    def is_lost(self) -> bool:
        return self._lost.done()

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands with one write: a later one for the same channel must not overtake a part of these."""
        # By redis-py itself it would be done in Python.
        if not self.is_lost:
            self._transport.write(b"".join([pack_command(command) for command in commands]))

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands and give their replies; the next ones may be asked once these are there.

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
        self._end(RedisConnectionError(str(exc or "the connection was closed")))

    def _end(self, error: Exception) -> None:
        self._transport.abort()
        if self.is_lost:
            return
        self._lost.set_result(error)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _collect(self, replies: list[Any]) -> None:
        self._replies += replies
        if self._answer is not None and not self._answer.done() and len(self._replies) >= self._wanted:
            self._answer.set_result(self._replies)


async def connect(pool: ConnectionPool, hear: Callable[[list[Any]], None] | None = None) -> Link:
    """Open a connection as a pool would, and beside those that it lends."""
    connection = pool.make_connection()
    try:
        await connection.connect()
        return Link(connection, hear)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
