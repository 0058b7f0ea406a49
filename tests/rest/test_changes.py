"""Edits, deletions, reactions, titles: each change takes the next seq, and what changes nothing takes none."""

import asyncio
from urllib.parse import quote

import pytest
from clients import ear, somebody, token

NO_MESSAGE = "msg_" + "0" * 32
FAMILY = "👨‍👩‍👧‍👦"


def message_path(message, more=""):
    return f"/api/messages/{message['id']}{more}"


def conversation_path(room, more=""):
    return f"/api/conversations/{room}{more}"


async def last_seq(who, room):
    return (await who.get(conversation_path(room))).json["lastSeq"]


async def stored(who, message):
    """Read one message as it is now."""
    page = (await who.get(conversation_path(message["conversationId"], "/messages?limit=100"))).json
    return next(found for found in page["items"] if found["id"] == message["id"])


@pytest.fixture
async def group(user, cluster):
    """An owner on one pod, two members on the other."""
    owner, author, member = user("owner"), user("author", cluster[1]), user("member", cluster[1])
    return owner, author, member, await owner.group(author.user_id, member.user_id)


async def test_an_edit_changes_content_and_updated_at_and_is_announced_on_all_pods(group, cluster):
    owner, author, member, room = group
    sent = await author.say(room, "befor")
    async with ear(cluster[0], owner.user_id) as near, ear(cluster[1], author.user_id) as own:
        answer = await author.patch(message_path(sent), {"content": "before"})
        assert answer.status == 200
        assert answer.json == {**sent, "content": "before", "updatedAt": answer.json["updatedAt"]}
        assert answer.json["updatedAt"] >= sent["createdAt"]
        told = {
            "conversationId": room,
            "seq": 2,
            "messageId": sent["id"],
            "content": "before",
            "updatedAt": answer.json["updatedAt"],
        }
        assert await near.wait_for("message:updated") == [told]
        assert await own.wait_for("message:updated") == [told]
    assert await stored(member, sent) == answer.json
    seen = (await member.get(conversation_path(room))).json
    assert (seen["lastSeq"], seen["lastMessage"]) == (2, answer.json)


