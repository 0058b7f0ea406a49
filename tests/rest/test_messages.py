import asyncio

import pytest
from clients import somebody, token
from malformed import CASES

NOWHERE = "conv_" + "0" * 32


@pytest.fixture
async def pair(user):
    """Two people in a direct conversation."""
    anna, ben = user("anna"), user("ben")
    return anna, ben, await anna.direct(ben.user_id)


def messages(conversation_id):
    return f"/api/conversations/{conversation_id}/messages"


async def test_a_message_is_answered_as_it_is_stored(pair):
    anna, ben, room = pair
    attachments = [{"externalFileId": "file_789", "label": "document.pdf"}, {"externalFileId": "f2"}]
    sent = await anna.post(
        messages(room), {"content": " Hello!\n🦊 ", "attachments": attachments, "clientMessageId": "k", "other": 1}
    )
    assert sent.status == 201
    message = sent.json
    assert message["id"].startswith("msg_")
    assert message["createdAt"] == message["updatedAt"]
    assert message["createdAt"].endswith("Z")
    assert len(message["createdAt"]) == len("2024-01-15T10:30:00.000Z")
    assert {name: message[name] for name in message if not name.endswith("At") and name != "id"} == {
        "conversationId": room,
        "seq": 1,
        "senderId": anna.user_id,
        "content": " Hello!\n🦊 ",
        "attachments": attachments,
        "clientMessageId": "k",
        "reactions": [],
    }
    listed = await ben.get(messages(room))
    assert listed.json == {"items": [message], "hasMore": False}


async def test_content_may_be_blank_beside_an_attachment(pair):
    anna, _, room = pair
    sent = await anna.post(messages(room), {"content": "", "attachments": [{"externalFileId": "f"}]})
    assert sent.status == 201
    assert sent.json["content"] == ""


async def test_content_of_the_greatest_length_is_kept(pair):
    anna, _, room = pair
    assert (await anna.say(room, "🦊" * 8000))["content"] == "🦊" * 8000


