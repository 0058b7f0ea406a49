"""What a client missed: every change in order, as the socket sent it, or a gap that is told."""

import pytest
from clients import ear, somebody, token

from app.contract import ids


def path(room, more=""):
    return f"/api/conversations/{room}{more}"


async def missed(who, room, query=""):
    answer = await who.get(path(room, f"/events{query}"))
    assert answer.status == 200, answer
    return answer.json


@pytest.fixture
async def busy(user, cluster):
    """A group in which everything happened, and all that a member's socket on the other pod heard of it."""
    owner, member, third = user("owner"), user("member", cluster[1]), somebody("third")
    room = await owner.group(member.user_id)
    async with ear(cluster[1], member.user_id) as far:
        first = await owner.say(room, "first")
        await owner.post(path(room, "/participants"), {"userId": third})
        await member.post(f"/api/messages/{first['id']}/reactions", {"emoji": "👍"})
        second = await member.say(room, "second")
        await member.delete(f"/api/messages/{first['id']}/reactions/%F0%9F%91%8D")
        await owner.patch(path(room), {"title": "Trip", "metadata": {"a": [1, 2.5, "é"]}})
        await owner.delete(path(room, f"/participants/{third}"))
        await member.put(path(room, "/read"))
        await member.patch(f"/api/messages/{second['id']}", {"content": f"second, in {room}"})
        await owner.delete(f"/api/messages/{first['id']}")
        await far.wait_for("message:deleted")
    heard = [
        {"seq": heard.data["seq"], "event": heard.event, "data": heard.data}
        for heard in far.heard
        if heard.event not in {"message:read", "disconnect"}
    ]
    return owner, member, room, heard


async def test_it_is_what_the_socket_was_sent_in_order(busy):
    _, member, room, heard = busy
    page = await missed(member, room)
    assert {name: page[name] for name in ("lastSeq", "hasMore", "gap")} == {
        "lastSeq": 9,
        "hasMore": False,
        "gap": False,
    }
    assert [item["seq"] for item in heard] == list(range(1, 10))
    assert page["items"][1:3] == heard[1:3]
    assert page["items"][4:] == heard[4:]
    # Messages come as they are now: the first one is a tombstone, the second one was edited.
    first, second = page["items"][0], page["items"][3]
    deleted = page["items"][8]["data"]["deletedAt"]
    assert first["data"] == {**heard[0]["data"], "content": "", "deletedAt": deleted}
    edited = {name: page["items"][7]["data"][name] for name in ("content", "updatedAt")}
    assert second["data"] == {**heard[3]["data"], **edited}


async def test_it_is_paged_from_any_place(busy):
    _, member, room, _ = busy
    whole = (await missed(member, room))["items"]
    found, after = [], 0
    while True:
        page = await missed(member, room, f"?after={after}&limit=4")
        found += page["items"]
        after = found[-1]["seq"]
        assert (page["lastSeq"], page["gap"]) == (9, False)
        if not page["hasMore"]:
            break
        assert len(page["items"]) == 4
    assert found == whole
    assert (await missed(member, room, "?after=8"))["items"] == whole[8:]
    assert await missed(member, room, "?after=9") == {"items": [], "lastSeq": 9, "hasMore": False, "gap": False}
    assert (await missed(member, room, "?limit=100000"))["items"] == whole


async def test_after_what_has_not_happened_is_a_gap(busy):
    _, member, room, _ = busy
    for after in (10, 10**17):
        page = await missed(member, room, f"?after={after}")
        assert page == {"items": [], "lastSeq": 9, "hasMore": False, "gap": True}


@pytest.mark.parametrize("query", ["after=-1", "after=x", "after=1.5", "after=٣", f"after={'9' * 30}"])
async def test_a_place_that_is_none_is_400(busy, query):
    _, member, room, _ = busy
    answer = await member.get(path(room, f"/events?{query}"))
    assert (answer.status, answer.json["details"]) == (400, {"field": "after"})
    answer = await member.get(path(room, "/events?limit=0"))
    assert (answer.status, answer.json["details"]) == (400, {"field": "limit"})


