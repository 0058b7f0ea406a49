import asyncio
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from clients import somebody, token

from app.config.types import Url
from app.contract import ids
from app.contract.errors import Forbidden
from app.identity.actor import Actor
from app.postgres import conversation_rows, database
from app.usecases import conversations

CONVERSATIONS = "/api/conversations"


async def test_a_direct_conversation_is_answered_as_it_is_stored(user):
    anna, ben = user("anna"), user("ben")
    answer = await anna.post(CONVERSATIONS, {"type": "direct", "participantIds": [ben.user_id]})
    assert answer.status == 201
    made = answer.json
    assert made["id"].startswith("conv_")
    joined = {"joinedAt": made["createdAt"], "lastReadSeq": 0, "role": "member"}
    assert made == {
        "id": made["id"],
        "type": "direct",
        "metadata": {},
        "createdBy": anna.user_id,
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
        "lastSeq": 0,
        "unreadCount": 0,
        "participantCount": 2,
        "participants": [{"userId": anna.user_id, **joined}, {"userId": ben.user_id, **joined}],
    }
    seen = (await ben.get(f"{CONVERSATIONS}/{made['id']}")).json
    assert [person["userId"] for person in seen["participants"]] == [ben.user_id, anna.user_id]


async def test_a_group_has_an_owner_a_title_and_metadata(user):
    anna = user("anna")
    people = [somebody() for _ in range(3)]
    body = {"type": "group", "participantIds": [*people, anna.user_id, people[0]], "title": "Trip"}
    answer = await anna.post(CONVERSATIONS, {**body, "metadata": {"a": {"b": [1, None, "é"]}}})
    assert answer.status == 201
    assert answer.json["ownerId"] == anna.user_id
    assert answer.json["title"] == "Trip"
    assert answer.json["metadata"] == {"a": {"b": [1, None, "é"]}}
    assert answer.json["participantCount"] == 4
    roles = {person["userId"]: person["role"] for person in answer.json["participants"]}
    assert roles == {anna.user_id: "owner", **dict.fromkeys(people, "member")}


async def test_numbers_in_metadata_stay_short_and_what_they_were(user):
    anna = user("anna")
    metadata = {
        "large": [1e308] * 600,
        "small": 1e-300,
        "of a client": 1e100,
        "digits": 10**30,
        "exact": 2**63 - 1,
    }
    group = await anna.group(metadata=metadata)
    answer = await anna.get(f"{CONVERSATIONS}/{group}")
    assert answer.json["metadata"] == {**metadata, "digits": 1e30}
    assert len(answer.raw) < 5000
    assert b"0" * 20 not in answer.raw
    log = await anna.get(f"{CONVERSATIONS}/{group}/events")
    assert log.json["lastSeq"] == 0


async def test_metadata_of_large_numbers_patched_unchanged_is_no_change(user):
    anna = user("anna")
    for number in (1e23, 10**23, 1e308, 1e-300, 2**64, -(2**70)):
        group = await anna.group(metadata={"number": number})
        for _ in range(2):
            answer = await anna.patch(f"{CONVERSATIONS}/{group}", {"metadata": {"number": number}})
            assert (answer.status, answer.json["lastSeq"]) == (200, 0)
        changed = await anna.patch(f"{CONVERSATIONS}/{group}", {"metadata": {"number": 1e307, "n": [5e300] * 9}})
        log = await anna.get(f"{CONVERSATIONS}/{group}/events")
        assert [item["data"]["metadata"] for item in log.json["items"]] == [changed.json["metadata"]]
        assert len(log.raw) < 1000


async def test_a_number_that_no_double_holds_is_refused(user):
    body = b'{"type":"group","participantIds":[],"metadata":{"n":1%s}}' % (b"0" * 400)
    answer = await user("anna").call("POST", CONVERSATIONS, data=body)
    assert (answer.status, answer.json["details"]["field"]) == (400, "metadata")


async def test_a_group_of_one_is_a_group(user):
    anna = user("anna")
    answer = await anna.post(CONVERSATIONS, {"type": "group", "participantIds": []})
    assert (answer.status, answer.json["participantCount"]) == (201, 1)


async def test_a_pair_has_one_direct_conversation(user, cluster):
    anna, ben = user("anna"), user("ben", cluster[1])
    first = await anna.post(CONVERSATIONS, {"type": "direct", "participantIds": [ben.user_id, anna.user_id]})
    again = await ben.post(CONVERSATIONS, {"type": "direct", "participantIds": [anna.user_id]})
    assert (first.status, again.status) == (201, 200)
    assert again.json["id"] == first.json["id"]
    assert again.json["createdBy"] == anna.user_id


async def test_thirty_creations_at_once_make_one_direct_conversation(user, cluster):
    anna, ben = user("anna"), user("ben", cluster[1])
    answers = await asyncio.gather(
        *(
            who.post(CONVERSATIONS, {"type": "direct", "participantIds": [other.user_id]})
            for _ in range(15)
            for who, other in ((anna, ben), (ben, anna))
        )
    )
    assert sorted(answer.status for answer in answers) == [200] * 29 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "type"),
        ({"type": "direct"}, "participantIds"),
        ({"type": "channel", "participantIds": ["x"]}, "type"),
        ({"type": "direct", "participantIds": "x"}, "participantIds"),
        ({"type": "direct", "participantIds": []}, "participantIds"),
        ({"type": "direct", "participantIds": ["a", "b"]}, "participantIds"),
        ({"type": "direct", "participantIds": [5]}, "participantIds[0]"),
        ({"type": "direct", "participantIds": [""]}, "participantIds[0]"),
        ({"type": "direct", "participantIds": ["x" * 129]}, "participantIds[0]"),
        ({"type": "group", "participantIds": ["a\x00"]}, "participantIds[0]"),
        ({"type": "group", "participantIds": [f"u{n}" for n in range(500)]}, "participantIds"),
        ({"type": "group", "participantIds": [], "title": "x" * 201}, "title"),
        ({"type": "group", "participantIds": [], "title": 5}, "title"),
        ({"type": "group", "participantIds": [], "metadata": []}, "metadata"),
        ({"type": "group", "participantIds": [], "metadata": {"a": "x" * 4096}}, "metadata"),
        ({"type": "group", "participantIds": [], "metadata": {"a": [{"b": "\x00"}]}}, "metadata.a[0].b"),
        ({"type": "group", "participantIds": [], "metadata": {"\x00": 1}}, "metadata"),
    ],
)
async def test_what_is_malformed_is_400_and_names_the_field(user, body, field):
    answer = await user().post(CONVERSATIONS, body)
    assert (answer.status, answer.json["code"], answer.json["details"]) == (
        400,
        "VALIDATION_ERROR",
        {"field": field},
    )


