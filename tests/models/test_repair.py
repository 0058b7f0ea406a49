"""What is read from PostgreSQL is bounded, and what fails on the way is not lost."""

import pytest
from world import DIRECT, GROUP

from app.delivery import repair
from app.messages import event_log


def say(world, count):
    """Commit messages of which Redis says nothing."""
    for _ in range(count):
        world.change(GROUP, "message", "ben", here=False)
        world.change(DIRECT, "message", "ben", here=False)
    world.disturb("lose", 0, "", "")


def test_a_gap_is_read_in_parts_and_between_two_of_them_what_is_live_goes_on(world, monkeypatch):
    world.connect("ben")
    world.finish("connect")
    delivered = []
    receive = world.fanout._streams.receive
    monkeypatch.setattr(
        world.fanout._streams, "receive", lambda change: (delivered.append(change), receive(change))
    )
    say(world, 10)
    world.finish("look")
    world.work("fill")
    turns = []
    while world.open_questions("fill"):
        before = len(delivered)
        # Between any two parts others have their turn: a live message is delivered at once.
        world.step(0, "fill")
        turns.append(len(delivered) - before)
    assert sum(turns) == 20
    assert max(turns) <= repair.ROWS_AT_ONCE


def test_no_more_rooms_are_read_at_once_than_the_bound_and_all_are_read(world, monkeypatch):
    monkeypatch.setattr("app.delivery.repair.ROOMS_AT_ONCE", 1)
    world.connect("ben")
    world.finish("connect")
    asked = []
    read = event_log.changes_after

    async def changes_after(positions, most):
        asked.append(set(positions))
        return await read(positions, most)

    monkeypatch.setattr(event_log, "changes_after", changes_after)
    say(world, 3)
    world.finish("look")
    world.finish("fill")
    assert {len(rooms) for rooms in asked} == {1}
    assert set().union(*asked) == {GROUP, DIRECT}
    (socket,) = world.sockets
    assert socket.heard == {GROUP: 3, DIRECT: 3}


def test_a_part_that_fails_takes_nothing_of_the_others_with_it(world):
    world.connect("ben")
    world.finish("connect")
    say(world, 10)
    world.finish("look")
    world.work("fill")
    for _ in range(12):
        world.step(0, "fill")
    (socket,) = world.sockets
    halfway = dict(socket.heard)
    assert halfway
    world.fail(0)
    assert "fill" not in world.tasks
    world.finish("fill")
    assert socket.heard == {GROUP: 10, DIRECT: 10}


@pytest.mark.parametrize("name", ["look", "fill", "admit"])
def test_a_loop_that_fails_anywhere_begins_again_where_it_was(world, name):
    for place in range(12):
        world.connect("anna")
        world.finish("connect")
        world.change(DIRECT, "reveal", "anna", here=False)
        world.change(GROUP, "add" if place % 2 == 0 else "remove", "anna", here=False)
        world.disturb("lose", 0, "", "")
        for work in ("look", "fill", "admit"):
            world.work(work)
            for _ in range(place if work == name else 0):
                world.step(0, work)
            if work == name and world.open_questions(work):
                world.fail(0)
            world.answer_all(work)
        world.quiesce()
        world.leave(world.sockets[0])


def test_what_a_gap_holds_is_bounded_and_read_again(world, monkeypatch):
    monkeypatch.setattr("app.delivery.streams.MAX_BUFFERED_BYTES", 300)
    world.connect("ben")
    world.finish("connect")
    for _ in range(10):
        world.change(GROUP, "message", "ben", here=False)
    world.untold.pop(0)
    while world.untold:
        world.tell(0)
    while world.redis.arriving:
        world.arrive(0, is_again=False)
    assert 0 < world.fanout._streams._buffered_bytes <= 300
    world.finish("fill")
    (socket,) = world.sockets
    assert socket.heard[GROUP] == 10
    assert world.fanout._streams._buffered_bytes == 0


def test_who_is_to_enter_more_than_can_wait_connects_again(world, monkeypatch):
    monkeypatch.setattr("app.delivery.membership.MAX_DUE_BYTES", 0)
    world.connect("anna")
    world.finish("connect")
    away = []
    monkeypatch.setattr(type(world.sockets[0]), "reconnect", lambda socket: away.append(socket.user_id))
    world.change(GROUP, "add", "anna", here=False)
    world.disturb("lose", 0, "", "")
    world.finish("look")
    assert away == ["anna"]
    world.leave(world.sockets[0])


def test_who_cannot_be_let_in_for_a_reason_that_nobody_thought_of_connects_again(world, monkeypatch):
    async def fails(*_):
        raise KeyError("something")

    world.connect("anna")
    world.finish("connect")
    away = []
    monkeypatch.setattr(type(world.sockets[0]), "reconnect", lambda socket: away.append(socket.user_id))
    monkeypatch.setattr(world.fanout.invitations, "_read", fails)
    world.change(GROUP, "add", "anna", here=False)
    world.disturb("lose", 0, "", "")
    world.finish("look")
    world.answer_all()
    assert away == ["anna"]
    world.leave(world.sockets[0])


def test_a_change_that_postgresql_lost_is_forgotten_and_the_one_in_its_place_delivered(world):
    world.connect("ben")
    world.finish("connect")
    lost = world.postgres.conversations[GROUP]
    for _ in range(2):
        world.change(GROUP, "message", "ben", here=False)
    world.untold.pop(0)
    world.tell(0)
    world.arrive(0, is_again=False)
    # The second of two is held, when a failover loses both.
    assert list(world.rooms.rooms[GROUP].buffered) == [2]
    lost.log.clear()
    world.finish("fill")
    assert world.rooms.rooms[GROUP].buffered == {}
    for _ in range(2):
        world.change(GROUP, "remove" if not lost.log else "message", "anna", here=True)
        world.tell(0)
    (socket,) = world.sockets
    assert socket.heard[GROUP] == 2


def test_a_conversation_that_went_back_sends_its_sockets_away_and_no_others(world, monkeypatch):
    for user in ("anna", "ben"):
        world.connect(user)
    world.finish("connect")
    for _ in range(3):
        world.change(GROUP, "message", "ben", here=True)
        world.tell(0)
    away = []
    monkeypatch.setattr(type(world.sockets[0]), "reconnect", lambda socket: away.append(socket.user_id))
    del world.postgres.conversations[GROUP].log[1:]
    world.start("verify", world.fanout.repair.verify)
    world.answer_all()
    assert away == ["ben"]
    world.leave(next(socket for socket in world.sockets if socket.user_id == "ben"))


def test_a_message_that_ended_a_hiding_and_is_gone_stops_no_look(world):
    world.connect("ben")
    world.finish("connect")
    world.postgres.notice(world.postgres.begin(), "revealed", "ben", DIRECT, None)
    world.postgres.running.clear()
    world.finish("look")
    world.change(GROUP, "message", "ben", here=False)
    world.disturb("lose", 0, "", "")
    world.finish("look")
    world.finish("fill")
    (socket,) = world.sockets
    assert socket.heard[GROUP] == 1
