"""Who comes into a group and who goes: roles, handing over, and what each of them hears."""

import asyncio
from urllib.parse import quote

import pytest
from clients import Rest, ear, somebody, token

NOWHERE = "conv_" + "0" * 32


def path(room, more=""):
    return f"/api/conversations/{room}{more}"


def people(room, who=None):
    return path(room, "/participants" + ("" if who is None else f"/{quote(who, safe='')}"))


def roles(conversation):
    return {person["userId"]: person["role"] for person in conversation["participants"]}


async def add(who, room, *user_ids):
    answer = await who.post(people(room), {"userIds": list(user_ids)})
    assert answer.status == 201, answer
    return answer.json


@pytest.fixture
async def group(user, cluster):
    """An owner on the first pod, a member on the second."""
    owner, member = user("owner"), user("member", cluster[1])
    return owner, member, await owner.group(member.user_id)


async def test_any_participant_adds_people_and_each_takes_a_seq(group, master, cluster):
    owner, member, room = group
    known, unknown = somebody("known"), somebody("unknown")
    profile = {"externalUserId": known, "displayName": "Known", "avatarUrl": "https://x/y.png"}
    await master.post("/api/users/sync", profile)
    async with ear(cluster[0], owner.user_id) as near:
        view = await add(member, room, known, unknown, member.user_id, known)
        assert roles(view) == {
            owner.user_id: "owner",
            member.user_id: "member",
            known: "member",
            unknown: "member",
        }
        assert (view["lastSeq"], view["participantCount"]) == (2, 4)
        told = await near.wait_for("participant:added", 2)
        by_id = {person["userId"]: person for person in view["participants"]}
        assert told == [
            {"conversationId": room, "seq": 1, "participant": by_id[known], "addedBy": member.user_id},
            {"conversationId": room, "seq": 2, "participant": by_id[unknown], "addedBy": member.user_id},
        ]
        assert by_id[known] == {
            "userId": known,
            "role": "member",
            "joinedAt": by_id[known]["joinedAt"],
            "lastReadSeq": 0,
            "displayName": "Known",
            "avatarUrl": "https://x/y.png",
        }


async def test_who_is_in_already_is_no_error_and_no_news(group, cluster):
    owner, member, room = group
    async with ear(cluster[1], member.user_id) as far:
        for body in ({"userId": member.user_id}, {"userIds": [owner.user_id, member.user_id]}):
            answer = await owner.post(people(room), body)
            assert (answer.status, answer.json["lastSeq"]) == (201, 0)
        assert (await owner.say(room, "marker"))["seq"] == 1
        await far.wait_for("message:new")
        assert [heard.event for heard in far.heard] == ["message:new"]


async def test_someone_added_hears_of_the_conversation_first_then_of_everything(group, user, cluster):
    owner, _, room = group
    for n in range(3):
        await owner.say(room, f"before {n}")
    late = user("late", cluster[1])
    async with ear(cluster[0], late.user_id) as near, ear(cluster[1], late.user_id) as far:
        await add(owner, room, late.user_id)
        await owner.say(room, "after")
        for listener in (near, far):
            await listener.wait_for("message:new")
            assert listener.heard[0].event == "conversation:new"
            new = listener.heard[0].data
            seqs = [heard.data["seq"] for heard in listener.heard[1:]]
            assert seqs == list(range(new["lastSeq"] + 1, 6))
            assert new["id"] == room
            assert "unreadCount" not in new
            assert new["participants"][0]["userId"] == late.user_id
    history = (await late.get(path(room, "/messages"))).json["items"]
    assert [message["content"] for message in history] == ["after", "before 2", "before 1", "before 0"]
    assert (await late.get(path(room))).json["unreadCount"] == 1


async def test_someone_added_starts_with_nothing_unread(group, user):
    owner, _, room = group
    await owner.say(room, "before")
    late = user("late")
    view = await add(owner, room, late.user_id)
    (own,) = [person for person in view["participants"] if person["userId"] == late.user_id]
    assert own["lastReadSeq"] == 1
    assert (await late.get(path(room))).json["unreadCount"] == 0


