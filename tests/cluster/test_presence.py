"""Who is online, whatever breaks: each change is told once, and nothing else is."""

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import redis.asyncio
from clients import ear
from pods import pods, until

from app.presence.changes import PresenceChange
from app.presence.presence import Presence


@pytest.fixture
async def valkey(alone) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.from_url(alone.redis_url, decode_responses=True)
    yield client
    await client.aclose()


async def test_what_a_pod_decided_and_did_not_live_to_tell_another_pod_tells_once(alone, tmp_path, user, valkey):
    async with pods(alone.environment(), tmp_path, 2) as (one, two):
        anna, ben, carl = user("anna", one), user("ben", one), user("carl", two)
        await ben.direct(anna.user_id)
        await carl.direct(anna.user_id)
        # A pod by the part of it that decides.
        doomed = Presence(valkey)
        async with ear(one, ben.user_id) as near, ear(one, ben.user_id) as same, ear(two, carl.user_id) as far:
            listeners = (near, same, far)
            await doomed.opened(anna.user_id, "socket")
            (decided,) = doomed.changes.take(1)
            for listener in listeners:
                (online,) = await listener.wait_for("user:online")
                assert online == {"userId": anna.user_id, "transition": decided.number}
            # The living stand still while the other one decides that she is offline.
            for pod in (one, two):
                pod.signal(signal.SIGSTOP)
            doomed.closed(anna.user_id, "socket")
            gone: list[PresenceChange] = []

            async def is_decided():
                await doomed.settle()
                gone.extend(change for change in doomed.changes.take(10) if change.user_id == anna.user_id)
                return bool(gone)

            await until(is_decided, "she is offline")
            for pod in (one, two):
                pod.signal(signal.SIGCONT)
            for listener in listeners:
                (offline,) = await listener.wait_for("user:offline")
                assert offline == {"userId": anna.user_id, "transition": gone[0].number}

            async def is_told():
                return await valkey.zscore("chat:untold", anna.user_id) is None

            await until(is_told, "nothing is left to be told")
            # A real one closes the list: nothing came twice.
            async with ear(one, anna.user_id):
                for listener in listeners:
                    await listener.wait_for("user:online", 2)
                    names = [heard.event for heard in listener.presence]
                    assert names == ["user:online", "user:offline", "user:online"]


async def test_who_was_taken_for_gone_while_the_pod_stood_still_comes_back(alone, tmp_path, user):
    async with pods(alone.environment(), tmp_path, 2) as (frozen, two):
        anna, ben = user("anna", frozen), user("ben", two)
        await ben.direct(anna.user_id)
        async with ear(two, ben.user_id) as far, ear(frozen, anna.user_id):
            await far.wait_for("user:online")
            frozen.signal(signal.SIGSTOP)

            async def is_told():
                return bool(far.of("user:offline"))

            await until(is_told, "the offline event", 30)
            frozen.signal(signal.SIGCONT)
            await far.wait_for("user:online", 2)
            assert [heard.event for heard in far.presence] == ["user:online", "user:offline", "user:online"]


@pytest.mark.parametrize("how", ["sigkill", "flushall"])
async def test_presence_heals(alone, tmp_path, user, valkey, how):
    async with pods(alone.environment(), tmp_path, 2) as (one, two):
        anna, ben = user("anna", two), user("ben", two)
        room = await anna.direct(ben.user_id)
        async with ear(two, ben.user_id) as far, ear(one, anna.user_id):
            await far.wait_for("user:online")
            if how == "sigkill":
                one.process.kill()
                await one.exit_code()

                async def is_told():
                    return bool(far.of("user:offline"))

                # The lease of a dead pod ends by itself.
                await until(is_told, "the offline event", 30)
            else:
                await valkey.execute_command("FLUSHALL")

                async def is_healed():
                    online = (await ben.get(f"/api/conversations/{room}/presence")).json["online"]
                    return set(online) == {anna.user_id, ben.user_id}

                await until(is_healed, "presence after FLUSHALL", 30)
            expected = ["user:online"] + (["user:offline"] if how == "sigkill" else [])
            assert [heard.event for heard in far.presence] == expected


@pytest.mark.parametrize("kind", ["NORMAL", "PUBSUB"])
async def test_who_comes_while_pods_do_not_hear_one_another_is_told_afterwards(
    alone, tmp_path, user, valkey, kind
):
    async with pods(alone.environment(), tmp_path, 2) as (one, two):
        anna, ben = user("anna", one), user("ben", two)
        await anna.direct(ben.user_id)
        async with ear(two, ben.user_id) as far:
            await valkey.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

            async def is_decided():
                return await valkey.hget(f"chat:user:{anna.user_id}", "on") == "1"

            async with ear(one, anna.user_id):
                await until(is_decided, "Redis knows that she is there")
                (online,) = await far.wait_for("user:online")
                assert online["userId"] == anna.user_id
            await far.wait_for("user:offline")
            assert [heard.event for heard in far.presence] == ["user:online", "user:offline"]


@pytest.mark.timeout(240)
async def test_the_exact_list_of_what_a_contact_sees(alone, tmp_path, user, valkey):
    async with pods(alone.environment(), tmp_path, 2) as (one, two):
        anna, ben, carl = user("anna", two), user("ben", two), user("carl", two)
        room = await ben.group(anna.user_id, carl.user_id)

        async def online():
            return set((await ben.get(f"/api/conversations/{room}/presence")).json["online"])

        async with ear(two, ben.user_id) as far, AsyncExitStack() as carls:
            expected: list[tuple[str, str]] = []

            async def sees(event, who):
                expected.append((event, who.user_id))
                await far.wait("presence", lambda _: len(far.presence) >= len(expected))

            await carls.enter_async_context(ear(one, carl.user_id))
            await sees("user:online", carl)
            async with AsyncExitStack() as annas:
                await annas.enter_async_context(ear(one, anna.user_id))
                await sees("user:online", anna)
                # Pages are loaded anew, ten times, and the pod of some dies in between.
                for number in range(10):
                    await annas.aclose()
                    await annas.enter_async_context(ear((one, two)[number % 2], anna.user_id))
                    if number == 4:
                        one.signal(signal.SIGKILL)
                        await one.exit_code()
                        await one.start()
                # Of two devices one stays.
                async with ear(one, anna.user_id):
                    await annas.aclose()
                    await annas.enter_async_context(ear(two, anna.user_id))

                async def has_left():
                    return len(far.presence) > len(expected)

                # He was on the pod that died, whose lease ends by itself, and came back nowhere.
                await until(has_left, "his leaving", 30)
                await sees("user:offline", carl)
                await valkey.execute_command("FLUSHALL")

                async def is_healed():
                    return await online() == {anna.user_id, ben.user_id}

                await until(is_healed, "presence after FLUSHALL", 30)
            await sees("user:offline", anna)
            assert await online() == {ben.user_id}

            async def is_calm():
                quiet, (seconds, _) = await valkey.get("chat:quiet"), await valkey.time()
                return seconds * 1000 > int(quiet)

            await until(is_calm, "the quiet after the loss is over")
            # Coming and going in earnest is a change each time.
            for pod in (one, two):
                async with ear(pod, anna.user_id):
                    await sees("user:online", anna)
                await sees("user:offline", anna)
            assert [(heard.event, heard.data["userId"]) for heard in far.presence] == expected
            numbers = [heard.data["transition"] for heard in far.presence if heard.data["userId"] == anna.user_id]
            assert numbers == sorted(set(numbers))
