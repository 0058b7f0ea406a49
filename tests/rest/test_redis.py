"""What travels to Redis together: nobody suffers for another, and all are answered in their order."""

import asyncio
from dataclasses import replace

import pytest
from clients import somebody
from pods import until
from redis.exceptions import ResponseError

from app import redis_client
from app.errors import RateLimited
from app.limits import Action, Limits
from app.presence import Presence
from app.setting_types import Rate
from app.settings import Settings

BURST = 3
MOST_SOCKETS = 2
PEOPLE = 500


@pytest.fixture
async def redis(servers):
    client = redis_client.connect(Settings.read(servers.environment()).redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def limits(redis, servers):
    settings = Settings.read(servers.environment())
    return Limits(redis, replace(settings, rate_limit_send=Rate(0.001, BURST)))


@pytest.fixture
async def presence(redis):
    pod = Presence(redis)
    # After a loss nobody comes online for some seconds; here nothing was lost.
    await redis.set("chat:epoch", 0)
    yield pod
    await pod.hand_back()


async def is_let(limits, user_id):
    try:
        await limits.check(Action.SEND, user_id)
    except RateLimited:
        return False
    return True


async def is_online(presence, user_id):
    ((found),) = await presence.whereabouts([user_id])
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
        except redis_client.AWAY:
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
    (online,), _ = await presence.opened(anna, "socket", MOST_SOCKETS)
    assert (online.user_id, online.is_online) == (anna, True)


async def test_sockets_that_come_and_go_together_do_so_in_their_order(redis, presence):
    stays, goes = somebody(), somebody()
    answers = await asyncio.gather(
        presence.opened(stays, "old", MOST_SOCKETS),
        presence.opened(goes, "only", MOST_SOCKETS),
        presence.closed(stays, "old"),
        presence.opened(stays, "new", MOST_SOCKETS),
        presence.closed(goes, "only"),
    )
    came = [[change.user_id for change in answer[0]] for answer in answers if answer is not None]
    # A page that is loaded anew is no change.
    assert came == [[stays], [goes], []]
    assert await redis.zrange(f"chat:sockets:{stays}", 0, -1) == ["new"]
    assert await redis.zrange(f"chat:sockets:{goes}", 0, -1) == []
    assert await redis.zscore("chat:leaving", stays) is None
    assert await redis.zscore("chat:leaving", goes) is not None


async def test_of_too_many_that_come_together_the_oldest_go(presence):
    anna = somebody()
    answers = await asyncio.gather(*(presence.opened(anna, f"{n}", MOST_SOCKETS) for n in range(5)))
    assert [too_many for _, too_many in answers] == [[], [], ["0"], ["1"], ["2"]]


async def test_more_people_than_one_run_takes_all_come_online(redis, presence):
    people = [somebody() for _ in range(PEOPLE)]
    answers = await asyncio.gather(*(presence.opened(who, f"{who}:1", MOST_SOCKETS) for who in people))
    assert [change.user_id for changes, _ in answers for change in changes] == people
    assert all(found.is_online for found in await presence.whereabouts(people))
    await asyncio.gather(*(presence.closed(who, f"{who}:1") for who in people))
    assert await redis.exists(*(f"chat:sockets:{who}" for who in people)) == 0


async def test_a_socket_that_redis_refuses_harms_no_other(redis, presence):
    anna, ben = somebody(), somebody()
    await redis.set(f"chat:sockets:{anna}", "no set")
    refused, (changes, _) = await asyncio.gather(
        presence.opened(anna, "a", MOST_SOCKETS), presence.opened(ben, "b", MOST_SOCKETS)
    )
    assert refused == ([], [])
    assert [change.user_id for change in changes] == [ben]
    await redis.delete(f"chat:sockets:{anna}")


async def test_who_gives_up_while_they_come_online_is_not_left_there(redis, presence):
    anna, ben = somebody(), somebody()
    coming = asyncio.ensure_future(presence.opened(anna, "a", MOST_SOCKETS))
    other = asyncio.ensure_future(presence.opened(ben, "b", MOST_SOCKETS))
    await asyncio.sleep(0)
    coming.cancel()
    await presence.closed(anna, "a")
    assert [change.user_id for change in (await other)[0]] == [ben]
    assert await redis.zrange(f"chat:sockets:{anna}", 0, -1) == []

    async def is_gone():
        await presence.settle()
        return not await is_online(presence, anna)

    await until(is_gone, "she is offline")
    assert await is_online(presence, ben)