async def test_a_large_group_is_new_with_twenty_and_oneself_first(user, cluster):
    anna, last = user("anna"), user("last")
    room = await anna.group(*(somebody() for _ in range(30)))
    async with ear(cluster[1], last.user_id) as far:
        view = await add(anna, room, last.user_id)
        assert len(view["participants"]) == 32
        (new,) = await far.wait_for("conversation:new")
        assert (len(new["participants"]), new["participantCount"]) == (20, 32)
        assert [person["userId"] for person in new["participants"][:1]] == [last.user_id]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "userId"),
        ({"userId": 5}, "userId"),
        ({"userId": ""}, "userId"),
        ({"userId": "x" * 129}, "userId"),
        ({"userId": "\x00"}, "userId"),
        ({"userIds": []}, "userIds"),
        ({"userIds": "x"}, "userIds"),
        ({"userIds": [f"{n}" for n in range(101)]}, "userIds"),
        ({"userIds": ["x", None]}, "userIds[1]"),
    ],
)
async def test_a_malformed_addition_is_400(group, body, field):
    owner, _, room = group
    answer = await owner.post(people(room), body)
    assert (answer.status, answer.json["details"]) == (400, {"field": field})


async def test_a_direct_conversation_stays_two_people(user):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    for answer in (
        await anna.post(people(room), {"userId": somebody()}),
        await anna.post(people(room), {"userId": ben.user_id}),
        await anna.delete(people(room, ben.user_id)),
        await anna.delete(people(room, anna.user_id)),
        await anna.delete(people(room, somebody())),
    ):
        assert (answer.status, answer.json["code"]) == (409, "CONFLICT")
    assert (await ben.get(path(room))).json["lastSeq"] == 0


async def test_strangers_add_and_remove_nobody(group, user):
    _, member, room = group
    stranger = user("stranger")
    for where, status in ((room, 403), (NOWHERE, 404), ("nonsense", 404)):
        assert (await stranger.post(people(where), {"userId": stranger.user_id})).status == status
        assert (await stranger.delete(people(where, stranger.user_id))).status == status
        assert (await stranger.delete(people(where, member.user_id))).status == status
        assert (await stranger.delete(path(where))).status == status


async def test_the_owner_removes_others_and_a_member_only_themselves(group, user):
    owner, member, room = group
    third = user("third")
    await add(owner, room, third.user_id)
    assert (await member.delete(people(room, third.user_id))).status == 403
    assert (await member.delete(people(room, owner.user_id))).status == 403
    assert (await owner.delete(people(room, third.user_id))).status == 204
    assert (await owner.delete(people(room, third.user_id))).status == 204
    assert (await third.get(path(room))).status == 403
    assert (await member.delete(people(room, member.user_id))).status == 204
    assert (await member.get(path(room))).status == 403
    view = (await owner.get(path(room))).json
    assert (roles(view), view["lastSeq"]) == ({owner.user_id: "owner"}, 3)


async def test_an_id_with_any_characters_is_named_in_a_path(group):
    owner, _, room = group
    for start in ("a/b", "a b?c#d", "100%", "%41", "é👍", "../x", "x" * 128):
        # Of nobody else: another test may delete its users.
        user_id = (start + somebody())[-128:]
        await add(owner, room, user_id)
        assert (await owner.delete(people(room, user_id))).status == 204
        assert user_id not in roles((await owner.get(path(room))).json)


