"""Rate limits per user over all pods: the generic cell rate algorithm, in Redis, by its clock.

While Redis is away, refuses in any way, or is slower than 50 ms, a pod counts by itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import InvalidResponse

from app.config.settings import Settings
from app.config.types import Rate
from app.contract.errors import RateLimited
from app.observability import metrics, tracing
from app.observability.logs import LogLimiter
from app.postgres.database import IS_AGAIN
from app.redis import scripts
from app.redis.connection import AWAY
from app.redis.errors import describe
from app.runtime.batching import Batcher

# In seconds, from the check on: past it a pod counts by itself.
REDIS_TIMEOUT = 0.05
# Checks of one run of the script, during which Redis does nothing else.
MAX_BATCH = 256
# Counters that a pod keeps while it counts by itself; past it the oldest are dropped.
MAX_REMEMBERED = 100_000

GCRA = scripts.read("app.identity", "rate_limits.lua")

# The key that counts an action, the user's rate, and when it was asked about.
_Check = tuple[str, Rate, float]

_log = logging.getLogger(__name__)


class Action(StrEnum):
    """The kinds of actions that are limited, each by a setting of its own."""

    SEND = "send"
    WRITE = "write"
    CREATE = "create"
    READ = "read"
    TYPING = "typing"
    CONNECT = "connect"
    SYNC = "sync"


class RateLimits:
    """Counts the actions of users; past the limit they are refused."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._rates: dict[Action, Rate] = {action: getattr(settings, f"rate_limit_{action}") for action in Action}
        self._script = scripts.Script(redis, GCRA)
        self._wait = Batcher(self._waits, lambda _: tracing.command("EVALSHA"), MAX_BATCH)
        self._zero: dict[str, float] = {}
        self._limiter = LogLimiter()

    async def check(self, action: Action, user_id: str) -> None:
        """Count an action; raises RateLimited where it is one too many."""
        if not self._rates[action].burst or IS_AGAIN.get():
            return
        check = self._check(action, user_id)
        try:
            wait = await self._wait(check)
        except AWAY as error:
            wait = self._without_redis(check, error)
        _admit(action, wait)

    def check_soon(self, action: Action, user_id: str, callback: Callable[[Exception | None], None]) -> None:
        """Count an action; `callback` is called once, in the order of the calls, with what `check` would raise."""
        if not self._rates[action].burst or IS_AGAIN.get():
            callback(None)
            return
        check = self._check(action, user_id)

        def on_counted(answer: asyncio.Future[float]) -> None:
            try:
                _admit(action, self._counted(check, answer))
            except Exception as error:  # noqa: BLE001 - it is the caller's
                callback(error)
            else:
                callback(None)

        self._wait(check).add_done_callback(on_counted)

    def _counted(self, check: _Check, answer: asyncio.Future[float]) -> float:
        try:
            return answer.result()
        except AWAY as error:
            return self._without_redis(check, error)

    def _check(self, action: Action, user_id: str) -> _Check:
        return f"chat:limit:{action}:{user_id}", self._rates[action], time.monotonic()

    async def _waits(self, checks: list[_Check]) -> list[Any]:
        """Give for each check the seconds to wait, 0 where the action may go on, or what Redis answers instead."""
        # No check waits longer, also if it came while others were under way.
        left = checks[0][2] + REDIS_TIMEOUT - time.monotonic()
        if left <= 0:
            raise TimeoutError("the rate limit took too long")
        args = [part for _, rate, _ in checks for part in (1000 / rate.per_second, rate.burst)]
        async with asyncio.timeout(left):
            waits = await self._script(keys=[key for key, _, _ in checks], args=args)
        if not isinstance(waits, list) or len(waits) != len(checks):
            raise InvalidResponse("the answer of a rate limit is no number")
        return [wait / 1000 if isinstance(wait, int) else _refusal(wait) for wait in waits]

    def _without_redis(self, check: _Check, error: Exception) -> float:
        """Count here while Redis is away, refuses, or takes too long."""
        now = time.monotonic()
        if self._limiter.allows("per pod", now):
            _log.info("rate limits count per pod, Redis does not answer: %s", describe(error))
        key, rate, _ = check
        return self._wait_here(key, rate, now)

    def _wait_here(self, key: str, rate: Rate, now: float) -> float:
        interval = 1 / rate.per_second
        zero = max(now, self._zero.pop(key, 0)) + interval
        wait = zero - interval * rate.burst - now
        self._zero[key] = zero - interval if wait > 0 else zero
        if len(self._zero) > MAX_REMEMBERED:
            del self._zero[next(iter(self._zero))]
        return max(0.0, wait)


def _admit(action: Action, wait: float) -> None:
    if wait > 0:
        metrics.of(metrics.RATE_LIMITED, action).inc()
        raise RateLimited(wait)


def _refusal(answer: Any) -> Exception:
    """Give what is raised for an answer that is no number."""
    return answer if isinstance(answer, Exception) else InvalidResponse("the answer of a rate limit is no number")
