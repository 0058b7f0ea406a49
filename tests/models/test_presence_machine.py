"""Presence on a real Valkey, beside what is really so: answers are lost, Redis stops and forgets, pods die.

Time is the model's own: the scripts read it from a key.
"""

import asyncio
import os
import tempfile
from collections import deque
from contextlib import suppress
from pathlib import Path

import pytest
import redis.asyncio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.dev.valkey import start_valkey
from app.presence import presence
from app.presence import scripts as presence_scripts
from app.presence.presence import BATCH, HEARTBEAT, Presence

TICK = 500
BEAT_TICKS = round(HEARTBEAT * 1000) // TICK
# What a reload may be late by, for a few answers that were lost.
DELAY = 2_500
HEALED_WITHIN = 30_000
PODS = 3
USERS = ["anna", "ben", "carl"]
CLOCK = """local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
MODEL_CLOCK = "local now = tonumber(redis.call('GET', 'model:now'))\n"


class Line:
    """The connection of one pod: what it asks for may fail before or after it was done, or be done late."""

    def __init__(self, world):
        self.world = world
        self.faults = deque()

    async def execute_command(self, *command):
        fault = self.world.stopped or (self.faults.popleft() if self.faults else None)
        if fault == "before":
            raise RedisConnectionError("not there")
        if fault == "late":
            self.world.late.append(command)
            raise RedisTimeoutError("no answer yet")
        answer = await self.world.client.execute_command(*command)
        if fault == "after":
            raise RedisTimeoutError("the answer is lost")
        return answer

    async def smembers(self, key):
        return set(await self.execute_command("SMEMBERS", key))

    def pipeline(self, **options):
        if self.world.stopped or self.faults:
            raise RedisConnectionError("not there")
        return self.world.client.pipeline(**options)


class Pod:
    def __init__(self, world, phase):
        self.line = Line(world)
        self.presence = Presence(self.line)
        self.sockets = {user: set() for user in USERS}
        self.phase = phase
        self.is_frozen = False


class World(RuleBasedStateMachine):
    url = ""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.client = redis.asyncio.from_url(self.url, decode_responses=True)
        self.now = 1_000_000
        self.ticks = 0
        self.stopped = None
        self.late = deque()
        self.number = 0
        self.heals = 0
        self.pods = []
        self.dead = []
        # Since when each user has had a socket on a pod that runs, without an end.
        self.solid_since = dict.fromkeys(USERS)
        # What was told of each user, and whether they were really there and not there since the last of it.
        self.told = dict.fromkeys(USERS, (0, False))
        self.was_there = dict.fromkeys(USERS, False)
        self.was_away = dict.fromkeys(USERS, True)
        # Of whom only Redis knew what it has lost, because their pod is dead.
        self.forgotten = set()
        self.losses = 0
        self.run(self.client.flushall())
        self.run(self.set_clock())
        for number in range(PODS):
            self.add_pod(number)
        # Everybody is there at first: most that goes wrong goes wrong for somebody who is.
        for place, user in enumerate(USERS):
            self.open(place, user, is_lazy=False)

    def run(self, work):
        return self.loop.run_until_complete(work)

    def teardown(self):
        try:
            self.heal()
        finally:
            self.run(self.client.aclose())
            self.loop.close()

    async def set_clock(self):
        await self.client.set("model:now", self.now)

    def add_pod(self, phase):
        self.pods.append(Pod(self, phase))
        self.run(self.quietly(self.pods[-1].presence.beat()))

    @staticmethod
    async def quietly(work):
        try:
            return await work
        except presence.AWAY:
            return None

    @property
    def running(self):
        return [pod for pod in self.pods if not pod.is_frozen]

    def pod(self, place):
        return self.running[place % len(self.running)] if self.running else None

    def look(self):
        """Note who is really there."""
        for user in USERS:
            if any(pod.sockets[user] for pod in self.running):
                self.was_there[user] = True
                if self.solid_since[user] is None:
                    self.solid_since[user] = self.now
            else:
                self.was_away[user] = True
                self.solid_since[user] = None

    async def hear(self, pod, *, is_lazy=False):
        """Take in what a pod tells; who hears it drops what is not newer."""
        changes = pod.presence.changes.take(BATCH)
        if is_lazy:
            pod.presence.changes.put_back(changes)
            return
        for change in changes:
            user, last = change.user_id, self.told[change.user_id]
            if change.number <= last[0]:
                continue
            if change.is_online:
                assert not last[1] or self.was_away[user] or self.losses > 1, f"{user} came online twice"
            else:
                assert last[1] or self.was_there[user] or self.losses, f"{user} went offline twice"
                since = self.solid_since[user]
                assert since is None or since >= change.number - DELAY, f"{user} did not go offline"
            self.told[user] = (change.number, change.is_online)
            self.was_there[user] = self.was_away[user] = False
        await pod.presence.announced(changes)
        self.look()

    async def tick(self, ticks=1):
        self.now += ticks * TICK
        self.ticks += ticks
        await self.set_clock()
        for pod in self.running:
            if (self.ticks + pod.phase) % BEAT_TICKS < ticks:
                await self.quietly(pod.presence.beat())
            await self.quietly(pod.presence.repair())
            await self.quietly(pod.presence.settle())
            await self.drained(pod)
            await self.hear(pod)

    @staticmethod
    async def drained(pod):
        while pod.presence._step.is_busy:  # noqa: ASYNC110 - the end of a batch is told to nobody
            await asyncio.sleep(0)

    # What people do

    async def open_socket(self, pod, user):
        self.number += 1
        socket_id = f"s{self.number}"
        pod.sockets[user].add(socket_id)
        await pod.presence.opened(user, socket_id)
        await self.drained(pod)

    async def close_socket(self, pod, user):
        pod.presence.closed(user, pod.sockets[user].pop())
        await self.drained(pod)

    @rule(place=st.integers(0, 2), user=st.sampled_from(USERS), is_lazy=st.booleans())
    def open(self, place, user, is_lazy):
        if pod := self.pod(place):
            self.run(self.open_socket(pod, user))
            self.look()
            self.run(self.hear(pod, is_lazy=is_lazy))

    @rule(place=st.integers(0, 2), user=st.sampled_from(USERS))
    def close(self, place, user):
        pod = self.pod(place)
        if pod and pod.sockets[user]:
            self.run(self.close_socket(pod, user))
            self.look()

    @rule(place=st.integers(0, 2), other=st.integers(0, 2), user=st.sampled_from(USERS))
    def reload(self, place, other, user):
        """Nobody leaves who loads the page anew."""
        pod = self.pod(place)
        if pod and pod.sockets[user]:
            self.run(self.close_socket(pod, user))
            self.run(self.open_socket(self.pod(other), user))
            self.look()

    @rule(place=st.integers(0, 2), user=st.sampled_from(USERS))
    def give_up(self, place, user):
        """A connect is cancelled half-way, and closed twice."""

        async def cancelled():
            pod = self.pod(place)
            opening = asyncio.ensure_future(pod.presence.opened(user, "given-up"))
            await asyncio.sleep(0)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            pod.presence.closed(user, "given-up")
            pod.presence.closed(user, "given-up")
            await self.drained(pod)

        if self.running:
            self.was_there[user] = True
            self.run(cancelled())

    @rule(ticks=st.sampled_from([1, 2, 5, 8, 20, 40]))
    def wait(self, ticks):
        for _ in range(ticks):
            self.run(self.tick())

    # What breaks

    @rule(place=st.integers(0, 2), faults=st.lists(st.sampled_from(["before", "after", "late"]), max_size=3))
    def disturb(self, place, faults):
        if (pod := self.pod(place)) and not pod.line.faults:
            pod.line.faults.extend(faults)

    @precondition(lambda self: self.late and not self.stopped)
    @rule()
    def arrive_late(self):
        self.run(self.deliver())

    async def deliver(self):
        while self.late:
            # Nobody hears any more that Redis does not know the script.
            with suppress(NoScriptError):
                await self.client.execute_command(*self.late.popleft())

    @precondition(lambda self: not self.stopped)
    @rule(how=st.sampled_from(["before", "late"]))
    def stop_redis(self, how):
        self.stopped = how

    @precondition(lambda self: self.stopped)
    @rule(has_kept=st.booleans())
    def start_redis(self, has_kept):
        self.stopped = None
        if has_kept:
            self.run(self.deliver())
        else:
            self.late.clear()
            self.lose()

    @precondition(lambda self: not self.stopped)
    @rule(how=st.sampled_from(["before", "late"]), user=st.sampled_from(USERS), ticks=st.sampled_from([3, 10, 40]))
    def outage(self, how, user, ticks):
        """Redis stops, somebody leaves, and it goes on with what it had."""
        self.stop_redis(how)
        self.close(0, user)
        self.wait(ticks)
        self.start_redis(has_kept=True)
        self.wait(4)

    @precondition(lambda self: not self.stopped and self.losses < 2)
    @rule()
    def lose(self):
        self.losses += 1
        self.forgotten |= {user for pod in self.dead for user in pod.presence._users}
        # Whether it was told that they went, a few seconds ago, only Redis knew as well.
        for pod in self.pods:
            self.forgotten |= {user for user in pod.presence._users if not pod.sockets[user]}
        self.run(self.client.flushall())
        self.run(self.set_clock())

    @precondition(lambda self: len(self.pods) > 1)
    @rule(place=st.integers(0, 2))
    def kill(self, place):
        if pod := self.pod(place):
            self.pods.remove(pod)
            self.dead.append(pod)
            if self.losses:
                self.forgotten |= set(pod.presence._users)
            self.look()

    @precondition(lambda self: len(self.pods) > 1)
    @rule(place=st.integers(0, 2))
    def drain(self, place):
        if pod := self.pod(place):

            async def hand_back():
                for user, sockets in pod.sockets.items():
                    for socket_id in sockets:
                        pod.presence.closed(user, socket_id)
                    sockets.clear()
                await pod.presence.hand_back()
                await self.drained(pod)

            self.pods.remove(pod)
            self.dead.append(pod)
            if self.losses:
                self.forgotten |= set(pod.presence._users)
            self.run(hand_back())
            self.look()

    @precondition(lambda self: len(self.pods) < PODS)
    @rule(phase=st.integers(0, BEAT_TICKS - 1))
    def add(self, phase):
        self.add_pod(phase)

    @rule(place=st.integers(0, 2))
    def freeze(self, place):
        if pod := self.pod(place):
            pod.is_frozen = True
            self.look()

    @rule()
    def thaw(self):
        for pod in self.pods:
            pod.is_frozen = False
        self.look()

    # What must hold

    @precondition(lambda self: self.heals < 1)
    @rule()
    def heal_now(self):
        self.heals += 1
        self.heal()

    def heal(self):
        """Nothing is broken any more; within 30 s all is right."""
        self.thaw()
        if self.stopped:
            self.start_redis(has_kept=True)
        self.run(self.deliver())
        for pod in self.pods:
            pod.line.faults.clear()
        for _ in range(HEALED_WITHIN // TICK // 2):
            self.run(self.tick(2))
        self.run(self.check())
        self.losses = 0
        self.dead.clear()
        self.forgotten.clear()

    async def check(self):
        for pod in self.pods:
            there = {user for user in USERS if pod.sockets[user]}
            assert await self.client.smembers(f"chat:pod:{pod.presence._pod}") == there
            assert not pod.presence._dirty
            assert not pod.presence._pending
            assert set(pod.presence._users) == there
        names = {pod.presence._pod for pod in self.pods}
        assert set(await self.client.zrange("chat:pods", 0, -1)) == names
        assert {key.removeprefix("chat:pod:") for key in await self.client.keys("chat:pod:*")} <= names
        for name in ("leaving", "arriving", "untold"):
            assert await self.client.zrange(f"chat:{name}", 0, -1, withscores=True) == [], name
        for user in USERS:
            found = await self.client.hgetall(f"chat:user:{user}")
            listed = {
                name.removeprefix("p:"): {one.split(":")[1] for one in written.split()}
                for name, written in found.items()
                if name.startswith("p:")
            }
            really = {pod.presence._pod: pod.sockets[user] for pod in self.pods if pod.sockets[user]}
            assert listed == really
            is_there = bool(really)
            assert (found.get("on") == "1") == is_there
            if user in self.forgotten:
                self.told[user] = (self.told[user][0], is_there)
            assert self.told[user][1] == is_there, f"{user} was told as {self.told[user]}"


@pytest.fixture(scope="module")
def valkey_url():
    with tempfile.TemporaryDirectory() as name:
        server = start_valkey(Path(name))
        try:
            yield server.url
        finally:
            server.stop()


@pytest.mark.timeout(0)
def test_presence_is_right_in_the_end_whatever_breaks(valkey_url, monkeypatch):
    for name in ("ASSERT_SOCKETS", "HEARTBEAT", "SETTLE"):
        source = getattr(presence_scripts, name)
        assert CLOCK in source
        monkeypatch.setattr(presence_scripts, name, source.replace(CLOCK, MODEL_CLOCK))
    monkeypatch.setattr(presence, "CONNECT_PAUSE", 0)
    machine = type("Machine", (World,), {"url": valkey_url})
    profile = os.environ.get("HYPOTHESIS_PROFILE")
    chosen = settings.get_profile(profile or "models")
    # With a server behind it a step takes longer than in other models.
    budget = {} if profile else {"max_examples": 30, "stateful_step_count": 25}
    run_state_machine_as_test(machine, settings=settings(chosen, **budget))
