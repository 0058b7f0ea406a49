"""How far people have read, and how much they have not."""

import asyncio

import pytest
from clients import Rest, ear, somebody, token


def path(room, more=""):
    return f"/api/conversations/{room}{more}"


async def read(who, message):
    answer = await who.put(f"/api/messages/{message['id']}/read")
    assert answer.status == 200, answer
    return answer.json


async def unread(who, room):
    """Give what both the conversation and the list say."""
    (listed,) = [item for item in (await who.get("/api/conversations")).json["items"] if item["id"] == room]
    one = (await who.get(path(room))).json
    assert listed["unreadCount"] == one["unreadCount"]
    return one["unreadCount"]


@pytest.fixture
async def pair(user, cluster):
    """Two people in a direct conversation, each on a pod of their own."""
    anna, ben = user("anna"), user("ben", cluster[1])
    return anna, ben, await anna.direct(ben.user_id)


async def test_reading_up_to_a_message_is_answered_announced_and_shown(pair, cluster):
    anna, ben, room = pair
    first, second, _ = [await anna.say(room, f"{n}") for n in range(3)]
    async with ear(cluster[0], anna.user_id) as near, ear(cluster[1], ben.user_id) as own:
        answer = await read(ben, second)
        assert answer == {"conversationId": room, "lastReadSeq": 2, "readAt": answer["readAt"]}
        told = {**answer, "messageId": second["id"], "userId": ben.user_id}
        assert await near.wait_for("message:read") == [told]
        assert await own.wait_for("message:read") == [told]
        # It never moves back, and what does not move is no news.
        assert await read(ben, first) == answer
        assert await read(ben, second) == answer
        assert (await anna.say(room, "marker"))["seq"] == 4
        await near.wait_for("message:new")
        assert len(near.of("message:read")) == 1
    seen = (await anna.get(path(room))).json["participants"]
    (reader,) = [person for person in seen if person["userId"] == ben.user_id]
    assert (reader["lastReadSeq"], reader["lastReadAt"]) == (2, answer["readAt"])
    assert await unread(ben, room) == 2


async def test_reading_a_conversation_is_reading_its_latest_message(pair, cluster):
    anna, ben, room = pair
    nothing = (await ben.put(path(room, "/read"))).json
    assert (nothing["conversationId"], nothing["lastReadSeq"]) == (room, 0)
    sent = [await anna.say(room, f"{n}") for n in range(3)]
    await anna.post(f"/api/messages/{sent[0]['id']}/reactions", {"emoji": "👍"})
    async with ear(cluster[0], anna.user_id) as near:
        answer = await ben.put(path(room, "/read"))
        assert (answer.status, answer.json["lastReadSeq"]) == (200, 3)
        (told,) = await near.wait_for("message:read")
        assert (told["messageId"], told["lastReadSeq"]) == (sent[2]["id"], 3)
    assert await unread(ben, room) == 0
    assert (await ben.get(path(room))).json["lastSeq"] == 4


async def test_unread_are_the_messages_of_others_that_are_not_deleted(pair):
    anna, ben, room = pair
    sent = [await anna.say(room, f"{n}") for n in range(5)]
    await ben.say(room, "my own")
    await anna.patch(f"/api/messages/{sent[4]['id']}", {"content": "edited"})
    await anna.post(f"/api/messages/{sent[4]['id']}/reactions", {"emoji": "👍"})
    assert (await unread(ben, room), await unread(anna, room)) == (5, 1)
    await anna.delete(f"/api/messages/{sent[3]['id']}")
    assert await unread(ben, room) == 4
    await read(ben, sent[2])
    assert await unread(ben, room) == 1
    await anna.delete(f"/api/messages/{sent[4]['id']}")
    assert await unread(ben, room) == 0
    # A tombstone is read like any message.
    assert (await read(ben, sent[3]))["lastReadSeq"] == 4


async def test_unread_is_exact_up_to_999_and_1000_means_more(pair, sql):
    anna, ben, room = pair
    await anna.say(room, "the first")
    many = """
        WITH stored AS (
            INSERT INTO messages (id, conversation_id, seq, sender_id, content, attachments, created_at,
                                  updated_at)
            SELECT gen_random_uuid(), $1, n, $2, 'x', '[]', now(), now()
            FROM generate_series($3::int, $4::int) AS n
        )
        UPDATE conversation_heads SET last_seq = $4, last_message_seq = $4 WHERE conversation_id = $1
    """
    for first, last, shown in ((2, 999, 999), (1000, 1000, 1000), (1001, 1500, 1000)):
        await sql.execute(many, room.removeprefix("conv_"), anna.user_id, first, last)
        assert await unread(ben, room) == shown
    latest = (await ben.get(path(room, "/messages?limit=1"))).json["items"]
    await read(ben, latest[0])
    assert await unread(ben, room) == 0


async def test_readings_at_once_end_at_the_furthest(pair, cluster):
    anna, ben, room = pair
    sent = [await anna.say(room, f"{n}") for n in range(20)]
    places = [ben.at(pod) for pod in cluster]
    async with ear(cluster[0], anna.user_id) as near:
        answers = await asyncio.gather(*(read(places[n % 2], sent[n]) for n in range(19, -1, -1)))
        assert max(answer["lastReadSeq"] for answer in answers) == 20
        assert all(answer["lastReadSeq"] >= sent[19 - n]["seq"] for n, answer in enumerate(answers))
        await near.wait("20 read", lambda _: 20 in [told["lastReadSeq"] for told in near.of("message:read")])
    assert (await read(ben, sent[0]))["lastReadSeq"] == 20
    assert await unread(ben, room) == 0


async def test_a_reader_needs_to_read_only(pair, user):
    anna, ben, room = pair
    sent = await anna.say(room, "x")
    ben.token = token(ben.user_id, permissions=["chat:read"])
    assert (await read(ben, sent))["lastReadSeq"] == 1
    assert (await ben.put(path(room, "/read"))).status == 200
    ben.token = token(ben.user_id, permissions=["chat:write"])
    stranger = user("stranger")
    for who in (ben, stranger):
        for answer in (await who.put(f"/api/messages/{sent['id']}/read"), await who.put(path(room, "/read"))):
            assert (answer.status, answer.json["code"]) == (403, "FORBIDDEN")
    assert (await anna.put(path("conv_" + "0" * 32, "/read"))).status == 404


async def test_in_a_large_group_a_reading_is_told_to_the_reader_alone(small, http):
    here, there = small
    anna, ben = (Rest(http, pod.http, name := somebody(), token(name)) for pod in small)
    little, large = await anna.direct(ben.user_id), await anna.group(ben.user_id, somebody())
    async with (
        ear(here, anna.user_id) as near,
        ear(there, ben.user_id) as far,
        ear(here, ben.user_id) as other,
    ):
        for room in (large, little):
            await read(ben, await anna.say(room, "x"))
        for listener, rooms in ((near, [little]), (far, [large, little]), (other, [large, little])):
            await listener.wait_for("message:read", len(rooms))
            assert [told["conversationId"] for told in listener.of("message:read")] == rooms
