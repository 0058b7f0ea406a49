"""The connection to Redis for commands; pub/sub has its own in `bus`.

Commands that come while others are under way go together, over one connection: what a command costs is mostly what
a round trip costs.
"""

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app import resp, tracing
from app.gathering import Gathering
from app.resp import Command, Link
from app.setting_types import Url

POOL_SIZE = 20
TIMEOUT = 1.0
# Together there may be as many commands as like: those that wait for a Redis that hangs must not wait in turns.
MOST_TOGETHER = 1_000_000

# What is raised when Redis is not there or goes away, or cannot write. A command that it refuses is a defect.
AWAY = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OutOfMemoryError, OSError, TimeoutError)

# What a script that answers several questions runs for each: an error is the answer to that one alone.
_GUARDED = """
local function guarded(...)
    local ok, answer = pcall(...)
    return ok and answer or redis.error_reply(answer)
end
"""


class GatheredRedis(Redis):
    """A client whose commands travel together; its pipelines are transactions of their own, as ever."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._link: Link | None = None
        self._gathered = Gathering(
            self._execute, lambda command: tracing.command(command[0]), MOST_TOGETHER, TIMEOUT
        )

    async def execute_command(self, *command: Any, **options: Any) -> Any:
        """Run one command; raises what AWAY lists, or ResponseError where Redis refuses it."""
        options.pop("keys", None)  # of use to a cache alone
        # Some have names of two words: SCRIPT LOAD.
        reply = await self._gathered((*command[0].split(), *command[1:]))
        read = self.response_callbacks.get(command[0])
        return reply if read is None else read(reply, **options)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - as redis-py has it
        if self._link is not None:
            self._link.close()
        await super().aclose(close_connection_pool)

    async def _execute(self, commands: Sequence[Command]) -> list[Any]:
        if self._link is None or self._link.is_lost:
            self._link = await resp.connect(self.connection_pool)
        try:
            return await self._link.ask(commands)
        except BaseException:
            self._link.close()
            raise


class Script:
    """A script that Redis runs; it is sent by its hash, and as a whole where Redis has lost it.

    It may call `guarded(function, ...)`, which gives an error where the function raises one.
    """

    def __init__(self, redis: Redis, source: str) -> None:
        self._redis = redis
        self._source = _GUARDED + source
        # What Redis calls it by.
        self._sha = sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str] = (), args: Sequence[str | float] = ()) -> Any:
        """Run it; raises what a command raises."""
        try:
            return await self._redis.execute_command("EVALSHA", self._sha, len(keys), *keys, *args)
        except NoScriptError:
            return await self._redis.execute_command("EVAL", self._source, len(keys), *keys, *args)


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
    # As links need it, whatever the URL says.
    pool.connection_kwargs["protocol"] = 2
    return GatheredRedis.from_pool(pool)
