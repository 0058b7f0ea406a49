"""What Redis loses is with everybody within ten seconds: also what is no message."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import redis.asyncio
from clients import ear
from leak import leaking
from pods import pods
from refusing import refusing
from scraping import series


@asynccontextmanager
async def leaky_pods(servers, folder) -> AsyncIterator[tuple]:
    """Run two pods behind a leak."""
    async with AsyncExitStack() as stack:
        leak = await stack.enter_async_context(leaking(servers.redis_url))
        env = {**servers.environment(), "REDIS_URL": leak.url}
        yield leak, await stack.enter_async_context(pods(env, folder, 2))


async def test_the_last_of_everything_arrives_though_its_publish_was_lost(servers, tmp_path, user):
    async with leaky_pods(servers, tmp_path) as (leak, (one, two)):
        anna, ben = user("anna", one), user("ben", two)
        quiet, group, doomed = (
            await anna.direct(ben.user_id),
            await anna.group(ben.user_id),
            await anna.group(ben.user_id),
        )
        async with ear(two, ben.user_id) as far:
            leak.is_leaking = True
            said = await anna.say(quiet, "the last word")
            fresh = await anna.group(ben.user_id)
            first = await anna.say(fresh, "first words")
            removed = await anna.call("DELETE", f"/api/conversations/{group}/participants/{ben.user_id}")
            assert removed.status == 204
            headers = {"X-Internal-Secret": servers.environment()["INTERNAL_API_SECRET"]}
            async with anna.session.delete(
                f"{one.http}/api/admin/conversations/{doomed}", headers=headers
            ) as response:
                assert response.status == 204
            await far.wait_for("participant:removed")
            await far.wait_for("conversation:deleted")
            await far.wait_for("conversation:new")
            (told,) = far.of("conversation:new")
            assert told["id"] == fresh
            # What is in the invitation is not said again, what came after it is.
            messages = {message["conversationId"]: message["id"] for message in await far.wait_for("message:new")}
            assert messages[quiet] == said["id"]
            assert told.get("lastMessage", {}).get("id", messages.get(fresh)) == first["id"]
            assert far.of("conversation:deleted") == [{"conversationId": doomed}]
            assert far.of("participant:removed")[0]["conversationId"] == group
        told, repaired = [
            (await series(anna.session, pod.http))["chat_gaps_repaired_total",] for pod in (one, two)
        ]
        assert told == 0
        assert repaired >= 1


@pytest.mark.parametrize("is_last", [True, False], ids=["the last word", "more follows"])
async def test_a_hidden_conversation_is_back_before_the_message_whose_publish_was_lost(
    servers, tmp_path, user, is_last
):
    async with leaky_pods(servers, tmp_path) as (leak, (one, two)):
        anna, ben = user("anna", one), user("ben", two)
        room = await anna.direct(ben.user_id)
        await anna.say(room, "before")
        async with ear(two, ben.user_id) as far:
            assert (await ben.delete(f"/api/conversations/{room}")).status == 204
            await far.wait_for("conversation:hidden")
            leak.is_leaking = True
            said = [await anna.say(room, "after")]
            if not is_last:
                leak.is_leaking = False
                said.append(await anna.say(room, "and after"))
            assert await far.wait_for("message:new", len(said)) == said
            names = [heard.event for heard in far.heard]
            assert names == ["conversation:hidden", "conversation:new", *["message:new"] * len(said)]
            assert far.of("conversation:new")[0]["id"] == room


async def test_a_deleted_user_is_out_though_the_publish_was_lost(servers, tmp_path, user):
    async with leaky_pods(servers, tmp_path) as (leak, (one, two)):
        anna = user("anna", one)
        async with ear(two, anna.user_id) as far:
            leak.is_leaking = True
            headers = {"X-Internal-Secret": servers.environment()["INTERNAL_API_SECRET"]}
            async with anna.session.delete(f"{one.http}/api/users/{anna.user_id}", headers=headers) as response:
                assert response.status == 204
            await far.wait_for("disconnect")
            assert far.of("error")[0]["code"] == "UNAUTHORIZED"


async def test_a_pod_without_a_socket_of_a_conversation_hears_nothing_of_it(servers, cluster, user):
    anna = user("anna")
    room = await anna.direct(user("ben").user_id)
    control = redis.asyncio.from_url(servers.redis_url)
    async with ear(cluster[0], anna.user_id) as near:
        (name,) = [
            name.decode() for name in await control.pubsub_channels("chat:c:*") if name.decode().endswith(room[5:])
        ]
        ((_, listeners),) = await control.pubsub_numsub(name)
        assert listeners == 1
        await anna.say(room, "for one pod alone")
        await near.wait_for("message:new")
    await control.aclose()


UNREADABLE = {
    "garbage": b"\xff\xfe\x00",
    "nothing": b"",
    "too short": b"pod 7",
    "no number": b"pod seven 1.0 - message:new {}",
    "of a future release": b"pod 7 1.0 - shard-2 message:new {}",
    "no JSON": b"pod 7 1.0 - message:new {garbage}",
    "no UTF-8": b'pod 7 1.0 - message:new {"content":"\xff"}',
    "an unknown kind": b"pod promote - 0 - ",
}


async def test_what_a_pod_cannot_read_is_counted_and_the_next_message_comes_as_always(servers, cluster, user):
    anna, ben = user("anna"), user("ben", cluster[1])
    room = await anna.direct(ben.user_id)
    control = redis.asyncio.from_url(servers.redis_url)
    before = await series(anna.session, cluster[1].http)
    logged = len(cluster[1].log.read_text().splitlines())
    async with ear(cluster[1], ben.user_id) as far:
        for number, payload in enumerate([*UNREADABLE.values()] * 20, 1):
            for channel in (f"chat:c:{room[5:]}", f"chat:u:{ben.user_id}"):
                await control.publish(channel, payload)
            if number % len(UNREADABLE) == 0:
                await anna.say(room, "and on")
        messages = await far.wait_for("message:new", 20)
        assert [message["seq"] for message in messages] == list(range(1, 21))
        assert {heard.event for heard in far.heard} == {"message:new"}
    await control.aclose()
    after = await series(anna.session, cluster[1].http)
    # A change of an unknown kind and an order of no number are as bad as the others.
    assert after["chat_bus_unreadable_total",] - before["chat_bus_unreadable_total",] == 2 * 20 * len(UNREADABLE)
    assert after["chat_redis_up",] == 1
    warnings = [line for line in cluster[1].log.read_text().splitlines()[logged:] if "could not be read" in line]
    assert 0 < len(warnings) < 10


async def test_a_message_that_arrives_unreadable_is_found_in_postgresql_at_once(servers, tmp_path, user):
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(refusing(servers.redis_url))
        env = {**servers.environment(), "REDIS_URL": proxy.url}
        one, two = await stack.enter_async_context(pods(env, tmp_path, 2))
        anna, ben = user("anna", one), user("ben", two)
        room = await anna.direct(ben.user_id)
        far = await stack.enter_async_context(ear(two, ben.user_id))
        proxy.garbles = True
        said = [await anna.say(room, f"{number}") for number in range(3)]
        assert await far.wait_for("message:new", 3) == said
        assert (await series(anna.session, two.http))["chat_bus_unreadable_total",] >= 3
        assert two.errors() == []
