"""How much one user may do, over all pods: the generic cell rate algorithm, in Redis, by its clock.

While Redis is away, or slower than 50 ms, a pod counts by itself.
"""

import asyncio
import logging
import time
from enum import StrEnum

from redis.asyncio import Redis

from app import metrics
from app.errors import RateLimited
from app.redis_client import AWAY
from app.setting_types import Rate
from app.settings import Settings

PATIENCE = 0.05
# Users whom a pod remembers while it counts by itself; past it the oldest are forgotten.
MAX_REMEMBERED = 100_000

# The key holds the time at which the user is back at zero; it expires then. Gives the wait in milliseconds.
GCRA = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local zero = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0)) + interval
local wait = zero - interval * burst - now
if wait > 0 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.3f', zero), 'PX', math.ceil(zero - now))
return 0
"""

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


class Limits:
    """Counts what users do."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._rates: dict[Action, Rate] = {action: getattr(settings, f"rate_limit_{action}") for action in Action}
        self._script = redis.register_script(GCRA)
        self._zero: dict[str, float] = {}
        self._is_away = False

    async def check(self, action: Action, user_id: str) -> None:
        """Count an action; raises RateLimited where it is one too many."""
        rate = self._rates[action]
        if rate.burst == 0:
            return
        key = f"chat:limit:{action}:{user_id}"
        wait = await self._wait(key, rate)
        if wait > 0:
            metrics.of(metrics.RATE_LIMITED, action).inc()
            raise RateLimited(wait)

    async def _wait(self, key: str, rate: Rate) -> float:
        """Give the seconds to wait, 0 where the action may go on."""
        try:
            async with asyncio.timeout(PATIENCE):
                wait = int(await self._script(keys=[key], args=[1000 / rate.per_second, rate.burst]))
        except AWAY as error:
            if not self._is_away:
                _log.info("limits count per pod, Redis does not answer: %s", str(error) or type(error).__name__)
            self._is_away = True
            return self._wait_here(key, rate)
        self._is_away = False
        return wait / 1000

    def _wait_here(self, key: str, rate: Rate) -> float:
        now = time.monotonic()
        interval = 1 / rate.per_second
        zero = max(now, self._zero.pop(key, 0)) + interval
        wait = zero - interval * rate.burst - now
        self._zero[key] = zero - interval if wait > 0 else zero
        if len(self._zero) > MAX_REMEMBERED:
            del self._zero[next(iter(self._zero))]
        return max(0.0, wait)
