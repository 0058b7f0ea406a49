"""Where each pod is reached by the others, in Redis under a lease."""

import asyncio
import logging
import socket
import time
from urllib.parse import urlsplit

from redis.asyncio import Redis

from app.redis_client import AWAY
from app.settings import Settings

LEASE = 30
RENEWAL = 10.0
REMEMBERED = 5.0

_log = logging.getLogger(__name__)


class Addresses:
    """The socket listeners of all pods, as `host:port`."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._known: dict[str, tuple[str, float]] = {}

    async def announce_forever(self, pod: str) -> None:
        """Keep our own address known."""
        while True:
            try:
                address = await asyncio.to_thread(_own_address, self._settings)
                await self._redis.set(f"chat:address:{pod}", address, ex=LEASE)
            except AWAY as error:
                _log.debug("the other pods do not hear of our address, Redis is away: %s", error)
            await asyncio.sleep(RENEWAL)

    async def of(self, pod: str) -> str | None:
        """Give the address of a pod; None where it is gone. While Redis is away the one that was known stands.

        Raises what AWAY lists where none was known.
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
        self._known.pop(pod, None)
        if found is None:
            return None
        self._known[pod] = (str(found), time.monotonic() + REMEMBERED)
        return str(found)

    def forget(self, pod: str) -> None:
        """Ask anew next time: the pod did not answer."""
        self._known.pop(pod, None)


def _own_address(settings: Settings) -> str:
    """Find out where the other pods reach us: the address from which we reach Redis, unless one was set."""
    if settings.ws_host not in {"0.0.0.0", "::"}:  # noqa: S104 - the wildcard is what is looked for
        host = settings.ws_host
    else:
        redis = urlsplit(settings.redis_url.reveal())
        with socket.create_connection((redis.hostname or "localhost", redis.port or 6379), timeout=2) as probe:
            host = probe.getsockname()[0]
    return f"[{host}]:{settings.ws_port}" if ":" in host else f"{host}:{settings.ws_port}"