@pytest.mark.parametrize(("body", "field"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_what_is_malformed_is_400_and_names_the_field(pair, body, field):
    anna, _, room = pair
    answer = await anna.post(messages(room), data=body)
    assert (answer.status, answer.json["code"]) == (400, "VALIDATION_ERROR"), answer
    assert answer.json["details"] == {"field": field}
    assert answer.json["message"].startswith(f"{field}: ")
    assert (await anna.get(messages(room))).json["items"] == []


async def test_a_body_is_read_as_json_whatever_its_type(pair):
    anna, _, room = pair
    for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded", ""):
        sent = await anna.post(messages(room), data=b'{"content":"x"}', headers={"Content-Type": content_type})
        assert sent.status == 201, sent


async def test_an_empty_body_is_told(pair):
    anna, _, room = pair
    answer = await anna.post(messages(room))
    assert (answer.status, answer.json["details"]) == (400, {"field": "body"})


async def test_a_body_over_the_limit_is_413(pair):
    anna, _, room = pair
    answer = await anna.post(messages(room), data=b'{"content":"' + b"x" * 262_144 + b'"}')
    assert (answer.status, answer.json["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_strangers_are_403_and_unknown_ids_404(pair, user):
    _, _, room = pair
    stranger = user("stranger")
    for answer in (await stranger.get(messages(room)), await stranger.post(messages(room), {"content": "x"})):
        assert (answer.status, answer.json["code"]) == (403, "FORBIDDEN")
    for unknown in (NOWHERE, "nonsense", "msg_" + "0" * 32, "conv_%00"):
        for answer in (
            await stranger.get(messages(unknown)),
            await stranger.post(messages(unknown), {"content": "x"}),
        ):
            assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND"), unknown


async def test_permissions_are_looked_at(pair):
    anna, _, room = pair
    anna.token = token(anna.user_id, permissions=["chat:read"])
    assert (await anna.get(messages(room))).status == 200
    assert (await anna.post(messages(room), {"content": "x"})).status == 403
    anna.token = token(anna.user_id, permissions=["chat:write"])
    assert (await anna.get(messages(room))).status == 403
    assert (await anna.post(messages(room), {"content": "x"})).status == 201


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer nonsense", "nonsense"])
async def test_a_token_that_is_no_token_is_401(pair, header):
    anna, _, room = pair
    async with anna.session.get(
        anna.base + messages(room), headers={} if header is None else {"Authorization": header}
    ) as response:
        assert (response.status, (await response.json())["code"]) == (401, "UNAUTHORIZED")


async def test_seq_has_no_gap_under_concurrency_through_two_pods(user, cluster):
    anna, ben = user("anna"), user("ben", cluster[1])
    room = await anna.direct(ben.user_id)
    sent = await asyncio.gather(*((anna if n % 2 else ben).say(room, f"{n}") for n in range(100)))
    assert sorted(message["seq"] for message in sent) == list(range(1, 101))
    page = (await ben.get(messages(room) + "?limit=100")).json
    assert [message["seq"] for message in page["items"]] == list(range(100, 0, -1))
    assert (await ben.get(f"/api/conversations/{room}")).json["lastSeq"] == 100


async def test_thirty_equal_sends_through_two_pods_make_one_message(user, cluster):
    anna = user("anna")
    elsewhere = user("anna", cluster[1])
    elsewhere.user_id, elsewhere.token = anna.user_id, anna.token
    room = await anna.direct(somebody("ben"))
    body = {"content": "once", "clientMessageId": "the-same"}
    answers = await asyncio.gather(*((anna if n % 2 else elsewhere).post(messages(room), body) for n in range(30)))
    assert sorted(answer.status for answer in answers) == [200] * 29 + [201]
    assert len({answer.raw for answer in answers}) == 1
    assert (await anna.get(f"/api/conversations/{room}")).json["lastSeq"] == 1


async def test_a_repeated_send_is_the_first_one_or_a_conflict(pair):
    anna, ben, room = pair
    body = {"content": "hi", "clientMessageId": "k"}
    first = await anna.post(messages(room), body)
    again = await anna.post(messages(room), body)
    assert (again.status, again.json) == (200, first.json)
    other = await anna.post(messages(room), {**body, "content": "ho"})
    assert (other.status, other.json["code"]) == (409, "CONFLICT")
    attached = await anna.post(messages(room), {**body, "attachments": [{"externalFileId": "f"}]})
    assert attached.status == 409
    # The id is the sender's own, and the conversation's.
    assert (await ben.post(messages(room), body)).status == 201
    elsewhere = await anna.direct(somebody("eve"))
    assert (await anna.post(messages(elsewhere), body)).status == 201


async def test_an_idempotency_key_does_the_same_and_the_body_wins(pair):
    anna, _, room = pair
    key = {"Idempotency-Key": "header"}
    first = await anna.post(messages(room), {"content": "a"}, headers=key)
    assert (first.status, first.json["clientMessageId"]) == (201, "header")
    assert (await anna.post(messages(room), {"content": "a"}, headers=key)).status == 200
    both = await anna.post(messages(room), {"content": "a", "clientMessageId": "body"}, headers=key)
    assert (both.status, both.json["clientMessageId"]) == (201, "body")
    bad = await anna.post(messages(room), {"content": "a"}, headers={"Idempotency-Key": "x" * 129})
    assert (bad.status, bad.json["details"]) == (400, {"field": "Idempotency-Key"})


async def test_history_is_paged_in_both_directions(pair):
    anna, _, room = pair
    sent = [await anna.say(room, f"{n}") for n in range(7)]
    newest = (await anna.get(messages(room) + "?limit=3")).json
    assert [message["content"] for message in newest["items"]] == ["6", "5", "4"]
    assert newest["hasMore"]
    older = (await anna.get(messages(room) + f"?limit=3&before={newest['nextCursor']}")).json
    assert [message["content"] for message in older["items"]] == ["3", "2", "1"]
    oldest = (await anna.get(messages(room) + f"?limit=3&before={older['nextCursor']}")).json
    assert [message["content"] for message in oldest["items"]] == ["0"]
    assert not oldest["hasMore"]
    assert "nextCursor" not in oldest
    by_id = (await anna.get(messages(room) + f"?limit=2&before={sent[2]['id']}")).json
    assert [message["content"] for message in by_id["items"]] == ["1", "0"]
    after = (await anna.get(messages(room) + f"?limit=2&after={sent[2]['id']}")).json
    assert [message["content"] for message in after["items"]] == ["3", "4"]
    rest = (await anna.get(messages(room) + f"?after={after['nextCursor']}")).json
    assert [message["content"] for message in rest["items"]] == ["5", "6"]


async def test_places_that_are_none_are_400(pair):
    anna, _, room = pair
    message = await anna.say(room, "here")
    elsewhere = await anna.direct(somebody("eve"))
    for _ in range(2):
        foreign = await anna.say(elsewhere, "there")
    cursor = (await anna.get(messages(elsewhere) + "?limit=1")).json["nextCursor"]
    for query, field in (
        (f"before={message['id']}&after={message['id']}", "after"),
        (f"before={foreign['id']}", "before"),
        (f"after={foreign['id']}", "after"),
        (f"before={cursor}", "before"),
        ("before=nonsense", "before"),
        ("after=", "after"),
        (f"before=msg_{'0' * 32}", "before"),
        ("before=msg_nonsense", "before"),
    ):
        answer = await anna.get(messages(room) + "?" + query)
        assert (answer.status, answer.json["details"]) == (400, {"field": field}), query


@pytest.mark.parametrize("limit", ["0", "-1", "x", "", "1.5", "1e2", "٣", "9" * 30])
async def test_a_limit_that_is_no_number_or_below_1_is_400(pair, limit):
    anna, _, room = pair
    answer = await anna.get(messages(room) + f"?limit={limit}")
    assert (answer.status, answer.json["details"]) == (400, {"field": "limit"})


async def test_a_limit_above_the_maximum_is_the_maximum(pair):
    anna, _, room = pair
    for n in range(3):
        await anna.say(room, f"{n}")
    assert len((await anna.get(messages(room) + "?limit=100000")).json["items"]) == 3
