"""The connection to Redis for commands; pub/sub has its own in `bus`.

Commands that come while others are under way go together, over one connection: what a command costs is mostly what
a round trip costs.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app import tracing
from app.gathering import Gathering
from app.setting_types import Url

POOL_SIZE = 20
TIMEOUT = 1.0
# Together there may be as many commands as like: those that wait for a Redis that hangs must not wait in turns.
MOST_TOGETHER = 1_000_000

# What is raised when Redis is not there or goes away, or cannot write. A command that it refuses is a defect.
AWAY = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OutOfMemoryError, OSError, TimeoutError)


class GatheredRedis(Redis):
    """A client whose commands travel together; its pipelines are transactions of their own, as ever."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gathered = Gathering(self._execute, lambda command: tracing.command(command[0]), MOST_TOGETHER)

    async def execute_command(self, *command: Any, **options: Any) -> Any:
        """Run one command; raises what AWAY lists, or ResponseError where Redis refuses it."""
        options.pop("keys", None)  # of use to a cache alone
        # Some have names of two words: SCRIPT LOAD.
        reply = await self._gathered((*command[0].split(), *command[1:]))
        if isinstance(reply, ResponseError):
            raise reply
        read = self.response_callbacks.get(command[0])
        return reply if read is None else read(reply, **options)

    async def _execute(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        connection = await self.connection_pool.get_connection()
        try:
            async with asyncio.timeout(TIMEOUT):
                packed = b"".join([pack_command(command) for command in commands])
                await connection.send_packed_command(packed, check_health=False)
                return [await _reply(connection) for _ in commands]
        except BaseException:
            # Replies that nobody reads would be taken for those of the next commands.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self.connection_pool.release(connection)


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response(timeout=math.inf, disconnect_on_error=False)
    except ResponseError as error:
        return error


def connect(url: Url) -> Redis:
    """Make a client that connects when first used, and gives up soon when Redis is away."""
    pool = BlockingConnectionPool.from_url(
        url.reveal(),
        max_connections=POOL_SIZE,
        timeout=TIMEOUT,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=None,
        decode_responses=True,
    )
    return GatheredRedis(connection_pool=pool)
