"""Who is online, decided in Redis so that each change happens once, whichever pod sees it.

    chat:pods             pods by the end of their lease, in milliseconds since 1970
    chat:pod:<pod>        the users with a socket on that pod
    chat:sockets          how many sockets each pod had at its last heartbeat
    chat:sockets:<user>   the ids of a user's sockets by their age
    chat:user:<user>      `on`: 1 or 0; `at`: the number of the last change; `seen`; and a field for each pod
    chat:leaving          users without a socket by the time at which they are offline
    chat:untold           users whose last change is being told, by the time at which another pod does it
    chat:epoch            when what Redis knew was lost; 0 where nothing ever was

    offline ── first socket: user:online ─▶ online ── last socket gone ─▶ leaving ── 3 s: user:offline ─▶ offline
                                              ▲──────── a socket again ──────┘

A heartbeat costs a few commands, however many sockets a pod has. The users of a pod whose lease has ended are
taken out by any other. When Redis has lost its state each pod tells anew whom it has, which is no change: for some
seconds nobody comes online by it. Numbers of changes only grow, also over a loss: they follow the clock.

A change is UNTOLD from its decision until `told`, in case the pod that decided dies in between. So it may be told
twice, under the same number: whoever hears of it drops what is not newer.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from app import presence_scripts, tracing
from app.gathering import CONNECT_PAUSE, Gathering
from app.redis_client import AWAY, MOST_TOGETHER, Script

LEASE_MS = 15_000
HEARTBEAT = 3.0
GRACE_MS = 3_000
# After a loss: long enough for every pod to notice and to tell whom it has.
QUIET_MS = 8_000
SEEN_MS = 90 * 86_400_000
# Users of one run of a script, for which Redis does nothing else.
BATCH = 200

# A socket that opens or closes, as the script SOCKETS takes it.
_Step = tuple[str, str, int, str, float, int]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Whether a user is online, and when they were last seen."""

    user_id: str
    is_online: bool
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """That a user came or went; `number` grows with each change of that user.

    `traceparent` is where in a trace they came; that they went is found out later, and outside of any.
    """

    user_id: str
    is_online: bool
    number: int
    traceparent: str | None = None


