"""Presence: who is online, decided in Redis so that each change happens once, whichever pod sees it.

    chat:pods             pods by the end of their lease, in milliseconds since 1970
    chat:pod:<pod>        the users with a socket on that pod
    chat:steps            the number of each pod's last step
    chat:sockets          how many sockets each pod had at its last heartbeat
    chat:user:<user>      `on`: 1 or 0; `at`: the number of the last change; `seen`; for each pod the sockets there
    chat:leaving          users without a socket by the time at which they are offline
    chat:arriving         users who may have come, decided on after the quiet period, by the change's number
    chat:untold           users whose last change is being announced, by the time at which another pod does it
    chat:watched          when pods last looked for users who are gone
    chat:quiet            end of the quiet period, in which nobody goes or comes: Redis was away or has lost data

    offline ── first socket: user:online ─▶ online ── last socket gone ─▶ leaving ── 3 s: user:offline ─▶ offline
                                              ▲──────── a socket again ──────┘

A pod never sends Redis events, but state: the sockets that a user has on it, as often as it likes. A step
that fails, or whose answer is lost, is repeated until it is known to be applied; a late copy of it does nothing.
When Redis has not got the pod's last step any more, all of the pod's users are asserted anew, and those that only
Redis lists as well; so a heartbeat costs one command, however many sockets a pod has. A pod also says by which
change it knows a user online: so nobody comes online a second time only because Redis has forgotten them, and
who left meanwhile goes offline. Numbers of changes only grow, also over a loss: they follow the clock.

A change is in `chat:untold` from its decision until `announced`, in case the pod that decided dies in between.
So it may be announced twice, under the same number: receivers drop what is not newer.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from app.observability import tracing
from app.presence import lookup as presence_lookup
from app.presence import scripts as presence_scripts
from app.presence.changes import PresenceChange, PresenceChanges
from app.presence.lookup import UserPresence
from app.presence.sockets import NO_SOCKETS, UserSockets
from app.redis.connection import AWAY, MAX_BATCH
from app.redis.scripts import Script
from app.runtime.batching import CONNECT_PAUSE, Batcher

LEASE_MS = 15_000
HEARTBEAT = 3.0
GRACE_MS = 3_000
# The quiet period after a loss or a silence: every pod can notice, renew its lease and assert its users in it.
QUIET_MS = 8_000
# Pods look for who is gone all the time; when none did for so long, Redis was away.
GAP_MS = 3_000
# How long a pod may take to announce a change before another one does; renewed while the pod is at it.
ANNOUNCING_MS = 5_000
SEEN_MS = 90 * 86_400_000
# Users of one run of a script, for which Redis does nothing else.
BATCH = 200
# Sockets of a user over all pods, unless it is set.
MAX_SOCKETS = 20

# A user whose sockets are asserted, and the traceparent of the caller.
_Step = tuple[str, str | None]
# A user, by which change they are known online, and their sockets here.
_Assertion = tuple[str, int, str]
_NO_TRACES: Mapping[str, str | None] = {}

_log = logging.getLogger(__name__)


class Presence:
    """The presence of this pod's users, and look-ups of it over all pods."""

    def __init__(self, redis: Redis, max_sockets: int = MAX_SOCKETS) -> None:
        self._redis = redis
        self._max_sockets = max_sockets
        self._pod = uuid4().hex
        # What this pod has to announce.
        self.changes = PresenceChanges()
        # Users with sockets here, or who had some and may not be offline yet.
        self._users: dict[str, UserSockets] = {}
        self._count = 0
        self._age = 0
        # Users whose state here Redis may not have.
        self._dirty: set[str] = set()
        # Users with a change that is not decided or announced yet, as far as this pod knows.
        self._pending: set[str] = set()
        # Whether Redis may list users for this pod who are not here.
        self._must_compare = False
        # The last step, and the last one that is known to be applied.
        self._number = 0
        self._confirmed = 0
        self._is_away = False
        self._is_over = False
        self._step = Batcher(
            self._take_steps, lambda _: tracing.command("EVALSHA"), MAX_BATCH, pause=CONNECT_PAUSE
        )
        self._assert = Script(redis, presence_scripts.ASSERT_SOCKETS)
        self._beat = Script(redis, presence_scripts.HEARTBEAT)
        self._settle = Script(redis, presence_scripts.SETTLE)
        self._announced = Script(redis, presence_scripts.ANNOUNCED)
        self._correct = Script(redis, presence_scripts.CORRECT)
        # Set when Redis has lost what it knew of this pod, or others took the pod for dead.
        self.lost = asyncio.Event()

    async def opened(self, user_id: str, socket_id: str) -> list[str]:
        """Note a socket of a user's; gives their sockets over all pods that are past the limit, the oldest.

        Raises nothing, and does not wait while Redis is away. A caller that is cancelled must call `closed`.
        """
        user = self._users.setdefault(user_id, UserSockets())
        # Two sockets are never of the same age.
        self._age = max(self._age + 1, time.time_ns() // 1000)
        self._count += not user.remove(socket_id)
        user.add(socket_id, self._age)
        if self._is_away:
            self._dirty.add(user_id)
            return []
        try:
            return await self._step((user_id, tracing.traceparent()))
        except AWAY as error:
            self._note_away(error)
            return []

    def closed(self, user_id: str, socket_id: str) -> None:
        """Note that a socket of a user's is gone; may be called again."""
        user = self._users.get(user_id)
        if user is None or not user.remove(socket_id):
            return
        self._count -= 1
        if self._is_away or self._is_over:
            self._dirty.add(user_id)
        else:
            self._step.submit((user_id, None)).add_done_callback(self._on_closed)

    def _on_closed(self, step: asyncio.Future[list[str]]) -> None:
        """Handle the end of a step that nothing awaits; where it failed `repair` asserts its user again."""
        error = None if step.cancelled() else step.exception()
        if isinstance(error, AWAY):
            self._note_away(error)
        elif error is not None:
            _log.error("the presence of a user could not be asserted", exc_info=error)

    async def _take_steps(self, steps: list[_Step]) -> list[list[str]]:
        """Assert the sockets of users; gives for each question those that are too many."""
        traceparents: dict[str, str | None] = {}
        for user_id, traceparent in steps:
            traceparents[user_id] = traceparent or traceparents.get(user_id)
        # A user who is not asserted now, whatever the reason, is asserted later.
        self._dirty.update(traceparents)
        too_many = await self._assert_all(list(traceparents), traceparents)
        return [too_many.get(user_id, []) for user_id, _ in steps]

    async def _assert_all(
        self, users: list[str], traceparents: Mapping[str, str | None] = _NO_TRACES
    ) -> dict[str, list[str]]:
        """Assert users until Redis fails; gives their sockets that are too many."""
        too_many: dict[str, list[str]] = {}
        for start in range(0, len(users), BATCH):
            part = users[start : start + BATCH]
            for assertion, answer in zip(*await self._assert_some(part), strict=True):
                self._learn(assertion, answer, traceparents.get(assertion[0]))
                if answer[3]:
                    too_many[assertion[0]] = answer[3]
            if self._is_away:
                break
        return too_many

    async def _assert_some(self, users: Sequence[str]) -> tuple[list[_Assertion], list[Any]]:
        """Assert users, who stay dirty where it may not be applied; gives the assertions and their answers."""
        users_here = [(user_id, self._users.get(user_id, NO_SOCKETS)) for user_id in users]
        assertions = [(user_id, user.known, user.sockets) for user_id, user in users_here]
        self._dirty.difference_update(users)
        try:
            answers = await self._run(assertions)
        except BaseException as error:
            # Applied or not: the same again does no harm.
            self._dirty.update(users)
            if not isinstance(error, AWAY):
                raise
            self._note_away(error)
            return [], []
        self._is_away = False
        answered = []
        for assertion, answer in zip(assertions, answers, strict=True):
            if isinstance(answer, Exception):
                _log.debug("the presence of a user waits, Redis refuses it: %s", answer)
                self._dirty.add(assertion[0])
            else:
                answered.append((assertion, answer))
        return [one for one, _ in answered], [answer for _, answer in answered]

    async def _run(self, assertions: Sequence[_Assertion]) -> list[Any]:
        while True:
            self._number += 1
            number = self._number
            args: list[Any] = [self._pod, number, self._confirmed, LEASE_MS, QUIET_MS, GRACE_MS, ANNOUNCING_MS]
            args += [self._max_sockets, *chain.from_iterable(assertions)]
            outcome, *answers = await self._assert(args=args)
            if outcome == "done":
                self._confirmed = max(self._confirmed, number)
                return list(answers)
            if outcome == "late":
                raise TimeoutError("a later step was applied before this one")
            self._note_loss()

    def _learn(self, assertion: _Assertion, answer: list[Any], traceparent: str | None) -> None:
        """Keep by which change a user is online; forget one without a socket here who is offline or elsewhere."""
        user_id, _, sockets = assertion
        came, known, is_pending = map(int, answer[:3])
        if came:
            self.changes.add(PresenceChange(user_id, True, came, traceparent))
        user = self._users.get(user_id)
        if user is None:
            return
        user.known = known
        if is_pending:
            self._pending.add(user_id)
            return
        self._pending.discard(user_id)
        if not sockets and not user.sockets:
            del self._users[user_id]

    def _note_loss(self) -> None:
        """Begin anew: Redis has lost what it knew of this pod, or others took the pod for dead."""
        self._confirmed = 0
        self.lost.set()
        self._must_compare = True
        self._dirty.update(self._users)

    def _note_away(self, error: BaseException) -> None:
        if not self._is_away:
            _log.info("presence pauses, Redis does not answer: %s", str(error) or type(error).__name__)
        self._is_away = True

    async def repair(self) -> dict[str, list[str]]:
        """Assert again whatever Redis may not know; gives the sockets of users that are too many.

        Raises what AWAY lists.
        """
        if self._must_compare or not self._confirmed:
            self._dirty.update(map(str, await self._redis.smembers(f"chat:pod:{self._pod}")))
            self._must_compare = False
            # A step, also without users: Redis knows this pod then, and the first user to come sees a loss.
            await self._assert_some([])
        return await self._assert_all(list(self._dirty))

    async def announced(self, changes: Collection[PresenceChange]) -> None:
        """Note that changes were announced; until then any pod may come to announce them."""
        self.changes.done(changes)
        if not changes:
            return
        try:
            await self._announced(args=[part for change in changes for part in (change.user_id, change.number)])
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)

    async def correct(self, last: Sequence[tuple[str, bool, int]]) -> None:
        """Make new changes of users whose presence is not what was last announced: user, online, number."""
        args: list[str | float] = [SEEN_MS]
        for user_id, is_online, number in last:
            args += (user_id, int(is_online), number)
        await self._correct(args=args)

    async def pinged(self, user_id: str) -> None:
        """Renew when a user was last seen."""
        try:
            seconds, microseconds = await self._redis.time()
            await self._redis.hset(f"chat:user:{user_id}", "seen", str(seconds * 1000 + microseconds // 1000))
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)

    async def beat(self) -> None:
        """Renew the lease of this pod, and find out whether Redis still has what was asserted."""
        if self._is_over:
            return
        is_certain = not (self._dirty or self._step.is_busy)
        here = sum(1 for user in self._users.values() if user.sockets) if is_certain else -1
        is_lost = await self._beat(args=[self._pod, self._confirmed, LEASE_MS, QUIET_MS, self._count, here])
        self._is_away = False
        if is_lost:
            self._note_loss()
        # Until the change is known to be announced: a user who leaves before a loss would be online for ever.
        self._dirty |= self._pending

    async def settle(self) -> bool:
        """Decide who is offline, and take over changes not announced in time; gives whether there is more."""
        args: list[str | float] = [SEEN_MS, BATCH, GAP_MS, QUIET_MS, ANNOUNCING_MS, *self.changes.users(BATCH)]
        found = await self._settle(args=args)
        for user_id, on, number in found:
            self.changes.add(PresenceChange(str(user_id), on == "1", int(number)))
        return len(found) >= BATCH

    async def hand_back(self) -> None:
        """Give up the lease: this pod has no sockets any more."""
        self._is_over = True
        users = list(self._users.keys() | self._dirty)
        for user in self._users.values():
            user.sockets = ""
        self._count = 0
        try:
            await self._assert_all(users)
            if self._dirty or self._must_compare:
                _log.info("presence was not handed back, its lease ends by itself")
                return
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.zrem("chat:pods", self._pod)
                pipe.hdel("chat:steps", self._pod)
                pipe.hdel("chat:sockets", self._pod)
                await pipe.execute()
        except AWAY as error:
            _log.info("presence was not handed back, its lease ends by itself: %s", error)

    async def counts(self) -> tuple[int, int]:
        """Count the sockets and the users that are online, over all pods; none while Redis is away."""
        return await presence_lookup.counts(self._redis)

    async def user_presence(self, user_ids: Sequence[str]) -> list[UserPresence]:
        """Look up whether users are online; nobody is while Redis is away."""
        return await presence_lookup.user_presence(self._redis, user_ids)
