"""Addresses at which pods reach one another, in Redis under a lease."""

import asyncio
import logging
import time

from app.config.settings import Settings
from app.redis.connection import AWAY, BatchingRedis

LEASE = 30
RENEWAL = 10.0
# How long an address is cached, in seconds.
CACHED = 5.0

_log = logging.getLogger(__name__)


class Addresses:
    """The socket listeners of all pods, as `host:port`."""

    def __init__(self, redis: BatchingRedis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._known: dict[str, tuple[str, float]] = {}
        # Whether our own lease could not be renewed: then those of other pods that live end as well.
        self._is_refused = False

    async def announce_forever(self, pod: str) -> None:
        """Keep our own address known."""
        while True:
            try:
                await self._redis.set(f"chat:address:{pod}", await self._own_address(), ex=LEASE)
                self._is_refused = False
            except AWAY as error:
                self._is_refused = True
                _log.debug("the address of this pod was not renewed, Redis is away: %s", error)
            await asyncio.sleep(RENEWAL)

    async def of(self, pod: str) -> str | None:
        """Give the address of a pod; None where it is gone. While Redis is away the last known one is given.

        Raises what AWAY lists where none is known.
        """
        address, until = self._known.get(pod, ("", 0.0))
        if until > time.monotonic():
            return address
        try:
            found = await self._redis.get(f"chat:address:{pod}")
        except AWAY:
            if not address:
                raise
            return address
        if found is None and self._is_refused:
            return address or None
        self._known.pop(pod, None)
        if found is None:
            return None
        self._known[pod] = (str(found), time.monotonic() + CACHED)
        return str(found)

    async def _own_address(self) -> str:
        """Find out where the other pods reach us: the address from which we reach Redis, unless one was set."""
        host = self._settings.ws_host
        if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared with, not listened on
            await self._redis.ping()
            # A Unix socket: all pods are on one machine with Redis.
            host = self._redis.own_host or "127.0.0.1"
        return f"[{host}]:{self._settings.ws_port}" if ":" in host else f"{host}:{self._settings.ws_port}"

    def forget(self, pod: str) -> None:
        """Ask anew next time: the pod did not answer."""
        self._known.pop(pod, None)
