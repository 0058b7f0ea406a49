"""A direct conversation is hidden from one's own list, until somebody writes."""

import pytest
from clients import ear, somebody

CONVERSATIONS = "/api/conversations"


def path(room, more=""):
    return f"{CONVERSATIONS}/{room}{more}"


async def listed(who):
    return [item["id"] for item in (await who.get(CONVERSATIONS)).json["items"]]


@pytest.fixture
async def pair(user, cluster):
    """Two people in a direct conversation, each on a pod of their own."""
    anna, ben = user("anna"), user("ben", cluster[1])
    return anna, ben, await anna.direct(ben.user_id)


async def test_it_is_hidden_from_the_one_and_the_other_notices_nothing(pair, cluster):
    anna, ben, room = pair
    await ben.say(room, "hello")
    async with (
        ear(cluster[0], anna.user_id) as near,
        ear(cluster[1], anna.user_id) as elsewhere,
        ear(cluster[1], ben.user_id) as other,
    ):
        answer = await anna.delete(path(room))
        assert (answer.status, answer.raw) == (204, b"")
        for listener in (near, elsewhere):
            assert await listener.wait_for("conversation:hidden") == [{"conversationId": room}]
        assert (await listed(anna), await listed(ben)) == ([], [room])
        # It is still there, for all who know it.
        assert (await anna.get(path(room))).json["unreadCount"] == 1
        assert len((await anna.get(path(room, "/messages"))).json["items"]) == 1
        # The second time changes nothing.
        assert (await anna.delete(path(room))).status == 204
        await anna.say(await anna.direct(ben.user_id), "marker")
        await other.wait_for("message:new")
        assert [heard.event for heard in other.heard] == ["message:new"]
        await elsewhere.wait_for("message:new")
        assert len(elsewhere.of("conversation:hidden")) == 1


@pytest.mark.parametrize("who", ["the other", "oneself"])
async def test_a_message_shows_it_again_and_is_preceded_by_the_conversation(pair, cluster, who):
    anna, ben, room = pair
    await ben.say(room, "before")
    await anna.delete(path(room))
    async with (
        ear(cluster[0], anna.user_id) as near,
        ear(cluster[1], anna.user_id) as elsewhere,
        ear(cluster[1], ben.user_id) as other,
    ):
        first = await (ben if who == "the other" else anna).say(room, "after")
        second = await ben.say(room, "and after")
        for listener in (near, elsewhere):
            await listener.wait_for("message:new", 2)
            assert [heard.event for heard in listener.heard] == ["conversation:new", "message:new", "message:new"]
            assert listener.of("message:new") == [first, second]
            (new,) = listener.of("conversation:new")
            assert (new["id"], "unreadCount" in new) == (room, False)
            assert [person["userId"] for person in new["participants"]] == [anna.user_id, ben.user_id]
        await other.wait_for("message:new", 2)
        assert [heard.event for heard in other.heard] == ["message:new", "message:new"]
    assert await listed(anna) == [room]


async def test_only_a_message_shows_it_again(pair):
    anna, ben, room = pair
    sent = await ben.say(room, "before")
    await anna.delete(path(room))
    await ben.patch(f"/api/messages/{sent['id']}", {"content": "edited"})
    await ben.post(f"/api/messages/{sent['id']}/reactions", {"emoji": "👍"})
    await anna.put(path(room, "/read"))
    await ben.delete(f"/api/messages/{sent['id']}")
    assert await listed(anna) == []


async def test_one_without_a_message_can_be_hidden(pair):
    anna, ben, room = pair
    assert (await anna.delete(path(room))).status == 204
    assert await listed(anna) == []
    await ben.say(room, "hello")
    assert await listed(anna) == [room]


async def test_both_may_hide_it_and_one_message_shows_it_to_both(pair, cluster):
    anna, ben, room = pair
    await anna.say(room, "before")
    await anna.delete(path(room))
    await ben.delete(path(room))
    async with ear(cluster[0], anna.user_id) as near, ear(cluster[1], ben.user_id) as far:
        await anna.say(room, "after")
        for listener in (near, far):
            await listener.wait_for("message:new")
            assert [heard.event for heard in listener.heard] == ["conversation:new", "message:new"]
    assert (await listed(anna), await listed(ben)) == ([room], [room])


async def test_it_can_be_hidden_again_and_again(pair, cluster):
    anna, ben, room = pair
    async with ear(cluster[1], anna.user_id) as elsewhere:
        for n in range(1, 4):
            await ben.say(room, f"{n}")
            await elsewhere.wait_for("message:new", n)
            assert await listed(anna) == [room]
            await anna.delete(path(room))
            await elsewhere.wait_for("conversation:hidden", n)
            assert await listed(anna) == []
        names = [heard.event for heard in elsewhere.heard]
    again = ["conversation:new", "message:new", "conversation:hidden"]
    assert names == [*again[1:], *again, *again]


async def test_creating_it_again_shows_it_to_who_asks(pair, cluster):
    anna, ben, room = pair
    await ben.say(room, "before")
    await anna.delete(path(room))
    async with ear(cluster[1], anna.user_id) as elsewhere, ear(cluster[1], ben.user_id) as other:
        answer = await anna.post(CONVERSATIONS, {"type": "direct", "participantIds": [ben.user_id]})
        assert (answer.status, answer.json["id"]) == (200, room)
        (new,) = await elsewhere.wait_for("conversation:new")
        assert new["id"] == room
        assert await listed(anna) == [room]
        # One that is shown is not shown anew, by whomever it is asked for.
        for who, whom in ((anna, ben), (ben, anna)):
            again = await who.post(CONVERSATIONS, {"type": "direct", "participantIds": [whom.user_id]})
            assert (again.status, again.json["id"]) == (200, room)
        await anna.say(room, "marker")
        for listener, names in ((elsewhere, ["conversation:new", "message:new"]), (other, ["message:new"])):
            await listener.wait_for("message:new")
            assert [heard.event for heard in listener.heard] == names


async def test_one_that_a_message_has_shown_is_no_news_when_it_is_created_again(pair, cluster):
    anna, ben, room = pair
    await anna.delete(path(room))
    await ben.say(room, "shows it")
    async with ear(cluster[0], anna.user_id) as near:
        assert await anna.direct(ben.user_id) == room
        await ben.say(room, "marker")
        await near.wait_for("message:new")
        assert [heard.event for heard in near.heard] == ["message:new"]


async def test_a_page_of_the_list_leaves_hidden_ones_out_and_has_no_holes(user):
    anna = user("anna")
    rooms = [await anna.direct(somebody()) for _ in range(6)]
    for room in rooms[::2]:
        await anna.delete(path(room))
    seen, cursor = [], ""
    while True:
        page = (await anna.get(f"{CONVERSATIONS}?limit=2{cursor}")).json
        seen += [item["id"] for item in page["items"]]
        if "nextCursor" not in page:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert seen == rooms[::-2]