class Presence:
    """The part of this pod in who is online, and what all pods together say."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._pod = uuid4().hex
        self._sockets: Counter[str] = Counter()
        self._knows_epoch = False
        self._script = Script(redis, presence_scripts.SOCKETS)
        # Both kinds in one queue: what happened to a user first must be first in Redis.
        self._step = Gathering(
            self._take_steps, lambda _: tracing.command("EVALSHA"), MOST_TOGETHER, pause=CONNECT_PAUSE
        )
        self._enter = Script(redis, presence_scripts.ENTER)
        self._leave = Script(redis, presence_scripts.LEAVE)
        self._settle = Script(redis, presence_scripts.SETTLE)
        self._told = Script(redis, presence_scripts.TOLD)

    async def opened(self, user_id: str, socket_id: str, most: int) -> tuple[list[PresenceChange], list[str]]:
        """Note a socket of a user's; gives the change where they come online by it, and what exceeds `most`.

        These are the oldest of the user's sockets over all pods.
        """
        self._sockets[user_id] += 1
        is_first = self._sockets[user_id] == 1
        try:
            number, too_many = await self._step(
                ("open", user_id, int(is_first), socket_id, time.time(), -(most + 1))
            )
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)
            return [], []
        self._knows_epoch = self._knows_epoch or is_first
        return _came_online([user_id], [number]), too_many

    async def told(self, changes: Sequence[PresenceChange]) -> None:
        """Note that changes were told to those whom they concern; before that any pod may come to tell them."""
        try:
            await self._told(args=[part for change in changes for part in (change.user_id, change.number)])
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)

    async def closed(self, user_id: str, socket_id: str) -> None:
        """Note that a socket of a user's is gone."""
        self._sockets[user_id] -= 1
        is_last = self._sockets[user_id] <= 0
        if is_last:
            del self._sockets[user_id]
        try:
            await self._step(("close", user_id, int(is_last), socket_id, 0, 0))
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)

    async def _take_steps(self, steps: list[_Step]) -> list[Any]:
        """Tell Redis of sockets that open and close, in their order; gives what SOCKETS gives for each."""
        answers: list[Any] = []
        for start in range(0, len(steps), BATCH):
            args: list[Any] = [self._pod, int(self._knows_epoch), QUIET_MS, GRACE_MS, SEEN_MS]
            args.extend(chain.from_iterable(steps[start : start + BATCH]))
            answers += await self._script(args=args)
        return answers

    async def pinged(self, user_id: str) -> None:
        """Renew when a user was last seen."""
        try:
            seconds, microseconds = await self._redis.time()
            await self._redis.hset(f"chat:user:{user_id}", "seen", str(seconds * 1000 + microseconds // 1000))
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)

    async def beat(self) -> list[PresenceChange]:
        """Hold the lease of this pod, and restore what Redis has lost.

        Gives who comes online by it: those whom others took for gone, because this pod had stood still.
        """
        seconds, microseconds = await self._redis.time()
        end = seconds * 1000 + microseconds // 1000 + LEASE_MS
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd("chat:pods", {self._pod: end})
            pipe.hset("chat:sockets", self._pod, str(sum(self._sockets.values())))
            pipe.scard(f"chat:pod:{self._pod}")
            *_, listed = await pipe.execute()
        users = list(self._sockets)
        changes: list[PresenceChange] = []
        if listed != len(users):
            for start in range(0, len(users), BATCH):
                part = users[start : start + BATCH]
                numbers = await self._enter(args=[self._pod, int(self._knows_epoch), QUIET_MS, *part])
                self._knows_epoch = True
                changes += _came_online(part, numbers)
        return changes

    async def settle(self) -> list[PresenceChange]:
        """Take out the users of dead pods; gives who is offline from now on, and what nobody has told in time."""
        found = await self._settle(args=[SEEN_MS, BATCH])
        return [
            PresenceChange(str(user_id), is_online=on == "1", number=int(number)) for user_id, on, number in found
        ]

    async def hand_back(self) -> None:
        """Give up the lease: this pod has no sockets any more."""
        users = list(self._sockets)
        self._sockets.clear()
        try:
            for start in range(0, len(users), BATCH):
                await self._leave(args=[self._pod, GRACE_MS, *users[start : start + BATCH]])
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.zrem("chat:pods", self._pod)
                pipe.hdel("chat:sockets", self._pod)
                await pipe.execute()
        except AWAY as error:
            _log.info("presence was not handed back, its lease ends by itself: %s", error)

    async def counts(self) -> tuple[int, int]:
        """Count the sockets and the users that are online, over all pods; none while Redis is away."""
        try:
            pods = await self._redis.zrange("chat:pods", 0, -1)
            sockets = await self._redis.hvals("chat:sockets")
            keys = [f"chat:pod:{pod!s}" for pod in pods]
            users = await self._redis.sunion(keys) if keys else []
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)
            return 0, 0
        return sum(int(count) for count in sockets), len(users)

    async def whereabouts(self, user_ids: Sequence[str]) -> list[Whereabouts]:
        """Tell of users whether they are online; nobody is while Redis is away."""
        try:
            async with asyncio.timeout(1), self._redis.pipeline(transaction=False) as pipe:
                for user_id in user_ids:
                    pipe.hmget(f"chat:user:{user_id}", "on", "seen")
                found = await pipe.execute()
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)
            found = [(None, None)] * len(user_ids)
        return [
            Whereabouts(
                user_id, on == "1", None if seen is None else datetime.fromtimestamp(int(seen) / 1000, UTC)
            )
            for user_id, (on, seen) in zip(user_ids, found, strict=True)
        ]


def _came_online(user_ids: Sequence[str], numbers: Sequence[int]) -> list[PresenceChange]:
    return [
        PresenceChange(user_id, is_online=True, number=int(number), traceparent=tracing.traceparent())
        for user_id, number in zip(user_ids, numbers, strict=True)
        if int(number)
    ]
