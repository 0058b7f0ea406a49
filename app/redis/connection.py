"""The Redis client for commands, batched over one connection; pub/sub has its own in `pubsub`.

Commands that come while others are under way go together: the cost of a command is mostly that of a round trip.
Every error is one of `AWAY`, and nobody waits longer than some seconds for it.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError, RedisError

from app.config.types import Url
from app.observability import tracing
from app.redis import errors as redis_errors
from app.redis import resp
from app.redis.errors import AWAY
from app.redis.resp import Link
from app.runtime.batching import Batcher

__all__ = ["AWAY", "MAX_BATCH", "BatchingRedis", "connect"]

TIMEOUT = 1.0
# Practically no limit: commands that wait for a Redis that hangs must not wait in turns.
MAX_BATCH = 1_000_000
# After a failure of the connection commands fail at once for so long, instead of each trying to connect.
RETRY_DELAY = 0.25
# A server that refuses may have been replaced by another: a connection to it is renewed so often at most.
RENEWAL = 5.0

# A command by its name, and as it is sent.
_Packed = tuple[str, bytes]


class BatchingRedis(Redis):
    """A client whose commands go in batches, also those of its pipelines; it has no transactions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._link: Link | None = None
        # Times of the event loop.
        self._retry_at = self._renew_at = 0.0
        self._batcher: Batcher[_Packed, Any] = Batcher(
            self._execute, lambda command: tracing.command(command[0]), MAX_BATCH
        )

    @property
    def own_host(self) -> str | None:
        """The address from which Redis was last reached; None before that, or on the same machine."""
        return None if self._link is None else self._link.own_host

    async def execute_command(self, *command: Any, **options: Any) -> Any:
        """Run one command; raises what AWAY lists."""
        return self._read(command[0], options, await self._batcher(_pack(command)))

    def pipeline(self, transaction: bool = False, shard_hint: str | None = None) -> Pipeline:  # noqa: ARG002, FBT001, FBT002 - as redis-py has it
        """Send several commands together; what must be atomic is a script."""
        if transaction:
            raise NotImplementedError("what must be atomic is a script")
        return _Batch(self)

    async def execute_batch(self, commands: Sequence[tuple[Any, Any]]) -> list[Any]:
        """Run commands in their order and give all replies; raises the first error."""
        asked = [self._batcher.submit(_pack(command)) for command, _ in commands]
        replies = await asyncio.gather(*asked, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return [
            self._read(command[0], options, reply)
            for (command, options), reply in zip(commands, replies, strict=True)
        ]

    def _read(self, name: str, options: dict[str, Any], reply: Any) -> Any:
        options.pop("keys", None)  # of use to a cache alone
        read = self.response_callbacks.get(name)
        try:
            return reply if read is None else read(reply, **options)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise InvalidResponse(f"{name} was answered with something else") from error

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - as redis-py has it
        if self._link is not None:
            self._link.close()
        await super().aclose(close_connection_pool)

    async def _execute(self, commands: Sequence[_Packed]) -> list[Any]:
        loop = asyncio.get_running_loop()
        if loop.time() < self._retry_at:
            raise RedisConnectionError("Redis was away a moment ago")
        try:
            async with asyncio.timeout(TIMEOUT):
                if self._link is None or self._link.is_lost:
                    self._link = await resp.connect(self.connection_pool)
                replies = await self._link.ask([packed for _, packed in commands])
        except AWAY as error:
            redis_errors.note(error, "commands")
            self._retry_at = loop.time() + RETRY_DELAY
            self._close()
            raise
        except BaseException:
            self._close()
            raise
        for reply in replies:
            if isinstance(reply, RedisError) and not isinstance(reply, NoScriptError):
                self._on_refusal(reply)
        return replies

    def _on_refusal(self, error: RedisError) -> None:
        redis_errors.note(error, "commands")
        now = asyncio.get_running_loop().time()
        if now >= self._renew_at:
            self._renew_at = now + RENEWAL
            self._close()

    def _close(self) -> None:
        if self._link is not None:
            self._link.close()


class _Batch(Pipeline):
    """Commands that are sent together over the connection that all share."""

    def __init__(self, redis: BatchingRedis) -> None:
        super().__init__(redis.connection_pool, redis.response_callbacks, transaction=False, shard_hint=None)
        self._redis = redis

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: ARG002, FBT001, FBT002 - as redis-py has it
        """Send the commands; raises the first error."""
        commands, self.command_stack = self.command_stack, []
        return await self._redis.execute_batch(commands)


def connect(url: Url) -> BatchingRedis:
    """Make a client that connects when first used, and fails soon when Redis is away."""
    client = BatchingRedis.from_pool(resp.pool(url, decode_responses=True))
    assert isinstance(client, BatchingRedis)
    return client


def _pack(command: Sequence[Any]) -> _Packed:
    # Some have names of two words: SCRIPT LOAD.
    return command[0], resp.pack(*command[0].split(), *command[1:])
