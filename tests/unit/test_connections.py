"""Which connections and which bodies give way where there is no room for more."""

from app.realtime.http.capacity import Capacity
from app.runtime.connections import Connections
from app.runtime.ports import MAX_REST, MIN_REST, open_files, rest_connections


class One:
    """A connection that knows whether it lost its place."""

    def __init__(self) -> None:
        self.is_evicted = False

    def evict(self) -> None:
        self.is_evicted = True


def entered(connections, count):
    those = [One() for _ in range(count)]
    assert all(connections.enter(one) for one in those)
    return those


def test_whoever_waits_for_the_longest_makes_room():
    connections = Connections(lambda: 3)
    first, second, third = entered(connections, 3)
    connections.work(first)
    connections.work(second)
    connections.wait(second)
    fourth, fifth = entered(connections, 2)
    assert [one.is_evicted for one in (first, second, third, fourth, fifth)] == [False, True, True, False, False]
    assert len(connections) == 3


def test_who_is_being_answered_keeps_the_place_and_a_newcomer_gets_none():
    connections = Connections(lambda: 2)
    those = entered(connections, 2)
    for one in those:
        connections.work(one)
    assert not connections.enter(One())
    connections.leave(those[0])
    entered(connections, 1)
    assert not [one for one in those if one.is_evicted]


def test_bodies_that_are_read_for_longer_make_room_for_others():
    connections = Connections(lambda: 10, max_held_bytes=100)
    first, second, third, fourth = entered(connections, 4)
    assert connections.hold(first, 40)
    connections.work(first)
    assert connections.hold(second, 30)
    assert connections.hold(third, 30)
    assert connections.hold(fourth, 40)
    assert [one.is_evicted for one in (first, second, third, fourth)] == [False, True, True, False]
    # What is being answered stays, and nothing else is left to go.
    assert not connections.hold(fourth, 21)
    connections.release(first)
    connections.release(fourth)
    assert connections.hold(One(), 100)


def test_what_is_not_held_any_more_does_not_count():
    connections = Connections(lambda: 10, max_held_bytes=100)
    (one,) = entered(connections, 1)
    for _ in range(10):
        assert connections.hold(one, 60)
        connections.release(one)
        connections.release(one)


def test_descriptors_are_left_for_the_databases_whatever_the_limit_is():
    for files in (256, 1024, 20_000, 1 << 20):
        capacity = Capacity.of(20_000, files)
        rest = rest_connections(files)
        assert MIN_REST <= rest <= MAX_REST
        assert capacity.files + rest + 100 <= max(files, 256)
        assert capacity.http <= capacity.files
        assert capacity.hops <= capacity.files // 2
        assert 2 * capacity.pipes <= capacity.files // 2


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be():
    assert open_files() == open_files() >= 256
