"""What the master's operators see and do."""

import asyncio
from urllib.parse import quote

import pytest
from clients import Master, Rest, ear, somebody, token
from pods import pods, until

ADMIN = "/api/admin/conversations"


def path(room, more=""):
    return f"/api/conversations/{room}{more}"


async def pages(master, query, limit):
    """Read a list to its end; no page may be longer than asked for, nor the last one promise more."""
    found, cursor = [], ""
    while True:
        answer = await master.get(f"{ADMIN}?limit={limit}{query}{cursor}")
        assert answer.status == 200
        assert len(answer.json["items"]) <= limit
        found += answer.json["items"]
        if "nextCursor" not in answer.json:
            return found
        cursor = f"&cursor={answer.json['nextCursor']}"


async def test_all_conversations_are_listed_by_id(master, user):
    anna, ben = user("anna"), user("ben")
    direct = await anna.direct(ben.user_id)
    groups = [await ben.group(title=f"{n}") for n in range(4)]
    hidden = await ben.direct(somebody())
    await ben.delete(path(hidden))
    sent = await anna.say(direct, "hello")
    everything = [item["id"] for item in await pages(master, "", 100)]
    assert everything == sorted(everything)
    assert {direct, hidden, *groups} <= set(everything)
    mine = f"&userId={quote(ben.user_id)}"
    assert [item["id"] for item in await pages(master, mine, 2)] == [direct, *groups, hidden]
    assert [item["id"] for item in await pages(master, mine + "&type=group", 3)] == groups
    assert [item["id"] for item in await pages(master, mine + "&type=direct", 1)] == [direct, hidden]
    (item,) = await pages(master, f"&userId={anna.user_id}", 20)
    theirs = (await anna.get(path(direct))).json
    assert item == {**theirs, "unreadCount": 0}
    assert item["lastMessage"] == sent
    assert await pages(master, f"&userId={somebody()}", 20) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("type=channel", "type"),
        ("type=", "type"),
        ("userId=%00", "userId"),
        ("cursor=nonsense", "cursor"),
        ("cursor=", "cursor"),
    ],
)
async def test_a_malformed_query_is_400(master, query, field):
    answer = await master.get(f"{ADMIN}?{query}")
    assert (answer.status, answer.json["details"]) == (400, {"field": field})


async def test_cursors_of_users_are_none_here_nor_the_other_way_round(master, user):
    anna = user("anna")
    for _ in range(2):
        await anna.group()
    own = (await anna.get("/api/conversations?limit=1")).json["nextCursor"]
    theirs = (await master.get(f"{ADMIN}?limit=1")).json["nextCursor"]
    assert (await master.get(f"{ADMIN}?cursor={own}")).status == 400
    assert (await anna.get(f"/api/conversations?cursor={theirs}")).status == 400
    assert (await master.get(f"{ADMIN}?limit=1000000")).status == 200


async def purged(sql, room):
    found = (
        await sql.fetchval(f"SELECT count(*) FROM {table} WHERE conversation_id = $1", room.removeprefix("conv_"))
        for table in ("messages", "events", "participants", "conversation_heads")
    )
    return [count async for count in found] == [0] * 4


async def test_a_deleted_conversation_is_gone_everywhere_at_once_and_its_rows_later(master, user, cluster, sql):
    anna, ben = user("anna"), user("ben", cluster[1])
    room, other = await anna.direct(ben.user_id), await anna.group(ben.user_id)
    sent = await anna.say(room, "hello")
    await ben.post(f"/api/messages/{sent['id']}/reactions", {"emoji": "👍"})
    async with ear(cluster[0], anna.user_id) as near, ear(cluster[1], ben.user_id) as far:
        answer = await master.delete(f"{ADMIN}/{room}")
        assert (answer.status, answer.raw) == (204, b"")
        for pod in cluster:
            there = ben.at(pod)
            for call in (
                there.get(path(room)),
                there.get(path(room, "/messages")),
                there.get(path(room, "/events")),
                there.post(path(room, "/messages"), {"content": "x"}),
                there.put(f"/api/messages/{sent['id']}/read"),
                there.patch(f"/api/messages/{sent['id']}", {"content": "x"}),
                there.delete(path(room)),
                master.at(pod).delete(f"{ADMIN}/{room}"),
            ):
                gone = await call
                assert (gone.status, gone.json["code"]) == (404, "NOT_FOUND")
        payload = {"conversationId": room, "content": "x"}
        assert (await far.call("message:send", payload))["error"]["code"] == "NOT_FOUND"
        await anna.say(other, "marker")
        for listener in (near, far):
            await listener.wait_for("message:new")
            assert listener.of("conversation:deleted") == [{"conversationId": room}]
            assert [heard.event for heard in listener.heard if heard.event != "error"] == [
                "conversation:deleted",
                "message:new",
            ]
    assert [item["id"] for item in (await ben.get("/api/conversations")).json["items"]] == [other]
    await until(lambda: purged(sql, room), "the purge")
    assert await sql.fetchval("SELECT count(*) FROM reactions WHERE message_id = $1", sent["id"][4:]) == 0
    # The two may begin anew.
    assert await ben.direct(anna.user_id) != room


async def test_a_deletion_meets_sends_on_both_pods(master, user, cluster):
    anna, ben = user("anna"), user("ben", cluster[1])
    room = await anna.direct(ben.user_id)
    sends = [who.post(path(room, "/messages"), {"content": "x"}) for who in (anna, ben) * 10]
    deleted, *answers = await asyncio.gather(master.delete(f"{ADMIN}/{room}"), *sends)
    assert deleted.status == 204
    assert {answer.status for answer in answers} <= {201, 404}
    assert (await anna.get(path(room, "/messages"))).status == 404


@pytest.mark.parametrize("unknown", ["conv_" + "0" * 32, "nonsense", "conv_", "msg_" + "0" * 32])
async def test_what_is_none_is_404(master, unknown):
    answer = await master.delete(f"{ADMIN}/{unknown}")
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")


async def test_statistics_count_what_there_is(own_servers, tmp_path, http):
    async with pods(own_servers.environment(), tmp_path, 1) as (pod,):
        anna, ben = (Rest(http, pod.http, name := somebody(), token(name)) for _ in "12")
        master = Master(http, pod.http, "", "")
        for person in (anna, ben):
            await master.post("/api/users/sync", {"externalUserId": person.user_id, "displayName": "x"})
        await master.delete(f"/api/users/{somebody()}")
        room = await anna.direct(ben.user_id)
        for n in range(3):
            await ben.say(room, f"{n}")
        stats = (await master.get("/api/admin/stats")).json
        assert stats == {
            "users": 2,
            "conversations": 1,
            "messages": {"total": 3, "last24h": 3, "totalIsEstimate": False},
            # Those of other tests' pods too, which share the Redis.
            "sockets": stats["sockets"],
            "usersOnline": stats["usersOnline"],
            "webhooks": {"pending": 0, "dead": 0},
        }
        assert pod.errors() == []