async def test_someone_removed_hears_that_and_nothing_after_on_any_pod(group, user, cluster):
    owner, member, room = group
    third = user("third")
    await add(owner, room, third.user_id)
    aside = await owner.direct(third.user_id)
    async with (
        ear(cluster[0], third.user_id) as near,
        ear(cluster[1], third.user_id) as far,
        ear(cluster[1], member.user_id) as still,
    ):
        assert (await owner.delete(people(room, third.user_id))).status == 204
        sent = await owner.say(room, "without you")
        await owner.patch(f"/api/messages/{sent['id']}", {"content": "still without you"})
        await owner.post(f"/api/messages/{sent['id']}/reactions", {"emoji": "👍"})
        await owner.patch(path(room), {"title": "without you"})
        await owner.put(path(room, "/read"))
        await member.put(path(room, "/read"))
        await owner.say(aside, "marker")
        removed = {"conversationId": room, "seq": 2, "userId": third.user_id, "removedBy": owner.user_id}
        for listener in (near, far):
            await listener.wait_for("message:new")
            assert [(heard.event, heard.data.get("content")) for heard in listener.heard] == [
                ("participant:removed", None),
                ("message:new", "marker"),
            ]
            assert listener.of("participant:removed") == [removed]
        await still.wait_for("conversation:updated")
        assert still.of("participant:removed") == [removed]
        payload = {"conversationId": room, "content": "let me in"}
        assert (await far.call("message:send", payload))["error"]["code"] == "FORBIDDEN"


async def test_someone_removed_and_added_again_hears_what_follows(group, cluster):
    owner, member, room = group
    async with ear(cluster[0], member.user_id) as near, ear(cluster[1], member.user_id) as far:
        for n in range(5):
            assert (await owner.delete(people(room, member.user_id))).status == 204
            await owner.say(room, "not for you")
            await add(owner, room, member.user_id)
            await owner.say(room, f"{n}")
        for listener in (near, far):
            await listener.wait_for("message:new", 5)
            assert [message["content"] for message in listener.of("message:new")] == [f"{n}" for n in range(5)]
            assert len(listener.of("participant:removed")) == 5
            # Which may come twice.
            assert len(listener.of("conversation:new")) >= 5


async def test_an_owner_who_leaves_hands_over_to_the_longest_standing(user, cluster):
    owner, later = user("owner"), user("later", cluster[1])
    first, second = sorted((somebody("m"), somebody("m")))
    room = await owner.group()
    await add(owner, room, second)
    await add(owner, room, first)
    await add(owner, room, later.user_id)
    async with ear(cluster[0], owner.user_id) as near, ear(cluster[1], later.user_id) as far:
        assert (await owner.delete(path(room))).status == 204
        await far.wait_for("conversation:updated")
        view = (await later.get(path(room))).json
        gone = {"conversationId": room, "seq": 4, "userId": owner.user_id, "removedBy": owner.user_id}
        assert [(heard.event, heard.data) for heard in far.heard] == [
            ("participant:removed", gone),
            (
                "conversation:updated",
                {
                    "conversationId": room,
                    "seq": 5,
                    "title": None,
                    "metadata": {},
                    "ownerId": second,
                    "updatedAt": view["updatedAt"],
                },
            ),
        ]
        assert [(heard.event, heard.data) for heard in near.heard] == [("participant:removed", gone)]
    assert view["ownerId"] == second
    assert roles(view) == {second: "owner", first: "member", later.user_id: "member"}


async def test_of_those_who_came_together_the_lower_id_takes_over(user):
    owner = user("owner")
    low, high, watcher = user("a"), user("b"), user("c")
    room = await owner.group(watcher.user_id, high.user_id, low.user_id)
    # Removing oneself by name is leaving.
    assert (await owner.delete(people(room, owner.user_id))).status == 204
    assert (await watcher.get(path(room))).json["ownerId"] == low.user_id
    assert (await low.delete(people(room, high.user_id))).status == 204