async def test_what_is_no_longer_kept_is_a_gap_and_never_left_out(busy, sql):
    _, member, room, _ = busy
    whole = (await missed(member, room))["items"]
    forget = "DELETE FROM events WHERE conversation_id = $1 AND seq = $2"
    await sql.execute(forget, room.removeprefix("conv_"), 5)
    page = await missed(member, room)
    assert page == {"items": whole[:4], "lastSeq": 9, "hasMore": True, "gap": False}
    page = await missed(member, room, "?after=4")
    assert page == {"items": [], "lastSeq": 9, "hasMore": False, "gap": True}
    page = await missed(member, room, "?after=5")
    assert page == {"items": whole[5:], "lastSeq": 9, "hasMore": False, "gap": False}
    # What is kept of the last one does not matter to who has it.
    await sql.execute(forget, room.removeprefix("conv_"), 9)
    assert (await missed(member, room, "?after=8"))["gap"] is True
    assert (await missed(member, room, "?after=9"))["gap"] is False
    assert (await missed(member, room, "?after=10"))["gap"] is True


async def test_a_conversation_in_which_nothing_happened_has_nothing_and_no_gap(user):
    anna = user("anna")
    room = await anna.group()
    assert await missed(anna, room) == {"items": [], "lastSeq": 0, "hasMore": False, "gap": False}
    assert (await missed(anna, room, "?after=1"))["gap"] is True


async def test_what_was_deleted_is_nowhere_any_more(busy, sql):
    owner, member, room, _ = busy
    second = (await missed(member, room))["items"][3]["data"]
    await member.delete(f"/api/messages/{second['id']}")
    for who in (owner, member):
        for more in (
            "",
            "/messages",
            "/events",
            f"/messages?before={second['id']}",
            "/messages?after=" + second["id"],
        ):
            assert b"second" not in (await who.get(path(room, more))).raw
        assert b"second" not in (await who.get("/api/conversations")).raw
    tables = await sql.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    for table in (row["relname"] for row in tables):
        found = await sql.fetchval(f"SELECT count(*) FROM {table} t WHERE t::text LIKE '%second, in {room}%'")
        assert found == 0, table


async def test_profiles_are_those_of_now(user, master):
    anna, added = user("anna"), somebody("added")
    room = await anna.group()
    await anna.post(path(room, "/participants"), {"userId": added})
    for name in ("Before", "After"):
        await master.post("/api/users/sync", {"externalUserId": added, "displayName": name})
        (item,) = (await missed(anna, room))["items"]
        assert item["data"]["participant"]["displayName"] == name
    await master.delete(f"/api/users/{added}")
    assert "displayName" not in (await missed(anna, room))["items"][0]["data"]["participant"]


async def test_only_participants_who_may_read_see_it(busy, user):
    owner, _, room, _ = busy
    assert (await user("stranger").get(path(room, "/events"))).status == 403
    assert (await owner.get(path("conv_" + "0" * 32, "/events"))).status == 404
    owner.token = token(owner.user_id, permissions=["chat:write"])
    assert (await owner.get(path(room, "/events"))).status == 403


async def test_what_a_newer_release_logged_is_passed_on_under_its_own_name(user, sql, cluster):
    anna = user("anna")
    room = await anna.group()
    conversation_id = ids.from_wire(ids.CONVERSATION, room)
    async with ear(cluster[1], anna.user_id) as far:
        await sql.execute(
            """
            WITH logged AS (
                INSERT INTO events (conversation_id, seq, event, data) VALUES ($1, 1, 'poll:opened', '{"of": "x"}')
            )
            UPDATE conversation_heads SET last_seq = 1 WHERE conversation_id = $1
            """,
            conversation_id,
        )
        said = await anna.say(room, "after it")
        expected = {"conversationId": room, "seq": 1, "of": "x"}
        assert await far.wait_for("message:new") == [said]
        assert [(heard.event, heard.data) for heard in far.heard] == [
            ("poll:opened", expected),
            ("message:new", said),
        ]
        page = (await anna.get(f"/api/conversations/{room}/events")).json
        assert page["items"][0] == {"seq": 1, "event": "poll:opened", "data": expected}
        assert [item["seq"] for item in page["items"]] == [1, 2]
        synced = await far.call("sync", {"conversations": {room: 0}})
        assert synced["events"][room]["items"] == page["items"]


async def test_an_entry_whose_message_is_gone_is_a_gap_and_no_error(user, sql):
    anna = user("anna")
    room = await anna.group()
    said = await anna.say(room, "before")
    await anna.patch(f"/api/messages/{said['id']}", {"content": "edited"})
    # As a conversation is while it is purged, or where a failover lost a part.
    await sql.execute("DELETE FROM messages WHERE id = $1", ids.from_wire(ids.MESSAGE, said["id"]))
    page = await anna.get(f"/api/conversations/{room}/events?after=1")
    assert (page.status, page.json["gap"], page.json["items"]) == (200, True, [])
