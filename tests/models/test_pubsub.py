"""The bus beside a Redis that acts and answers when it likes, refuses, falls silent and ends connections."""

import asyncio
import os

import pytest
from clockwork import Clockwork
from fake_redis import Connection, FakeRedis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app.config.types import Url
from app.redis import pubsub
from app.redis.pubsub import Bus

CHANNELS = [f"chat:c:{n}" for n in range(4)]
some_channels = st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True)
ERRORS = ["NOPERM no permissions", "LOADING dataset", "MOVED 1 127.0.0.1:1", "MOVED", "MISCONF no disk"]
GARBAGE = "garbage"
# Of the tests, so that a few messages reach it.
MAX_OUTGOING = 1_000
# By then all is as it was, whatever happened: a silent connection is found out, and there is another.
RECOVERY = 40
STEP = 0.5


class Pubsub(RuleBasedStateMachine):
    """One bus, and what it owes: channels, confirmations, and a doubt for whatever is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Clockwork()
        self.failures: list[object] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        self.redis = FakeRedis()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(pubsub.resp, "connect", self.redis.connect)
        self.patch.setattr(pubsub, "MAX_OUTGOING", MAX_OUTGOING)
        self.bus = Bus(Url("redis://127.0.0.1:1/0"))
        self.bus.attach(self.on_message, self.on_doubt, self.on_unreadable)
        self.wanted: set[str] = set()
        # Those of them for which `subscribe` has returned.
        self.promised: set[str] = set()
        self.received: set[str] = set()
        self.unreadable = self.doubts = self.garbage = self.number = 0
        # What must be received or doubted: the payload, its channel, and the doubts before it.
        self.owed: dict[str, tuple[str, int]] = {}
        # What was handed to the bus, and the doubts before.
        self.handed: dict[str, int] = {}
        self.waiting: dict[asyncio.Task[None], float] = {}
        self.tasks = [self.loop.create_task(self.bus.publish_forever())]
        self.tasks += [self.loop.create_task(self.bus.listen_forever())]
        self.run()

    def teardown(self) -> None:
        try:
            self.all_is_well_again()
        finally:
            for task in [*self.tasks, *self.waiting]:
                task.cancel()
            self.run()
            self.patch.undo()
            self.loop.close()

    def on_message(self, _: str, payload: bytes) -> None:
        if payload.decode() == GARBAGE:
            raise ValueError("it cannot be read")
        self.received.add(payload.decode())

    def on_doubt(self) -> None:
        self.doubts += 1

    def on_unreadable(self, channel: str) -> None:
        self.unreadable += channel in CHANNELS

    def run(self, seconds: float = 0.0) -> None:
        """Let time go by in small steps."""
        end = self.loop.now + seconds
        self.loop.turn(8)
        while self.loop.now < end:
            self.loop.now = min(end, self.loop.now + STEP)
            self.loop.turn(6)

    @property
    def listener(self) -> Connection | None:
        return None if self.bus._listener is None else self.bus._listener._transport

    # What the pod does

    @rule(channels=some_channels)
    def subscribe(self, channels: list[str]) -> None:
        self.wanted |= set(channels)
        task = self.loop.create_task(self.bus.subscribe(channels))
        self.waiting[task] = self.loop.now
        before = self.doubts

        def check(done: asyncio.Task[None]) -> None:
            del self.waiting[done]
            if done.cancelled():
                return
            done.result()
            found = self.wanted.intersection(channels)
            self.promised |= found
            for channel in found:
                assert self.bus.hears(channel) or not self.bus.is_listening or self.doubts > before

        task.add_done_callback(check)
        self.run()

    @rule(channels=some_channels)
    def unsubscribe(self, channels: list[str]) -> None:
        self.wanted -= set(channels)
        self.promised -= set(channels)
        for payload in [payload for payload, (channel, _) in self.owed.items() if channel in channels]:
            del self.owed[payload]
        self.tasks.append(self.loop.create_task(self.bus.unsubscribe(channels)))
        self.run()

    @rule(channel=st.sampled_from(CHANNELS))
    def want_again_at_once(self, channel: str) -> None:
        self.subscribe([channel])
        self.unsubscribe([channel])
        self.subscribe([channel])

    @rule()
    def give_up_waiting(self) -> None:
        for task in list(self.waiting)[:1]:
            task.cancel()
        self.run()

    @rule(size=st.integers(1, 300))
    def publish(self, size: int) -> None:
        self.number += 1
        payload = f"own-{self.number}-".ljust(size, "x")
        if self.bus._publisher_up:
            self.handed[payload] = self.doubts
        self.run_in_loop(lambda: self.bus.publish("chat:webhooks", payload.encode()))

    def run_in_loop(self, act) -> None:
        self.loop.call_soon(act)
        self.run()

    # What Redis and the network do

    @rule(channel=st.sampled_from(CHANNELS), is_garbage=st.booleans())
    def another_pod_publishes(self, channel: str, *, is_garbage: bool) -> None:
        self.number += 1
        payload = GARBAGE if is_garbage else f"other-{self.number}"
        if not is_garbage and channel in self.promised:
            self.owed[payload] = channel, self.doubts
        self.run_in_loop(lambda: self.redis.publish(channel, payload))

    @rule(is_prompt=st.booleans())
    def dawdle(self, *, is_prompt: bool) -> None:
        self.redis.is_prompt = is_prompt

    @rule(place=st.integers(0, 1), most=st.integers(1, 3))
    def act(self, place: int, most: int) -> None:
        self.at(place, lambda connection: connection.act(most))

    @rule(place=st.integers(0, 1))
    def deliver(self, place: int) -> None:
        self.at(place, lambda connection: connection.deliver())

    @rule(place=st.integers(0, 1))
    def end_before_acting(self, place: int) -> None:
        self.at(place, lambda connection: connection.end())

    @rule(place=st.integers(0, 1))
    def end_after_acting(self, place: int) -> None:
        self.at(place, lambda connection: (connection.act(), connection.end()))

    @rule(place=st.integers(0, 1))
    def fall_silent(self, place: int) -> None:
        def silence(connection: Connection) -> None:
            connection.is_silent = True

        self.at(place, silence)

    @rule(place=st.integers(0, 1))
    def lose_what_was_sent(self, place: int) -> None:
        self.at(place, Connection.lose_commands)

    @rule(error=st.sampled_from(ERRORS))
    def refuse_the_next(self, error: str) -> None:
        self.redis.errors.append(error)

    @rule(name=st.sampled_from([b"SUBSCRIBE", b"PUBLISH", b"PING"]), error=st.sampled_from(ERRORS))
    def refuse_all(self, name: bytes, error: str) -> None:
        self.redis.refused[name] = error

    @rule()
    def permit_all(self) -> None:
        self.redis.refused.clear()
        self.redis.errors.clear()

    @rule(takes=st.booleans())
    def take_connections(self, *, takes: bool) -> None:
        self.redis.takes_connections = takes

    @rule(seconds=st.floats(0.1, 12))
    def wait(self, seconds: float) -> None:
        self.run(seconds)

    def at(self, place: int, act) -> None:
        if place < len(self.redis.connections):
            self.run_in_loop(lambda: act(self.redis.connections[place]))

    # What must hold

    @invariant()
    def what_is_confirmed_is_subscribed(self) -> None:
        connection = self.listener
        for channel in CHANNELS:
            if self.bus.hears(channel):
                assert channel in self.wanted
                assert connection is not None
                assert not connection.is_open or channel in connection.channels

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        for started in self.waiting.values():
            assert self.loop.now - started <= pubsub.SUBSCRIBE_TIMEOUT + STEP

    @invariant()
    def what_waits_to_be_published_has_a_limit(self) -> None:
        assert sum(map(len, self.bus._outgoing)) <= MAX_OUTGOING + len(pubsub._PROBE)

    @invariant()
    def nothing_is_owed_that_is_not_wanted(self) -> None:
        assert self.bus._overdue <= self.wanted

    @invariant()
    def nothing_fails(self) -> None:
        assert self.failures == []
        for task in self.tasks[:2]:
            assert not task.done(), task

    def all_is_well_again(self) -> None:
        self.redis.is_prompt = self.redis.takes_connections = True
        self.permit_all()
        for place in (0, 1):
            self.at(place, Connection.act_and_deliver)
        self.run(RECOVERY)
        assert self.bus.is_up
        assert self.waiting == {}
        assert self.listener is not None
        assert self.listener.channels == self.wanted
        assert set(self.bus._channels) == self.wanted
        assert len(self.redis.connections) == 2
        for payload, (_, before) in self.owed.items():
            assert payload in self.received or self.doubts > before
        published = {payload for _, payload in self.redis.published}
        for payload, before in self.handed.items():
            assert payload in published or self.doubts > before
        # Right after garbage the next one comes as always, and without any doubt.
        doubts, unreadable = self.doubts, self.unreadable
        for channel in self.wanted:
            self.run_in_loop(lambda channel=channel: self.redis.publish(channel, GARBAGE))
            self.run_in_loop(lambda channel=channel: self.redis.publish(channel, f"last-{channel}"))
            assert f"last-{channel}" in self.received
        assert self.unreadable == unreadable + len(self.wanted)
        assert self.doubts == doubts


@pytest.mark.timeout(0)
def test_the_bus_hears_what_it_wants_or_doubts_whatever_redis_does():
    chosen = os.environ.get("HYPOTHESIS_PROFILE", "models")
    examples = {} if chosen == "soak" else {"max_examples": 150, "stateful_step_count": 50}
    run_state_machine_as_test(Pubsub, settings=settings(settings.get_profile(chosen), **examples))