async def test_the_last_one_out_deletes_the_group(user, cluster):
    anna = user("anna")
    room = await anna.group()
    sent = await anna.say(room, "alone")
    async with ear(cluster[1], anna.user_id) as far:
        assert (await anna.delete(path(room))).status == 204
        assert await far.wait_for("conversation:deleted") == [{"conversationId": room}]
    for answer in (
        await anna.get(path(room)),
        await anna.get(path(room, "/messages")),
        await anna.get(path(room, "/events")),
        await anna.get(path(room, "/presence")),
        await anna.post(path(room, "/messages"), {"content": "x"}),
        await anna.post(people(room), {"userId": anna.user_id}),
        await anna.patch(path(room), {"title": "x"}),
        await anna.put(path(room, "/read")),
        await anna.delete(path(room)),
        await anna.patch(f"/api/messages/{sent['id']}", {"content": "x"}),
        await anna.delete(f"/api/messages/{sent['id']}"),
        await anna.put(f"/api/messages/{sent['id']}/read"),
        await anna.post(f"/api/messages/{sent['id']}/reactions", {"emoji": "👍"}),
    ):
        assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")
    assert (await anna.get("/api/conversations")).json == {"items": []}


async def test_all_who_leave_at_once_leave_one_owner_or_nothing(user, cluster):
    owner = user("owner")
    others = [user("member", cluster[n % 2]) for n in range(6)]
    stays = user("stays")
    room = await owner.group(*(other.user_id for other in others), stays.user_id)
    async with ear(cluster[1], stays.user_id) as far:
        answers = await asyncio.gather(*(one.delete(path(room)) for one in [owner, *others]))
        assert {answer.status for answer in answers} == {204}
        await far.wait_for("participant:removed", 7)
        view = (await stays.get(path(room))).json
        await far.wait(f"seq {view['lastSeq']}", lambda heard: heard[-1].data["seq"] == view["lastSeq"])
        assert [heard.data["seq"] for heard in far.heard] == list(range(1, view["lastSeq"] + 1))
    assert roles(view) == {stays.user_id: "owner"}
    assert view["ownerId"] == stays.user_id


async def test_a_group_takes_so_many_and_no_more(small, http):
    anna, ben = (Rest(http, pod.http, name := somebody(), token(name)) for pod in small)
    room = await anna.group(ben.user_id)
    over = await anna.post(people(room), {"userIds": [somebody() for _ in range(4)]})
    assert (over.status, over.json["code"]) == (409, "CONFLICT")
    assert (await ben.get(path(room))).json["lastSeq"] == 0
    answers = await asyncio.gather(
        *((anna if n % 2 else ben).post(people(room), {"userId": somebody()}) for n in range(8))
    )
    assert sorted(answer.status for answer in answers) == [201] * 3 + [409] * 5
    view = (await ben.get(path(room))).json
    assert (view["participantCount"], view["lastSeq"]) == (5, 3)
    # Who is in takes no place.
    assert (await anna.post(people(room), {"userIds": [ben.user_id, anna.user_id]})).status == 201
    many = await anna.post(
        "/api/conversations", {"type": "group", "participantIds": [somebody() for _ in "12345"]}
    )
    assert (many.status, many.json["details"]) == (400, {"field": "participantIds"})


async def test_presence_tells_who_is_online_wherever_they_are(group, cluster, user):
    owner, member, room = group
    async with ear(cluster[1], member.user_id):
        answer = await owner.get(path(room, "/presence"))
        assert answer.status == 200
        assert answer.json["conversationId"] == room
        assert answer.json["online"] == [member.user_id]
        assert [(one["userId"], one["online"]) for one in answer.json["participants"]] == [
            (owner.user_id, False),
            (member.user_id, True),
        ]
        seen = answer.json["participants"][1]["lastSeenAt"]
        assert seen.endswith("Z")
        assert "lastSeenAt" not in answer.json["participants"][0]
    owner.token = token(owner.user_id, permissions=["chat:write"])
    assert (await owner.get(path(room, "/presence"))).status == 403
    assert (await user("stranger").get(path(room, "/presence"))).status == 403
    assert (await member.get(path(NOWHERE, "/presence"))).status == 404
