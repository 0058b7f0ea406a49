"""Whatever comes in whatever order: each socket hears all that is its own, once and in order, and no more."""

import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from world import DIRECT, GROUP, USERS, World

# How often each thing happens: in one rule, so that no run goes without some of them.
WEIGHTS = {
    "change": 6,
    "talk": 2,
    "tell": 6,
    "arrive": 6,
    "arrive all": 1,
    "connect": 2,
    "let connect": 6,
    "finish": 6,
    "begin": 3,
    "step": 6,
    "disturb": 2,
    "quiesce": 1,
}
actions = st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)])
DISTURBANCES = ["lose", "leave", "cancel", "fail", "redis", "hold", "release", "dissolve"]


class Delivery(RuleBasedStateMachine):
    """The steps of a world, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        try:
            self.world = World(self.patch)
        except BaseException:
            self.patch.undo()
            raise

    @rule(action=actions, place=st.integers(0, 7), user=st.sampled_from(USERS), here=st.booleans())
    def act(self, action, place, user, here):
        getattr(self, action.replace(" ", "_"))(place, user, here)

    def change(self, place, user, here):
        self.world.change(GROUP, ["message", "add", "remove"][place % 3], user, here=here)

    def talk(self, place, user, here):
        self.world.change(DIRECT, ["message", "reveal"][place % 2], user, here=here)

    def tell(self, place, *_):
        self.world.tell(place)

    def arrive(self, place, _user, here):
        self.world.arrive(place, is_again=here and place % 2 == 0)

    def arrive_all(self, *_):
        while self.world.untold or self.world.redis.arriving:
            self.world.tell(0)
            self.world.arrive(0, is_again=False)

    def connect(self, _place, user, _here):
        if len(self.world.sockets) + len(self.world.connecting) < 4:
            self.world.connect(user)

    def let_connect(self, place, *_):
        for _ in range(1 + place % 4):
            self.world.step(place, "connect")

    def finish(self, place, *_):
        self.world.finish(["connect", "look", "fill", "admit"][place % 4])

    def begin(self, place, *_):
        self.world.work(["look", "fill", "sweep"][place % 3])

    def step(self, place, *_):
        self.world.step(place)

    def disturb(self, place, user, here):
        self.world.disturb(DISTURBANCES[place], place, user, "add" if here else "remove")

    def quiesce(self, *_):
        self.world.quiesce()

    def teardown(self):
        try:
            self.world.quiesce()
        finally:
            try:
                self.world.close()
            finally:
                self.patch.undo()


@pytest.mark.timeout(0)
def test_every_socket_hears_all_that_is_its_own_once_and_in_order():
    chosen = os.environ.get("HYPOTHESIS_PROFILE", "models")
    examples = {} if chosen == "soak" else {"max_examples": 250}
    run_state_machine_as_test(Delivery, settings=settings(settings.get_profile(chosen), **examples))


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
