"""Who types: over sockets and pods, on a clock that the test moves."""

import asyncio
from uuid import uuid4

import msgspec
import pytest

from app.delivery import typing
from app.delivery.typing import EXPIRY, LAPSE, RENEWAL, LocalTypists, Typists

ROOM = uuid4()


class Loop(asyncio.SelectorEventLoop):
    """A loop whose timers are due when the test says so."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def time(self):
        return self.now

    def go_to(self, now):
        """Move the clock, a timer at a time."""
        while self.now < now:
            self.now = min(now, self.now + 0.5)
            for _ in range(2):
                self.call_soon(self.stop)
                self.run_forever()


@pytest.fixture
def loop():
    found = Loop()
    yield found
    found.close()


def run(loop, call, *args, **more):
    """Call something as what runs on a loop does."""

    async def called():
        call(*args, **more)

    loop.run_until_complete(called())


class Pods:
    """Pods that hear one another, unless what one says is lost."""

    def __init__(self, count):
        self.is_lost = False
        self.shown = [[] for _ in range(count)]
        self.said = []
        self.all = [Typists(self.shows(number)) for number in range(count)]
        self.local = [LocalTypists(self.tells(number)) for number in range(count)]

    def shows(self, number):
        return lambda _, user_id, event: self.shown[number].append(
            (user_id, msgspec.json.decode(event.data)["isTyping"])
        )

    def tells(self, number):
        def tell(conversation_id, event):
            data = msgspec.json.decode(event.data)
            self.said.append(data["isTyping"])
            for other, pod in enumerate(self.all):
                if other == number or not self.is_lost:
                    pod.receive(conversation_id, data["userId"], b"%d" % number, is_typing=data["isTyping"])

        return tell


def test_a_start_that_goes_on_is_said_again_and_heard_once(loop):
    pods = Pods(2)
    for now in (0, 4, 8):
        loop.go_to(now)
        run(loop, pods.local[0].start, ROOM, "anna", "socket")
    loop.go_to(8 + LAPSE - 0.5)
    assert pods.shown == [[("anna", True)], [("anna", True)]]
    assert pods.said.count(True) >= (8 + LAPSE) // RENEWAL
    loop.go_to(8 + LAPSE)
    assert pods.shown == [[("anna", True), ("anna", False)]] * 2


def test_the_first_window_that_stops_leaves_the_second_one_typing(loop):
    pods = Pods(2)
    for socket in ("one", "two"):
        run(loop, pods.local[0].start, ROOM, "anna", socket)
    run(loop, pods.local[0].stop, ROOM, "anna", "one")
    assert pods.shown[1] == [("anna", True)]
    run(loop, pods.local[0].stop, ROOM, "anna", "two")
    assert pods.shown[1] == [("anna", True), ("anna", False)]


def test_one_pod_does_not_end_what_goes_on_at_another(loop):
    pods = Pods(3)
    run(loop, pods.local[0].start, ROOM, "anna", "one")
    run(loop, pods.local[1].start, ROOM, "anna", "two")
    run(loop, pods.local[0].stop, ROOM, "anna", "one")
    assert pods.shown == [[("anna", True)]] * 3
    run(loop, pods.local[1].stop, ROOM, "anna", "two")
    assert pods.shown == [[("anna", True), ("anna", False)]] * 3


def test_what_is_not_said_again_lapses(loop):
    pods = Pods(2)
    run(loop, pods.local[0].start, ROOM, "anna", "socket")
    pods.is_lost = True
    run(loop, pods.local[0].stop, ROOM, "anna", "socket")
    assert pods.shown == [[("anna", True), ("anna", False)], [("anna", True)]]
    loop.go_to(EXPIRY)
    assert pods.shown[1] == [("anna", True), ("anna", False)]
    assert pods.all[1]._ends == {}
    assert pods.all[1]._origins == {}


def test_a_start_that_was_lost_is_heard_with_the_next_one(loop):
    pods = Pods(2)
    pods.is_lost = True
    run(loop, pods.local[0].start, ROOM, "anna", "socket")
    pods.is_lost = False
    loop.go_to(RENEWAL)
    assert pods.shown[1] == [("anna", True)]


def test_no_more_are_remembered_than_may_be(loop, monkeypatch):
    monkeypatch.setattr(typing, "MAX_TYPISTS", 2)
    pods = Pods(1)
    for user_id in ("anna", "ben", "carl"):
        run(loop, pods.all[0].receive, ROOM, user_id, b"far", is_typing=True)
    assert pods.shown[0] == [("anna", True), ("ben", True), ("carl", True), ("anna", False)]
    assert len(pods.all[0]._ends) == 2
