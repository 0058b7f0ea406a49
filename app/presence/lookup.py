"""Look-ups of presence over all pods, as `presence` keeps it in Redis."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from redis.asyncio import Redis

from app.redis.connection import AWAY

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UserPresence:
    """Whether a user is online, and when they were last seen."""

    user_id: str
    is_online: bool
    last_seen: datetime | None


async def counts(redis: Redis) -> tuple[int, int]:
    """Count the sockets and the users that are online, over all pods; none while Redis is away."""
    try:
        pods = await redis.zrange("chat:pods", 0, -1)
        sockets = await redis.hvals("chat:sockets")
        keys = [f"chat:pod:{pod!s}" for pod in pods]
        users = await redis.sunion(keys) if keys else []
    except AWAY as error:
        _log.debug("presence pauses, Redis is away: %s", error)
        return 0, 0
    return sum(int(count) for count in sockets), len(users)


async def user_presence(redis: Redis, user_ids: Sequence[str]) -> list[UserPresence]:
    """Look up whether users are online; nobody is while Redis is away."""
    try:
        async with asyncio.timeout(1), redis.pipeline(transaction=False) as pipe:
            for user_id in user_ids:
                pipe.hmget(f"chat:user:{user_id}", "on", "seen")
            found = await pipe.execute()
    except AWAY as error:
        _log.debug("presence pauses, Redis is away: %s", error)
        found = [(None, None)] * len(user_ids)
    return [
        UserPresence(user_id, on == "1", None if seen is None else datetime.fromtimestamp(int(seen) / 1000, UTC))
        for user_id, (on, seen) in zip(user_ids, found, strict=True)
    ]
