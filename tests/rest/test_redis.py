"""What travels to Redis together: nobody suffers for another, and all are answered in their order."""

import asyncio
from dataclasses import replace

import pytest
from clients import somebody
from pods import until
from redis.exceptions import ResponseError

from app.config.settings import Settings
from app.config.types import Rate
from app.contract.errors import RateLimited
from app.identity.rate_limits import Action, RateLimits
from app.presence.presence import Presence
from app.redis import connection as redis_connection

BURST = 3
MOST_SOCKETS = 2
PEOPLE = 500


@pytest.fixture
async def redis(servers):
    client = redis_connection.connect(Settings.read(servers.environment()).redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def limits(monkeypatch, redis, servers):
    # What is not counted in time is counted by the pod: where the machine stands still that is another test.
    monkeypatch.setattr("app.identity.rate_limits.REDIS_TIMEOUT", 30.0)
    settings = Settings.read(servers.environment())
    return RateLimits(redis, replace(settings, rate_limit_send=Rate(0.001, BURST)))


@pytest.fixture
async def presence(redis):
    # Nobody is taken for gone after a silence; here nobody looked for a while.
    await redis.delete("chat:watched", "chat:quiet")
    pod = Presence(redis, MOST_SOCKETS)
    yield pod
    await pod.hand_back()


async def is_let(limits, user_id):
    try:
        await limits.check(Action.SEND, user_id)
    except RateLimited:
        return False
    return True


async def is_online(presence, user_id):
    ((found),) = await presence.user_presence([user_id])
    return found.is_online


async def test_a_reply_answers_the_command_that_it_belongs_to(redis):
    name = somebody()
    numbers = await asyncio.gather(*(redis.incr(name) for _ in range(PEOPLE)))
    assert numbers == list(range(1, PEOPLE + 1))
    assert await redis.mget(name, "nothing") == [str(PEOPLE), None]


async def test_a_command_that_redis_refuses_fails_alone(redis):
    name = somebody()
    first, refused, last = await asyncio.gather(
        redis.set(name, "x"), redis.lpush(name, "y"), redis.get(name), return_exceptions=True
    )
    assert (first, last) == (True, "x")
    assert isinstance(refused, ResponseError)


async def test_after_the_connection_was_lost_there_is_another(redis):
    lost = await redis.client_id()
    await redis.client_kill_filter(_id=str(lost), skipme=False)

    async def is_back():
        try:
            return await redis.client_id() != lost
        except redis_connection.AWAY:
            return False

    await until(is_back, "another connection")


async def test_those_who_give_up_waiting_leave_no_reply_to_others(redis):
    name = somebody()
    asking = [asyncio.ensure_future(redis.incr(name)) for _ in range(10)]
    await asyncio.sleep(0)
    for one in asking[::2]:
        one.cancel()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert found[1::2] == [2, 4, 6, 8, 10]
    assert await redis.get(name) == "10"


async def test_checks_of_one_user_that_come_together_count_one_by_one(limits):
    anna, ben = somebody(), somebody()
    asked = [anna, ben, anna, anna, anna, ben]
    assert await asyncio.gather(*(is_let(limits, who) for who in asked)) == [True, True, True, True, False, True]


async def test_more_checks_than_one_run_takes_are_all_counted(limits):
    people = [somebody() for _ in range(PEOPLE)]
    for _ in range(BURST):
        assert all(await asyncio.gather(*(is_let(limits, who) for who in people)))
    assert not any(await asyncio.gather(*(is_let(limits, who) for who in people)))


async def test_a_check_that_redis_refuses_counts_per_pod_and_harms_no_other(redis, limits):
    anna, ben = somebody(), somebody()
    await redis.lpush(f"chat:limit:send:{anna}", "no number")
    asked = [anna, ben] * (BURST + 1)
    assert await asyncio.gather(*(is_let(limits, who) for who in asked)) == [True] * 2 * BURST + [False] * 2


async def test_scripts_are_sent_again_when_redis_has_lost_them(redis, limits, presence):
    anna = somebody()
    assert await is_let(limits, anna)
    await redis.script_flush()
    assert await is_let(limits, anna)
    await presence.opened(anna, "socket")
    (online,) = presence.changes.take(10)
    assert (online.user_id, online.is_online) == (anna, True)


async def sockets_of(redis, presence, user_id):
    written = await redis.hget(f"chat:user:{user_id}", f"p:{presence._pod}") or ""
    return [one.split(":", 1)[1] for one in written.split()]


async def test_sockets_that_come_and_go_together_do_so_in_their_order(redis, presence):
    stays, goes = somebody(), somebody()
    opening = [asyncio.ensure_future(presence.opened(who, "old")) for who in (stays, goes)]
    await asyncio.sleep(0)
    presence.closed(stays, "old")
    presence.closed(goes, "old")
    # A page that is loaded anew is no change.
    await asyncio.gather(*opening, presence.opened(stays, "new"))
    # What comes later comes after what came before.
    await presence.opened(somebody(), "other")
    assert await sockets_of(redis, presence, stays) == ["new"]
    assert await sockets_of(redis, presence, goes) == []
    assert [change.user_id for change in presence.changes.take(10)].count(stays) == 1
    assert await redis.zscore("chat:leaving", stays) is None


async def test_of_too_many_that_come_together_the_oldest_go(presence):
    anna = somebody()
    await asyncio.gather(*(presence.opened(anna, f"{n}") for n in range(4)))
    assert await presence.opened(anna, "4") == ["0", "1", "2"]
    for n in range(3):
        presence.closed(anna, f"{n}")
    assert await presence.opened(anna, "5") == ["3"]


async def test_sockets_of_a_dead_pod_do_not_count(redis, presence):
    anna = somebody()
    dead = Presence(redis, MOST_SOCKETS)
    for n in range(MOST_SOCKETS):
        await dead.opened(anna, f"dead-{n}")
    await redis.zadd("chat:pods", {dead._pod: 0})
    await presence.settle()
    for n in range(MOST_SOCKETS):
        assert await presence.opened(anna, f"{n}") == []


async def test_a_pod_without_sockets_sees_a_loss_before_it_takes_somebody_for_new(redis, presence):
    anna, other = somebody(), Presence(redis, MOST_SOCKETS)
    await presence.repair()
    await other.opened(anna, "a")
    await other.announced(other.changes.take(1))
    # What Redis knew of them is lost, and she comes here before the other pod's heartbeat.
    await redis.delete(f"chat:user:{anna}", f"chat:pod:{other._pod}", f"chat:pod:{presence._pod}")
    await redis.hdel("chat:steps", other._pod, presence._pod)
    await presence.opened(anna, "b")
    assert presence.changes.take(1) == []
    # The other one tells by which change she is online.
    await other.beat()
    await other.repair()
    assert other.changes.take(1) == []
    assert await redis.zscore("chat:arriving", anna) is None
    await other.hand_back()
    await redis.delete("chat:quiet")


async def test_more_people_than_one_run_takes_all_come_online(redis, presence):
    people = [somebody() for _ in range(PEOPLE)]
    await asyncio.gather(*(presence.opened(who, f"{who}:1") for who in people))
    assert {change.user_id for change in presence.changes.take(2 * PEOPLE)} == set(people)
    assert all(found.is_online for found in await presence.user_presence(people))
    for who in people:
        presence.closed(who, f"{who}:1")

    async def are_gone():
        return await redis.scard(f"chat:pod:{presence._pod}") == 0

    await until(are_gone, "all are gone")


async def test_a_socket_that_redis_refuses_harms_no_other(redis, presence):
    anna, ben = somebody(), somebody()
    await redis.set(f"chat:user:{anna}", "no hash")
    assert await asyncio.gather(presence.opened(anna, "a"), presence.opened(ben, "b")) == [[], []]
    assert [change.user_id for change in presence.changes.take(10)] == [ben]
    # It is tried again until it is taken.
    await redis.delete(f"chat:user:{anna}")
    await presence.repair()
    assert [change.user_id for change in presence.changes.take(10)] == [anna]


async def test_who_gives_up_while_they_come_online_is_not_left_there(redis, presence):
    anna, ben = somebody(), somebody()
    coming = asyncio.ensure_future(presence.opened(anna, "a"))
    other = asyncio.ensure_future(presence.opened(ben, "b"))
    await asyncio.sleep(0)
    coming.cancel()
    presence.closed(anna, "a")
    presence.closed(anna, "a")
    await other
    assert ben in {change.user_id for change in presence.changes.take(10)}

    async def is_gone():
        await presence.settle()
        return not await is_online(presence, anna)

    await until(is_gone, "she is offline")
    assert await sockets_of(redis, presence, anna) == []
    assert await is_online(presence, ben)


async def test_a_run_that_fails_does_not_hide_from_others_that_they_were_noted(presence, monkeypatch):
    runs = 0
    run = presence._assert

    async def second_fails(*args, **more):
        nonlocal runs
        runs += 1
        if runs == 2:
            raise redis_connection.AWAY[0]("the second run fails")
        return await run(*args, **more)

    monkeypatch.setattr(presence, "_assert", second_fails)
    people = [somebody() for _ in range(PEOPLE)]
    await asyncio.gather(*(presence.opened(who, "socket") for who in people))
    noted = {change.user_id for change in presence.changes.take(2 * PEOPLE)}
    assert 0 < len(noted) < PEOPLE
    await presence.repair()
    others = [change.user_id for change in presence.changes.take(2 * PEOPLE)]
    assert sorted([*noted, *others]) == sorted(people)