async def test_nobody_talks_directly_to_themselves(user):
    anna = user("anna")
    answer = await anna.post(CONVERSATIONS, {"type": "direct", "participantIds": [anna.user_id]})
    assert (answer.status, answer.json["details"]) == (400, {"field": "participantIds"})


async def test_strangers_are_403_and_unknown_ids_404(user):
    room = await user("anna").direct(somebody("ben"))
    stranger = user("stranger")
    assert (await stranger.get(f"{CONVERSATIONS}/{room}")).status == 403
    for unknown in ("conv_" + "0" * 32, "nonsense", "conv_"):
        assert (await stranger.get(f"{CONVERSATIONS}/{unknown}")).status == 404


async def test_permissions_are_looked_at(user):
    anna = user("anna")
    anna.token = token(anna.user_id, permissions=["chat:read"])
    answer = await anna.post(CONVERSATIONS, {"type": "group", "participantIds": []})
    assert (answer.status, answer.json["code"]) == (403, "FORBIDDEN")
    anna.token = token(anna.user_id, permissions=["chat:write"])
    assert (await anna.get(CONVERSATIONS)).status == 403


async def test_the_list_has_the_latest_first_with_message_and_unread_count(user):
    anna, ben = user("anna"), user("ben")
    rooms = [await anna.direct(somebody()) for _ in range(2)]
    shared = await anna.direct(ben.user_id)
    for n in range(3):
        await anna.say(rooms[0], f"{n}")
    await ben.say(shared, "first")
    await ben.say(shared, "second")
    await anna.say(shared, "my own does not count")
    page = (await anna.get(CONVERSATIONS)).json
    assert [item["id"] for item in page["items"]] == [shared, rooms[0], rooms[1]]
    assert "nextCursor" not in page
    assert [item["unreadCount"] for item in page["items"]] == [2, 0, 0]
    assert [item["lastSeq"] for item in page["items"]] == [3, 3, 0]
    assert page["items"][0]["lastMessage"]["content"] == "my own does not count"
    assert "lastMessage" not in page["items"][2]
    assert (await ben.get(CONVERSATIONS)).json["items"][0]["unreadCount"] == 1


async def test_the_list_is_paged_without_doubles_or_holes(user):
    anna = user("anna")
    rooms = [await anna.group(somebody()) for _ in range(7)]
    seen, cursor = [], ""
    while True:
        page = (await anna.get(f"{CONVERSATIONS}?limit=3{cursor}")).json
        seen += [item["id"] for item in page["items"]]
        if "nextCursor" not in page:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert seen == rooms[::-1]


async def test_cursors_of_others_are_400(user):
    anna, ben = user("anna"), user("ben")
    for _ in range(2):
        await anna.group()
    cursor = (await anna.get(f"{CONVERSATIONS}?limit=1")).json["nextCursor"]
    for text in (cursor, "nonsense", ""):
        answer = await ben.get(f"{CONVERSATIONS}?cursor={text}")
        assert (answer.status, answer.json["details"]) == (400, {"field": "cursor"})


async def test_lists_show_twenty_participants_and_the_reader_first(user):
    anna, last = user("anna"), user("last")
    room = await anna.group(*(somebody() for _ in range(30)), last.user_id)
    (item,) = (await last.get(CONVERSATIONS)).json["items"]
    assert item["participantCount"] == 32
    assert len(item["participants"]) == 20
    assert item["participants"][0]["userId"] == last.user_id
    whole = (await last.get(f"{CONVERSATIONS}/{room}")).json
    assert len(whole["participants"]) == 32


async def test_the_user_proxy_may_send_a_body_with_a_get(user):
    anna = user("anna")
    for body in (b"", b"{}"):
        answer = await anna.get(CONVERSATIONS, data=body, headers={"Content-Type": "application/json"})
        assert answer.status == 200


async def test_who_is_removed_while_they_ask_is_a_stranger(user, servers, monkeypatch):
    anna, ben = user("anna"), user("ben")
    room = await anna.group(ben.user_id)
    read = conversation_rows.get_conversation

    async def removed_first(*values):
        await anna.delete(f"{CONVERSATIONS}/{room}/participants/{ben.user_id}")
        return await read(*values)

    monkeypatch.setattr(conversation_rows, "get_conversation", removed_first)
    deps = SimpleNamespace(limits=SimpleNamespace(check=AsyncMock()))
    actor = Actor(ben.user_id, can_read=True, can_write=True, expires_at=0, issued_at=0)
    async with database.opened(Url(servers.database_url)):
        with pytest.raises(Forbidden):
            await conversations.get_conversation(deps, actor, ids.from_wire(ids.CONVERSATION, room))
