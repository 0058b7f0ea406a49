"""Whatever comes in whatever order: each socket hears all that is its own, once and in order, and no more."""

import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from world import DIRECT, GROUP, USERS, World

places = st.integers(0, 7)
users = st.sampled_from(USERS)
kinds = st.sampled_from(["message", "add", "remove", "add", "remove"])


class Delivery(RuleBasedStateMachine):
    """The steps of a world, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.world = World(self.patch)

    @rule(kind=kinds, user=users, here=st.booleans())
    def change(self, kind, user, here):
        self.world.change(GROUP, kind, user, here=here)

    @rule(kind=st.sampled_from(["message", "reveal"]), user=users, here=st.booleans())
    def talk(self, kind, user, here):
        self.world.change(DIRECT, kind, user, here=here)

    @rule(place=places)
    def tell(self, place):
        self.world.tell(place)

    @rule(place=places, is_again=st.booleans())
    def arrive(self, place, is_again):
        self.world.arrive(place, is_again=is_again)

    @rule()
    def arrive_all(self):
        while self.world.untold or self.world.redis.arriving:
            self.world.tell(0)
            self.world.arrive(0, is_again=False)

    @rule(user=users)
    def connect(self, user):
        if len(self.world.sockets) + len(self.world.connecting) < 4:
            self.world.connect(user)

    @rule(place=places, count=st.integers(1, 4))
    def let_connect(self, place, count):
        for _ in range(count):
            self.world.step(place, "connect")

    @rule(name=st.sampled_from(["connect", "look", "fill", "admit", "look", "fill"]))
    def finish(self, name):
        self.world.finish(name)

    @rule(name=st.sampled_from(["look", "fill", "sweep"]))
    def begin(self, name):
        self.world.work(name)

    @rule(place=places)
    def step(self, place):
        self.world.step(place)

    @rule(
        what=st.sampled_from(["lose", "leave", "cancel", "fail", "redis", "hold", "release", "dissolve"]),
        place=places,
        user=users,
        kind=kinds,
    )
    def disturb(self, what, place, user, kind):
        self.world.disturb(what, place, user, kind)

    @rule()
    def quiesce(self):
        self.world.quiesce()

    def teardown(self):
        try:
            self.world.quiesce()
        finally:
            try:
                self.world.close()
            finally:
                self.patch.undo()


def test_every_socket_hears_all_that_is_its_own_once_and_in_order():
    chosen = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "models"))
    run_state_machine_as_test(Delivery, settings=chosen)


@pytest.fixture
def world(monkeypatch):
    made = World(monkeypatch)
    yield made
    made.quiesce()
    made.close()


def let_connect_until(world, condition):
    while not condition():
        assert world.open_questions("connect")
        world.step(0, "connect")


def test_who_is_added_while_they_connect_is_in_though_redis_lost_it(world):
    world.connect("anna")
    # The last time that PostgreSQL is asked where anna is: after the rooms are followed.
    let_connect_until(
        world, lambda: all(room.delivered is not None for room in world.rooms.rooms.values()) and world.rooms.rooms
    )
    world.step(0, "connect")
    world.change(GROUP, "add", "anna", here=False)
    world.disturb("lose", 0, "", "")
    world.finish("look")
    world.finish("connect")


@pytest.mark.parametrize("is_followed", [True, False])
def test_an_invitation_that_is_overtaken_by_the_removal_lets_nobody_in(world, is_followed):
    if is_followed:
        world.connect("ben")
    world.connect("anna")
    world.finish("connect")
    world.change(GROUP, "add", "anna", here=False)
    world.tell(0)
    world.tell(0)
    *_, invitation = world.redis.arriving
    world.change(GROUP, "remove", "anna", here=False)
    world.tell(0)
    world.change(GROUP, "message", "ben", here=False)
    world.tell(0)
    world.redis.arriving.remove(invitation)
    while world.redis.arriving:
        world.arrive(0, is_again=False)
    world.redis.arriving.append(invitation)
    world.arrive(0, is_again=False)
    world.finish("admit")


def test_who_is_removed_and_added_again_is_in_though_the_invitation_comes_first(world):
    world.change(GROUP, "add", "anna", here=False)
    world.connect("anna")
    world.finish("connect")
    world.change(GROUP, "remove", "anna", here=False)
    world.change(GROUP, "add", "anna", here=False)
    while world.untold:
        world.tell(0)
    while world.redis.arriving:
        world.arrive(-1, is_again=False)
    world.finish("admit")


@pytest.mark.parametrize("is_live", [True, False])
def test_who_connects_enters_no_conversation_that_is_deleted_meanwhile(world, is_live):
    if is_live:
        world.connect("ben")
        world.finish("connect")
    world.change(GROUP, "add", "anna", here=False)
    world.connect("anna")
    let_connect_until(world, lambda: any(room.pins for room in world.rooms.rooms.values()))
    let_connect_until(world, lambda: all(room.delivered is not None for room in world.rooms.rooms.values()))
    world.disturb("dissolve", 0, "", "")
    while world.untold:
        world.tell(0)
    while world.redis.arriving:
        world.arrive(0, is_again=False)
    world.finish("connect")
