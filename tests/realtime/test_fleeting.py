"""Typing, presence, receipts: what is told and kept nowhere."""

import asyncio
import time

import pytest
from clients import ear, somebody, token
from pods import pods


async def test_typing_is_told_to_the_others_and_lapses(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    async with (
        ear(cluster[0], anna.user_id) as near,
        ear(cluster[1], anna.user_id) as other,
        ear(cluster[1], ben.user_id) as far,
    ):
        for _ in range(3):
            assert await near.call("typing:start", {"conversationId": room}) == {"ok": True}
        (started,) = await far.wait_for("user:typing")
        assert started == {"conversationId": room, "userId": anna.user_id, "isTyping": True}
        _, lapsed = await far.wait_for("user:typing", 2)
        assert lapsed == {**started, "isTyping": False}
        assert near.of("user:typing") == other.of("user:typing") == []


@pytest.mark.parametrize("how", ["stop", "send", "disconnect"])
async def test_typing_ends_at_once(user, cluster, how):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    async with ear(cluster[1], ben.user_id) as far, ear(cluster[0], anna.user_id) as near:
        await near.call("typing:start", {"conversationId": room})
        await far.wait_for("user:typing")
        if how == "stop":
            await near.call("typing:stop", {"conversationId": room})
        elif how == "send":
            await near.call("message:send", {"conversationId": room, "content": "said"})
        else:
            await near.client.disconnect()
        started, ended = await far.wait_for("user:typing", 2)
        assert (started["isTyping"], ended["isTyping"]) == (True, False)


async def test_strangers_may_not_type(user, cluster):
    room = await user("anna").direct(somebody("ben"))
    async with ear(cluster[0], somebody("stranger")) as stranger:
        for event in ("typing:start", "typing:stop"):
            answer = await stranger.call(event, {"conversationId": room})
            assert answer["error"]["code"] == "FORBIDDEN"
            answer = await stranger.call(event, {"conversationId": "conv_" + "0" * 32})
            assert answer["error"]["code"] == "NOT_FOUND"


async def test_typing_takes_a_token_that_grants_writing(user, cluster):
    anna = user("anna")
    room = await anna.direct(somebody("ben"))
    reader = {"token": token(anna.user_id, permissions=["chat:read"])}
    async with ear(cluster[0], anna.user_id, auth=reader) as socket:
        for event in ("typing:start", "typing:stop"):
            answer = await socket.call(event, {"conversationId": room})
            assert answer["error"]["code"] == "FORBIDDEN"


async def test_large_groups_have_no_typing_no_presence_and_receipts_for_oneself(servers, tmp_path, user):
    async with pods(servers.environment(LARGE_GROUP="2"), tmp_path, 2) as (one, two):
        anna, ben = user("anna", one), user("ben", two)
        room = await anna.group(ben.user_id, somebody("eve"))
        async with ear(one, anna.user_id) as near, ear(two, anna.user_id) as own, ear(two, ben.user_id) as far:
            assert await near.call("typing:start", {"conversationId": room}) == {"ok": True}
            await ben.say(room, "hello")
            await anna.call("PUT", f"/api/conversations/{room}/read")
            (read,) = await own.wait_for("message:read")
            assert (read["userId"], read["lastReadSeq"]) == (anna.user_id, 1)
            await anna.say(room, "last")
            await far.wait_for("message:new", 2)
            assert {heard.event for heard in (*far.heard, *far.presence)} == {"message:new"}


async def test_presence_of_two_devices_is_one_change_each(user, cluster):
    anna, ben = user("anna"), user("ben")
    await anna.direct(ben.user_id)
    async with ear(cluster[1], ben.user_id) as far:
        async with ear(cluster[0], anna.user_id) as near:
            async with ear(cluster[1], anna.user_id):
                (online,) = await far.wait_for("user:online")
                assert online["userId"] == anna.user_id
                asked = await far.call(
                    "presence:get", {"userIds": [anna.user_id, somebody("unknown"), ben.user_id]}
                )
                assert asked == {"ok": True, "online": [anna.user_id, ben.user_id]}
            assert near.of("user:online") == []
        (offline,) = await far.wait_for("user:offline")
        assert offline["userId"] == anna.user_id
        assert offline["transition"] > online["transition"]
        assert [heard.event for heard in far.presence] == ["user:online", "user:offline"]


async def test_a_reload_does_not_flap_however_often(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    async with ear(cluster[1], ben.user_id) as far:
        for number in range(10):
            async with ear(cluster[number % 2], anna.user_id):
                await far.wait_for("user:online")
        await far.wait_for("user:offline")
        assert [heard.event for heard in far.presence] == ["user:online", "user:offline"]
        seen = (await ben.get(f"/api/conversations/{room}/presence")).json
        assert seen["conversationId"] == room
        assert seen["online"] == [ben.user_id]
        by_user = {one["userId"]: one for one in seen["participants"]}
        assert by_user[anna.user_id]["online"] is False
        assert by_user[anna.user_id]["lastSeenAt"].endswith("Z")


async def test_presence_is_nobodys_business_without_a_shared_conversation(user, cluster):
    anna = user("anna")
    async with ear(cluster[0], anna.user_id), ear(cluster[1], somebody("stranger")) as stranger:
        assert await stranger.call("presence:get", {"userIds": [anna.user_id]}) == {"ok": True, "online": []}
        assert await stranger.call("presence:ping", {}) == {"ok": True}
        assert stranger.heard == stranger.presence == []


async def test_receipts_come_once_a_second_and_the_latest_comes(user, cluster):
    anna, ben = user("anna"), user("ben", cluster[1])
    room = await anna.direct(ben.user_id)
    sent = [await anna.say(room, f"{n}") for n in range(8)]
    async with ear(cluster[0], anna.user_id) as near:
        await asyncio.gather(*(ben.call("PUT", f"/api/messages/{message['id']}/read") for message in sent))
        await near.wait(
            "the latest receipt",
            lambda _: near.of("message:read")[-1:] and near.of("message:read")[-1]["lastReadSeq"] == 8,
        )
        told = near.of("message:read")
        assert len(told) <= 3
        assert [one["lastReadSeq"] for one in told] == sorted({one["lastReadSeq"] for one in told})
        assert told[-1]["messageId"] == sent[-1]["id"]


async def test_a_fresh_token_keeps_the_socket_beyond_the_old_one(cluster):
    user_id = somebody()
    soon = {"token": token(user_id, exp=int(time.time()) + 2)}
    async with ear(cluster[0], user_id, auth=soon) as socket:
        other = await socket.call("auth:refresh", {"token": token(somebody("other"))})
        assert other["error"]["code"] == "UNAUTHORIZED"
        assert await socket.call("auth:refresh", {"token": token(user_id, exp=int(time.time()) + 4)}) == {
            "ok": True
        }
        await socket.wait_for("disconnect")
        (_, expired) = socket.of("error")
        assert expired["code"] == "UNAUTHORIZED"