async def test_an_edit_to_the_same_content_changes_nothing(group, cluster):
    owner, author, _, room = group
    sent = await author.say(room, "the same")
    async with ear(cluster[0], owner.user_id) as near:
        answer = await author.patch(message_path(sent), {"content": "the same"})
        assert (answer.status, answer.json) == (200, sent)
        last = await author.say(room, "marker")
        assert last["seq"] == 2
        await near.wait_for("message:new")
        assert near.of("message:updated") == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "content"),
        (b'{"content":null}', "content"),
        (b'{"content":5}', "content"),
        (b'{"content":""}', "content"),
        (b'{"content":" \\n"}', "content"),
        (b'{"content":"a\\u0000b"}', "content"),
        (b'{"content":"a\\ud83db"}', "content"),
        (b'{"content":"' + b"x" * 8001 + b'"}', "content"),
        (b'{"content":', "body"),
        (b"", "body"),
    ],
)
async def test_a_malformed_edit_is_400_and_changes_nothing(group, body, field):
    _, author, _, room = group
    sent = await author.say(room, "as it was")
    answer = await author.patch(message_path(sent), data=body)
    assert (answer.status, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert answer.json["details"] == {"field": field}
    assert await stored(author, sent) == sent


async def test_an_edit_may_be_blank_beside_an_attachment(group):
    _, author, _, room = group
    body = {"content": "look", "attachments": [{"externalFileId": "f"}]}
    sent = (await author.post(conversation_path(room, "/messages"), body)).json
    answer = await author.patch(message_path(sent), {"content": ""})
    assert (answer.status, answer.json["content"], answer.json["attachments"]) == (200, "", body["attachments"])


async def test_a_deletion_leaves_a_tombstone_that_says_nothing(group, cluster):
    owner, author, member, room = group
    body = {"content": "a secret", "attachments": [{"externalFileId": "f", "label": "a secret"}]}
    sent = (await author.post(conversation_path(room, "/messages"), body)).json
    await author.patch(message_path(sent), {"content": "another secret"})
    await member.post(message_path(sent, "/reactions"), {"emoji": "👍"})
    async with ear(cluster[0], owner.user_id) as near, ear(cluster[1], author.user_id) as own:
        answer = await author.delete(message_path(sent))
        assert (answer.status, answer.raw) == (204, b"")
        (told,) = await near.wait_for("message:deleted")
        assert told == {
            "conversationId": room,
            "seq": 4,
            "messageId": sent["id"],
            "deletedAt": told["deletedAt"],
        }
        assert await own.wait_for("message:deleted") == [told]
        assert (await author.delete(message_path(sent))).status == 204
        assert (await author.say(room, "marker"))["seq"] == 5
        await near.wait_for("message:new")
        assert len(near.of("message:deleted")) == 1
    grave = await stored(member, sent)
    assert grave["deletedAt"] == told["deletedAt"]
    assert (grave["content"], grave["attachments"]) == ("", [])
    for path in ("/messages", "/events", ""):
        assert b"secret" not in (await member.get(conversation_path(room, path))).raw
    assert b"secret" not in (await member.get("/api/conversations")).raw


async def test_a_tombstone_is_neither_edited_nor_reacted_to(group):
    owner, author, _, room = group
    sent = await author.say(room, "gone soon")
    await owner.post(message_path(sent, "/reactions"), {"emoji": "👍"})
    await author.delete(message_path(sent))
    edited = await author.patch(message_path(sent), {"content": "back"})
    reacted = await owner.post(message_path(sent, "/reactions"), {"emoji": "👍"})
    for answer in (edited, reacted):
        assert (answer.status, answer.json["code"]) == (409, "CONFLICT")
    assert await last_seq(owner, room) == 3


async def test_a_deleted_message_sent_again_is_the_tombstone_whatever_it_carries(group):
    _, author, _, room = group
    body = {"content": "once", "clientMessageId": "k"}
    sent = (await author.post(conversation_path(room, "/messages"), body)).json
    edited = (await author.patch(message_path(sent), {"content": "twice"})).json
    again = await author.post(conversation_path(room, "/messages"), body)
    assert (again.status, again.json) == (200, edited)
    await author.delete(message_path(sent))
    for content in ("once", "anything else"):
        again = await author.post(conversation_path(room, "/messages"), {**body, "content": content})
        assert (again.status, again.json) == (200, await stored(author, sent))
    assert await last_seq(author, room) == 3


@pytest.mark.parametrize(
    ("who", "edits", "deletes"),
    [("author", 200, 204), ("owner", 403, 204), ("member", 403, 403), ("stranger", 403, 403)],
)
async def test_the_author_edits_and_the_author_or_the_owner_deletes(group, user, who, edits, deletes):
    owner, author, member, room = group
    actor = {"owner": owner, "author": author, "member": member, "stranger": user("stranger")}[who]
    sent = await author.say(room, "whose is it")
    assert (await actor.patch(message_path(sent), {"content": "mine"})).status == edits
    assert (await actor.delete(message_path(sent))).status == deletes
    assert ("deletedAt" in await stored(author, sent)) == (deletes == 204)


async def test_in_a_direct_conversation_nobody_deletes_what_the_other_said(user):
    anna, ben = user("anna"), user("ben")
    sent = await ben.say(await anna.direct(ben.user_id), "mine")
    assert (await anna.delete(message_path(sent))).status == 403


async def test_who_left_changes_nothing_any_more(group):
    _, author, _, room = group
    sent = await author.say(room, "my last words")
    assert (await author.delete(conversation_path(room))).status == 204
    for answer in (
        await author.patch(message_path(sent), {"content": "x"}),
        await author.delete(message_path(sent)),
        await author.post(message_path(sent, "/reactions"), {"emoji": "👍"}),
        await author.delete(message_path(sent, "/reactions/x")),
        await author.put(message_path(sent, "/read")),
        await author.put(conversation_path(room, "/read")),
        await author.patch(conversation_path(room), {"title": "x"}),
        await author.post(conversation_path(room, "/participants"), {"userId": author.user_id}),
        await author.get(conversation_path(room, "/events")),
        await author.get(conversation_path(room, "/presence")),
    ):
        assert (answer.status, answer.json["code"]) == (403, "FORBIDDEN")


async def test_messages_that_are_none_are_404(user):
    anna = user("anna")
    for unknown in (NO_MESSAGE, "nonsense", "msg_", "conv_" + "0" * 32):
        for answer in (
            await anna.patch(f"/api/messages/{unknown}", {"content": "x"}),
            await anna.delete(f"/api/messages/{unknown}"),
            await anna.post(f"/api/messages/{unknown}/reactions", {"emoji": "👍"}),
            await anna.delete(f"/api/messages/{unknown}/reactions/x"),
            await anna.put(f"/api/messages/{unknown}/read"),
        ):
            assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")


async def test_writes_want_the_permission_to_write(group):
    owner, author, member, room = group
    sent = await author.say(room, "x")
    reader = token(owner.user_id, permissions=["chat:read"])
    owner.token = reader
    for answer in (
        await owner.delete(message_path(sent)),
        await owner.patch(message_path(sent), {"content": "y"}),
        await owner.post(message_path(sent, "/reactions"), {"emoji": "👍"}),
        await owner.delete(message_path(sent, "/reactions/x")),
        await owner.patch(conversation_path(room), {"title": "x"}),
        await owner.post(conversation_path(room, "/participants"), {"userId": "x"}),
        await owner.delete(conversation_path(room, f"/participants/{member.user_id}")),
        await owner.delete(conversation_path(room)),
    ):
        assert (answer.status, answer.json["code"]) == (403, "FORBIDDEN")
    assert await last_seq(author, room) == 1


async def test_a_reaction_is_added_once_and_taken_back_once(group, cluster):
    owner, author, member, room = group
    sent = await author.say(room, "react")
    async with ear(cluster[0], owner.user_id) as near, ear(cluster[1], member.user_id) as far:
        added = await member.post(message_path(sent, "/reactions"), {"emoji": FAMILY})
        assert added.status == 201
        assert added.json["reactions"] == [{"emoji": FAMILY, "userIds": [member.user_id], "count": 1}]
        again = await member.post(message_path(sent, "/reactions"), {"emoji": FAMILY})
        assert (again.status, again.json) == (200, added.json)
        both = (await owner.post(message_path(sent, "/reactions"), {"emoji": FAMILY})).json
        assert both["reactions"] == [
            {"emoji": FAMILY, "userIds": [member.user_id, owner.user_id], "count": 2},
        ]
        for _ in range(2):
            taken = await member.delete(message_path(sent, f"/reactions/{quote(FAMILY)}"))
            assert (taken.status, taken.raw) == (204, b"")
        assert (await stored(author, sent))["reactions"] == [
            {"emoji": FAMILY, "userIds": [owner.user_id], "count": 1}
        ]
        assert (await author.say(room, "marker"))["seq"] == 5
        for listener in (near, far):
            await listener.wait_for("message:new")
            about = {"conversationId": room, "messageId": sent["id"], "emoji": FAMILY}
            assert [(heard.event, heard.data) for heard in listener.heard[:-1]] == [
                ("reaction:added", {**about, "seq": 2, "userId": member.user_id}),
                ("reaction:added", {**about, "seq": 3, "userId": owner.user_id}),
                ("reaction:removed", {**about, "seq": 4, "userId": member.user_id}),
            ]


@pytest.mark.parametrize("emoji", ["👍", FAMILY, "%", "%41", "a b", "+1", "x" * 64, "?", "#", "é"])
async def test_any_emoji_is_named_in_a_path(group, emoji):
    _, author, _, room = group
    sent = await author.say(room, "react")
    added = await author.post(message_path(sent, "/reactions"), {"emoji": emoji})
    assert (added.status, added.json["reactions"][0]["emoji"]) == (201, emoji)
    assert (await author.delete(message_path(sent, f"/reactions/{quote(emoji, safe='')}"))).status == 204
    assert (await stored(author, sent))["reactions"] == []


@pytest.mark.parametrize("emoji", ["", "x" * 65, "é" * 33, "a/b", ".", "..", "\n", "\x7f", "\x00", None, 5])
async def test_an_emoji_that_is_none_is_400(group, emoji):
    _, author, _, room = group
    sent = await author.say(room, "react")
    answer = await author.post(message_path(sent, "/reactions"), {"emoji": emoji})
    assert (answer.status, answer.json["details"]) == (400, {"field": "emoji"})
    assert await last_seq(author, room) == 1


async def test_thirty_different_reactions_are_the_most(group):
    owner, author, member, room = group
    sent = await author.say(room, "react")
    answers = await asyncio.gather(
        *(
            who.post(message_path(sent, "/reactions"), {"emoji": f"{who.user_id[:5]}{n}"})
            for n in range(20)
            for who in (author, member)
        )
    )
    assert sorted(answer.status for answer in answers) == [201] * 30 + [409] * 10
    kept = (await stored(owner, sent))["reactions"]
    assert len(kept) == 30
    # One that is there already is no new one.
    assert (await owner.post(message_path(sent, "/reactions"), {"emoji": kept[0]["emoji"]})).status == 201
    assert await last_seq(owner, room) == 32


async def test_the_first_fifty_who_reacted_are_named_and_the_reader(group, sql):
    owner, author, member, room = group
    sent = await author.say(room, "react")
    many = "INSERT INTO reactions (message_id, emoji, user_id) "
    many += "SELECT $1, '👍', 'many-' || n FROM generate_series(1, 60) n"
    await sql.execute(many, sent["id"].removeprefix("msg_"))
    await member.post(message_path(sent, "/reactions"), {"emoji": "👍"})
    first = [f"many-{n}" for n in range(1, 51)]
    assert (await stored(owner, sent))["reactions"] == [{"emoji": "👍", "userIds": first, "count": 61}]
    own = (await stored(member, sent))["reactions"]
    assert own == [{"emoji": "👍", "userIds": [*first, member.user_id], "count": 61}]


async def test_any_participant_changes_title_and_metadata(group, cluster):
    owner, _, member, room = group
    async with ear(cluster[0], owner.user_id) as near:
        answer = await member.patch(
            conversation_path(room), {"title": "Trip", "metadata": {"b": [1], "a": {"c": None}}}
        )
        assert (answer.status, answer.json["title"]) == (200, "Trip")
        assert answer.json["metadata"] == {"a": {"c": None}, "b": [1]}
        assert answer.json["lastSeq"] == 1
        assert len(answer.json["participants"]) == 3
        assert await near.wait_for("conversation:updated") == [
            {
                "conversationId": room,
                "seq": 1,
                "title": "Trip",
                "metadata": {"a": {"c": None}, "b": [1]},
                "ownerId": owner.user_id,
                "updatedAt": answer.json["updatedAt"],
            }
        ]
        for body in ({}, {"title": "Trip"}, {"metadata": {"b": [1], "a": {"c": None}}}, {"other": 1}):
            same = await member.patch(conversation_path(room), body)
            assert (same.status, same.json) == (200, answer.json)
        cleared = await member.patch(conversation_path(room), {"title": None})
        assert "title" not in cleared.json
        assert cleared.json["metadata"] == answer.json["metadata"]
        (_, told) = await near.wait_for("conversation:updated", 2)
        assert (told["seq"], told["title"]) == (2, None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"title": 5}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": "\x00"}, "title"),
        ({"metadata": None}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": "x" * 4096}}, "metadata"),
        ({"metadata": {"a": "\x00"}}, "metadata.a"),
    ],
)
async def test_a_malformed_update_is_400(group, body, field):
    owner, _, _, room = group
    answer = await owner.patch(conversation_path(room), body)
    assert (answer.status, answer.json["details"]) == (400, {"field": field})
    assert await last_seq(owner, room) == 0


