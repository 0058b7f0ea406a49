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
from uuid import uuid4

from redis.asyncio import Redis

from app import tracing
from app.redis_client import AWAY

LEASE_MS = 15_000
HEARTBEAT = 3.0
GRACE_MS = 3_000
# After a loss: long enough for every pod to notice and to tell whom it has.
QUIET_MS = 8_000
# How long a pod may take to tell a change before another one does.
TELLING_MS = 2_000
SEEN_MS = 90 * 86_400_000
BATCH = 200

_NOW = (
    f"local TELLING = {TELLING_MS}"
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function change(key, on)
    local at = math.max(now, tonumber(redis.call('HGET', key, 'at') or 0) + 1)
    redis.call('HSET', key, 'on', on, 'at', string.format('%d', at))
    return at
end
local function must_tell(user)
    redis.call('ZADD', 'chat:untold', now + TELLING, user)
end
local function is_alone(key)
    for _, field in ipairs(redis.call('HKEYS', key)) do
        if string.sub(field, 1, 2) == 'p:' then return false end
    end
    return true
end
"""
)

# ARGV: pod, whether the pod knows an epoch, then users. Gives the number of the change for each who came online.
_OPEN = (
    _NOW
    + """
local epoch = redis.call('GET', 'chat:epoch')
if not epoch then
    epoch = ARGV[2] == '1' and now or 0
    redis.call('SET', 'chat:epoch', string.format('%d', epoch))
end
local is_quiet = now - tonumber(epoch) < tonumber(ARGV[3])
local changes = {}
for place = 4, #ARGV do
    local key = 'chat:user:' .. ARGV[place]
    redis.call('HSET', key, 'p:' .. ARGV[1], 1, 'seen', string.format('%d', now))
    redis.call('SADD', 'chat:pod:' .. ARGV[1], ARGV[place])
    redis.call('ZREM', 'chat:leaving', ARGV[place])
    local is_new = redis.call('HGET', key, 'on') ~= '1'
    local at = is_new and change(key, 1) or 0
    if is_new and not is_quiet then must_tell(ARGV[place]) end
    changes[#changes + 1] = is_quiet and 0 or at
    redis.call('PERSIST', key)
end
return changes
"""
)

# ARGV: pod, grace, how long to remember, then users.
_CLOSE = (
    _NOW
    + """
for place = 4, #ARGV do
    local key = 'chat:user:' .. ARGV[place]
    redis.call('HDEL', key, 'p:' .. ARGV[1])
    redis.call('SREM', 'chat:pod:' .. ARGV[1], ARGV[place])
    redis.call('HSET', key, 'seen', string.format('%d', now))
    if is_alone(key) then redis.call('ZADD', 'chat:leaving', now + tonumber(ARGV[2]), ARGV[place]) end
end
return redis.status_reply('OK')
"""
)

# ARGV: how long to remember, how many at once. Gives users, whether each is online, and the number of that change.
_SETTLE = (
    _NOW
    + """
for _, pod in ipairs(redis.call('ZRANGEBYSCORE', 'chat:pods', 0, now)) do
    local users = redis.call('SPOP', 'chat:pod:' .. pod, tonumber(ARGV[2]))
    for _, user in ipairs(users) do
        local key = 'chat:user:' .. user
        redis.call('HDEL', key, 'p:' .. pod)
        if is_alone(key) then redis.call('ZADD', 'chat:leaving', now, user) end
    end
    if #users == 0 then
        redis.call('ZREM', 'chat:pods', pod)
        redis.call('HDEL', 'chat:sockets', pod)
    end
end
local changes = {}
for _, user in ipairs(redis.call('ZRANGEBYSCORE', 'chat:leaving', 0, now, 'LIMIT', 0, tonumber(ARGV[2]))) do
    local key = 'chat:user:' .. user
    redis.call('ZREM', 'chat:leaving', user)
    if is_alone(key) and redis.call('HGET', key, 'on') == '1' then
        local at = change(key, 0)
        must_tell(user)
        changes[#changes + 1] = {user, '0', string.format('%d', at)}
        redis.call('PEXPIRE', key, tonumber(ARGV[1]))
    end
end
for _, user in ipairs(redis.call('ZRANGEBYSCORE', 'chat:untold', 0, now, 'LIMIT', 0, tonumber(ARGV[2]))) do
    local last = redis.call('HMGET', 'chat:user:' .. user, 'on', 'at')
    if last[2] then
        must_tell(user)
        changes[#changes + 1] = {user, last[1], last[2]}
    else
        redis.call('ZREM', 'chat:untold', user)
    end
end
return changes
"""
)

# ARGV: users and the numbers of their changes that were told. A later change remains to be told.
_TOLD = """
for place = 1, #ARGV, 2 do
    local user = ARGV[place]
    if redis.call('HGET', 'chat:user:' .. user, 'at') == ARGV[place + 1] then
        redis.call('ZREM', 'chat:untold', user)
    end
end
return redis.status_reply('OK')
"""

# ARGV: a user, a socket of theirs, its age, the rank of the oldest that is too many, how long to remember. Gives
# the sockets that are too many.
_REGISTER = """
local key = 'chat:sockets:' .. ARGV[1]
redis.call('ZADD', key, ARGV[3], ARGV[2])
local too_many = redis.call('ZRANGE', key, 0, ARGV[4])
if #too_many > 0 then redis.call('ZREMRANGEBYRANK', key, 0, ARGV[4]) end
redis.call('PEXPIRE', key, ARGV[5])
return too_many
"""

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
        self._open = redis.register_script(_OPEN)
        self._close = redis.register_script(_CLOSE)
        self._register = redis.register_script(_REGISTER)
        self._settle = redis.register_script(_SETTLE)
        self._told = redis.register_script(_TOLD)

    async def opened(self, user_id: str) -> list[PresenceChange]:
        """Note a socket of a user's; gives the change where they come online by it."""
        self._sockets[user_id] += 1
        if self._sockets[user_id] > 1:
            return []
        try:
            return await self._enter([user_id])
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)
            return []

    async def told(self, changes: Sequence[PresenceChange]) -> None:
        """Note that changes were told to those whom they concern; before that any pod may come to tell them."""
        try:
            await self._told(args=[part for change in changes for part in (change.user_id, change.number)])
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)

    async def closed(self, user_id: str) -> None:
        """Note that a socket of a user's is gone."""
        self._sockets[user_id] -= 1
        if self._sockets[user_id] > 0:
            return
        del self._sockets[user_id]
        try:
            await self._close(args=[self._pod, GRACE_MS, SEEN_MS, user_id])
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)

    async def register(self, user_id: str, socket_id: str, most: int) -> list[str]:
        """Count a socket among its user's, over all pods; gives the oldest of them that are too many."""
        try:
            too_many = await self._register(args=[user_id, socket_id, time.time(), -(most + 1), SEEN_MS])
        except AWAY as error:
            _log.debug("sockets are not counted, Redis is away: %s", error)
            return []
        return [str(found) for found in too_many]

    async def unregister(self, user_id: str, socket_id: str) -> None:
        """Count a socket no more."""
        try:
            await self._redis.zrem(f"chat:sockets:{user_id}", socket_id)
        except AWAY as error:
            _log.debug("sockets are not counted, Redis is away: %s", error)

    async def pinged(self, user_id: str) -> None:
        """Renew when a user was last seen."""
        try:
            seconds, microseconds = await self._redis.time()
            await self._redis.hset(f"chat:user:{user_id}", "seen", str(seconds * 1000 + microseconds // 1000))
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)

    async def _enter(self, user_ids: Sequence[str]) -> list[PresenceChange]:
        numbers = await self._open(args=[self._pod, int(self._knows_epoch), QUIET_MS, *user_ids])
        self._knows_epoch = True
        return [
            PresenceChange(user_id, is_online=True, number=int(number), traceparent=tracing.traceparent())
            for user_id, number in zip(user_ids, numbers, strict=True)
            if int(number)
        ]

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
                changes += await self._enter(users[start : start + BATCH])
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
                await self._close(args=[self._pod, GRACE_MS, SEEN_MS, *users[start : start + BATCH]])
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