async def test_a_direct_conversation_has_no_title(user):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    answer = await anna.patch(conversation_path(room), {"title": "us"})
    assert (answer.status, answer.json["code"]) == (409, "CONFLICT")


async def test_seqs_have_no_gap_whatever_changes_on_both_pods_at_once(group, cluster):
    owner, author, member, room = group
    sent = [await author.say(room, f"{n}") for n in range(6)]

    async def change(n, message):
        await author.patch(message_path(message), {"content": f"edited {n}"})
        await member.post(message_path(message, "/reactions"), {"emoji": "👍"})
        await owner.patch(conversation_path(room), {"title": f"{n}"})
        await owner.say(room, f"more {n}")
        await owner.delete(message_path(message))

    async with ear(cluster[0], owner.user_id) as near, ear(cluster[1], member.user_id) as far:
        await asyncio.gather(*(change(n, message) for n, message in enumerate(sent)))
        for listener in (near, far):
            await listener.wait("30 changes", lambda heard: len(heard) >= 30)
            assert [heard.data["seq"] for heard in listener.heard] == list(range(7, 37))
    page = (await member.get(conversation_path(room, "/events"))).json
    assert [item["seq"] for item in page["items"]] == list(range(1, 37))


async def test_a_group_is_created_once_for_a_key(user, cluster):
    anna, ben = user("anna"), user("ben")
    key = {"Idempotency-Key": "group"}
    body = {"type": "group", "participantIds": [ben.user_id], "title": "Once"}
    places = [anna.at(pod) for pod in cluster]
    answers = await asyncio.gather(
        *(places[n % 2].post("/api/conversations", body, headers=key) for n in range(20))
    )
    assert sorted(answer.status for answer in answers) == [200] * 19 + [201]
    assert len({answer.raw for answer in answers}) == 1
    other = await anna.post("/api/conversations", {**body, "title": "Twice"}, headers=key)
    assert (other.status, other.json["code"]) == (409, "CONFLICT")
    # The key is the creator's own.
    assert (await ben.post("/api/conversations", body, headers=key)).status == 201
    assert len((await anna.get("/api/conversations")).json["items"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 129])
async def test_a_key_that_is_none_is_400(user, key):
    body = {"type": "group", "participantIds": []}
    answer = await user().post("/api/conversations", body, headers={"Idempotency-Key": key})
    assert (answer.status, answer.json["details"]) == (400, {"field": "Idempotency-Key"})


async def test_the_proxy_may_send_an_empty_object_with_a_delete_and_a_put(group):
    _, author, _, room = group
    sent = await author.say(room, "x")
    json = {"headers": {"Content-Type": "application/json"}}
    for body in (b"", b"{}"):
        assert (await author.put(message_path(sent, "/read"), data=body, **json)).status == 200
        assert (await author.put(conversation_path(room, "/read"), data=body, **json)).status == 200
        assert (await author.delete(message_path(sent, "/reactions/x"), data=body, **json)).status == 204
        assert (await author.delete(message_path(sent), data=body, **json)).status == 204
        path = conversation_path(room, f"/participants/{somebody()}")
        assert (await author.get(conversation_path(room, "/events"), data=body, **json)).status == 200
        assert (await author.delete(path, data=body, **json)).status == 403
    assert (await author.delete(conversation_path(room), data=b"{}", **json)).status == 204
