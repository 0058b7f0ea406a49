"""The profiles that the master owns, and what becomes of somebody whom it deletes."""

import asyncio
import io
import json
import signal
import time
from contextlib import AsyncExitStack
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import pytest
import socketio
from clients import Master, Rest, ear, somebody, token, wire
from pods import INTERNAL_SECRET, pods, until

USERS = "/api/users"
SYNC = "/api/users/sync"
BATCH = "/api/users/sync/batch"


def path(room, more=""):
    return f"/api/conversations/{room}{more}"


def profile(user_id, name="Anna", **more):
    return {"externalUserId": user_id, "displayName": name, **more}


async def sync(master, user_id, name="Anna", **more):
    answer = await master.post(SYNC, profile(user_id, name, **more))
    assert (answer.status, answer.json) == (200, {"success": True})


def later(user_id):
    """Give a token that was issued after a deletion of just now."""
    return token(user_id, iat=int(time.time()) + 2)


async def test_a_profile_is_stored_and_replaced(master):
    anna = somebody("anna")
    assert (await master.get(f"{USERS}/{anna}")).status == 404
    await sync(master, anna, avatarUrl="https://x/y.png", metadata={"role": "admin", "of": ["a"]}, other=1)
    first = (await master.get(f"{USERS}/{anna}")).json
    assert first == {
        "externalUserId": anna,
        "displayName": "Anna",
        "avatarUrl": "https://x/y.png",
        "metadata": {"role": "admin", "of": ["a"]},
        "createdAt": first["createdAt"],
        "updatedAt": first["createdAt"],
    }
    await sync(master, anna, "Anna B.")
    second = (await master.get(f"{USERS}/{anna}")).json
    assert second == {
        "externalUserId": anna,
        "displayName": "Anna B.",
        "metadata": {},
        "createdAt": first["createdAt"],
        "updatedAt": second["updatedAt"],
    }


@pytest.mark.parametrize("user_id", ["a/b", "a b?c#d", "100%", "%41", "é👍", "x" * 128, "sync"])
async def test_any_id_is_named_in_a_path(master, user_id):
    await sync(master, user_id)
    where = f"{USERS}/{quote(user_id, safe='')}"
    assert (await master.get(where)).json["externalUserId"] == user_id
    assert (await master.delete(where)).status == 204
    assert (await master.get(where)).status == 404


@pytest.mark.parametrize("user_id", ["%00", "%FF%00", "x" * 129])
async def test_an_id_that_can_be_none_is_404(master, user_id):
    assert (await master.get(f"{USERS}/{user_id}")).status == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b"{}", "externalUserId"),
        (b'{"externalUserId":"x"}', "displayName"),
        (b'{"externalUserId":"","displayName":"x"}', "externalUserId"),
        (b'{"externalUserId":5,"displayName":"x"}', "externalUserId"),
        (b'{"externalUserId":"' + b"x" * 129 + b'","displayName":"x"}', "externalUserId"),
        (b'{"externalUserId":"x\\u0000","displayName":"x"}', "externalUserId"),
        (b'{"externalUserId":"x","displayName":""}', "displayName"),
        (b'{"externalUserId":"x","displayName":"\\ud83d"}', "displayName"),
        (b'{"externalUserId":"x","displayName":"' + b"x" * 201 + b'"}', "displayName"),
        (b'{"externalUserId":"x","displayName":"x","avatarUrl":"' + b"x" * 2049 + b'"}', "avatarUrl"),
        (b'{"externalUserId":"x","displayName":"x","metadata":[]}', "metadata"),
        (b'{"externalUserId":"x","displayName":"x","metadata":{"a":"' + b"x" * 4096 + b'"}}', "metadata"),
        (b'{"externalUserId":"x","displayName":"x","metadata":{"a":{"b":"\\u0000"}}}', "metadata.a.b"),
    ],
)
async def test_a_malformed_profile_is_400_and_names_the_field(master, body, field):
    answer = await master.post(SYNC, data=body)
    assert (answer.status, answer.json["code"], answer.json["details"]) == (
        400,
        "VALIDATION_ERROR",
        {"field": field},
    )


async def test_of_a_batch_the_bad_ones_are_told_and_the_good_ones_stored(master):
    good, twice = somebody("good"), somebody("twice")
    users = [
        profile(good, "Good"),
        profile(twice, "first"),
        {"externalUserId": "no-name"},
        "nobody",
        profile(twice, "second", metadata={"a": 1}),
        # The last good one of duplicates wins.
        profile(twice, "third", metadata={"a": "x" * 4096}),
        profile(5),
        profile("nul", "\x00"),
    ]
    answer = await master.post(BATCH, {"users": users})
    assert answer.status == 200
    failed = [(entry["index"], entry.get("externalUserId"), entry["code"]) for entry in answer.json.pop("failed")]
    assert answer.json == {"success": False, "synced": 3}
    bad = "VALIDATION_ERROR"
    assert failed == [
        (2, "no-name", bad),
        (3, None, bad),
        (5, twice, bad),
        (6, None, bad),
        (7, "nul", bad),
    ]
    assert (await master.get(f"{USERS}/{good}")).json["displayName"] == "Good"
    assert (await master.get(f"{USERS}/{twice}")).json["displayName"] == "second"


async def test_half_a_character_in_one_of_a_batch_sinks_that_one_alone(master):
    cut = somebody("cut")
    for name in (b"\\ud83d", b"\xed\xa0\xbd"):
        broken = json.dumps(profile(cut, "NAME")).encode().replace(b"NAME", name)
        good = json.dumps(profile(cut + "2")).encode()
        answer = await master.post(BATCH, data=b'{"users":[' + broken + b"," + good + b"]}")
        assert (answer.status, answer.json["synced"], answer.json["success"]) == (200, 1, False), answer
        (failed,) = answer.json["failed"]
        assert failed == {
            "index": 0,
            "externalUserId": cut,
            "code": "VALIDATION_ERROR",
            "message": failed["message"],
        }
        assert failed["message"].startswith("displayName: ")
    many = {"users": [profile("\ud83d")] * 1001}
    assert (await master.post(BATCH, many)).status == 400


async def test_a_batch_takes_a_thousand_and_eight_mebibytes(master):
    prefix = somebody()
    users = [profile(f"{prefix}-{n}", "é" * 200, metadata={"a": "x" * 4000}) for n in range(1000)]
    answer = await master.post(BATCH, data=io.BytesIO(json.dumps({"users": users}).encode()))
    assert (answer.status, answer.json) == (200, {"success": True, "synced": 1000, "failed": []})
    assert (await master.get(f"{USERS}/{prefix}-999")).json["metadata"] == {"a": "x" * 4000}
    over = await master.post(BATCH, {"users": [profile("x")] * 1001})
    assert (over.status, over.json["details"]) == (400, {"field": "users"})
    big = await master.post(BATCH, data=io.BytesIO(b'{"users":[],"more":"' + b"x" * (8 << 20) + b'"}'))
    assert (big.status, big.json["code"]) == (413, "PAYLOAD_TOO_LARGE")
    single = await master.post(SYNC, data=b'{"more":"' + b"x" * 262_144 + b'"}')
    assert (single.status, single.json["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"users":{}}', b'{"users":[', b'{"users":null}'])
async def test_a_batch_that_is_none_is_400(master, body):
    answer = await master.post(BATCH, data=body)
    assert (answer.status, answer.json["code"]) == (400, "VALIDATION_ERROR")
    empty = await master.post(BATCH, {"users": []})
    assert empty.json == {"success": True, "synced": 0, "failed": []}


async def test_batches_at_once_wait_for_each_other_and_do_not_fail(master, cluster):
    people = [somebody() for _ in range(50)]
    places = [master.at(pod) for pod in cluster]
    answers = await asyncio.gather(
        *(
            places[n % 2].post(
                BATCH, {"users": [profile(one, f"{n}") for one in people[:: 1 if n % 4 < 2 else -1]]}
            )
            for n in range(12)
        )
    )
    assert [answer.json["synced"] for answer in answers] == [50] * 12


async def test_large_batches_at_once_wait_for_each_other_and_are_not_cut(master):
    prefix = somebody()
    users = [profile(f"{prefix}-{n}", metadata={"a": "x" * 4000}) for n in range(1000)]
    body = json.dumps({"users": users}).encode()
    answers = await asyncio.gather(*(master.post(BATCH, data=io.BytesIO(body)) for _ in range(14)))
    assert [(answer.status, answer.json["synced"]) for answer in answers] == [(200, 1000)] * 14


async def test_only_the_secret_opens_the_internal_api(master, http, user):
    anna = user("anna")
    calls = [
        ("POST", SYNC),
        ("POST", BATCH),
        ("GET", f"{USERS}/x"),
        ("DELETE", f"{USERS}/x"),
        ("GET", "/api/admin/stats"),
        ("GET", "/api/admin/conversations"),
        ("DELETE", "/api/admin/conversations/conv_" + "0" * 32),
    ]
    secret = {"X-Internal-Secret": INTERNAL_SECRET}
    bearer = {"Authorization": f"Bearer {anna.token}"}
    for method, where in calls:
        for headers in (
            {},
            bearer,
            {**secret, **bearer},
            {"X-Internal-Secret": INTERNAL_SECRET[:-1]},
            {"X-Internal-Secret": ""},
            {"X-Internal-Secret": "é"},
        ):
            async with http.request(method, master.base + where, headers=headers) as response:
                assert (response.status, (await response.json())["code"]) == (401, "UNAUTHORIZED")
    for headers in (secret, {**secret, **bearer}):
        async with http.get(master.base + "/api/conversations", headers=headers) as response:
            assert response.status == 401


async def test_the_internal_api_is_on_the_rest_listener_only(master, cluster):
    for where in (f"{USERS}/x", "/api/admin/stats"):
        answer = await Master(master.session, cluster[0].ws, "master", "").get(where)
        assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")


async def test_profiles_are_shown_in_conversations(user, master, cluster):
    anna, ben = user("anna"), user("ben")
    await sync(master, ben.user_id, "Ben", avatarUrl="https://x/ben.png")
    async with ear(cluster[1], anna.user_id) as far:
        room = await anna.direct(ben.user_id)
        (new,) = await far.wait_for("conversation:new")
    one = (await anna.get(path(room))).json
    (listed,) = (await anna.get("/api/conversations")).json["items"]
    for conversation in (new, one, listed):
        mine, his = conversation["participants"]
        assert "displayName" not in mine
        assert (his["displayName"], his["avatarUrl"]) == ("Ben", "https://x/ben.png")


async def test_a_deleted_user_is_closed_out_everywhere_within_a_second(user, master, cluster):
    anna, ben = user("anna"), user("ben")
    await sync(master, ben.user_id, "Ben")
    room = await anna.direct(ben.user_id)
    async with (
        ear(cluster[0], ben.user_id) as near,
        ear(cluster[1], ben.user_id) as far,
        ear(cluster[1], ben.user_id, transports=["polling"]) as polling,
    ):
        assert (await master.delete(f"{USERS}/{ben.user_id}")).status == 204
        async with asyncio.timeout(1):
            for listener in (near, far, polling):
                await listener.wait_for("disconnect")
                (told,) = listener.of("error")
                assert told["code"] == "UNAUTHORIZED"
    for call in (ben.get("/api/conversations"), ben.post(path(room, "/messages"), {"content": "x"})):
        answer = await call
        assert (answer.status, answer.json["code"]) == (401, "UNAUTHORIZED")
    old = token(ben.user_id, iat=int(time.time()) - 100), token(ben.user_id, iat=None), ben.token
    for kept in old:
        async with wire(cluster[1], json.dumps({"token": kept})) as by_hand:
            assert json.loads((await by_hand.read_until("44"))[2:])["message"] == "unauthorized"
    # The direct conversation stays, without the profile, and can still be written to.
    kept = (await anna.get(path(room))).json
    assert [(one["userId"], "displayName" in one) for one in kept["participants"]] == [
        (anna.user_id, False),
        (ben.user_id, False),
    ]
    await anna.say(room, "are you there?")
    assert (await master.get(f"{USERS}/{ben.user_id}")).status == 404
    assert (await master.delete(f"{USERS}/{ben.user_id}")).status == 204


async def test_a_deleted_user_sends_nothing_wherever_they_were_and_whatever_they_sent_before(user, master):
    anna, ben = user("anna"), user("ben")
    direct, group = await anna.direct(ben.user_id), await anna.group(ben.user_id)
    message = {"content": "x", "clientMessageId": "once"}
    assert (await ben.post(path(direct, "/messages"), message)).status == 201
    assert (await master.delete(f"{USERS}/{ben.user_id}")).status == 204
    # Still in, sent before; still in; out of it; never there.
    sends = [(direct, message), (direct, {"content": "y"}), (group, message), (f"conv_{uuid4().hex}", message)]
    for conversation_id, body in sends:
        answer = await ben.post(path(conversation_id, "/messages"), body)
        assert (answer.status, answer.json["code"]) == (401, "UNAUTHORIZED")
    assert (await anna.get(path(direct))).json["lastSeq"] == 1


async def test_no_socket_stays_that_was_on_its_way_in_when_its_user_was_deleted(user, master, cluster):
    async def opened(stack, pod, user_id):
        try:
            return await stack.enter_async_context(ear(pod, user_id))
        except socketio.exceptions.ConnectionError:
            return None

    async def delete(user_id, pause):
        for _ in range(pause):
            await master.get(f"{USERS}/{user_id}")
        await master.delete(f"{USERS}/{user_id}")

    anna = user("anna")
    for pause in range(10):
        ben = user("ben")
        await anna.direct(ben.user_id)
        async with AsyncExitStack() as stack:
            sockets = (opened(stack, cluster[n % 2], ben.user_id) for n in range(4))
            *ears, _ = await asyncio.gather(*sockets, delete(ben.user_id, pause))
            async with asyncio.timeout(1):
                for listener in filter(None, ears):
                    await listener.wait_for("disconnect")
                    assert [told["code"] for told in listener.of("error")] == ["UNAUTHORIZED"]


async def test_no_socket_stays_of_a_token_from_a_clock_that_is_ahead(user, master, cluster):
    ben = user("ben")
    ahead = {"token": token(ben.user_id, iat=int(time.time()) + 50)}
    async with AsyncExitStack() as stack:
        ears = [await stack.enter_async_context(ear(pod, ben.user_id, auth=ahead)) for pod in cluster]
        await master.delete(f"{USERS}/{ben.user_id}")
        for listener in ears:
            await listener.wait_for("disconnect")
            assert [told["code"] for told in listener.of("error")] == ["UNAUTHORIZED"]


async def test_who_comes_back_does_so_with_a_later_token_only(user, master, cluster):
    ben = user("ben")
    await sync(master, ben.user_id, "Ben")
    room = await user("anna").direct(ben.user_id)
    await master.delete(f"{USERS}/{ben.user_id}")
    await sync(master, ben.user_id, "Ben again")
    assert (await ben.get("/api/conversations")).status == 401
    ben.token = token(ben.user_id, iat=None)
    assert (await ben.get("/api/conversations")).status == 401
    ben.token = later(ben.user_id)
    assert [item["id"] for item in (await ben.get("/api/conversations")).json["items"]] == [room]
    async with ear(cluster[1], ben.user_id, auth={"token": ben.token}) as far:
        sent = await ben.say(room, "back")
        assert await far.wait_for("message:new") == [sent]
    assert (await master.get(f"{USERS}/{ben.user_id}")).json["displayName"] == "Ben again"


async def test_tokens_of_the_second_of_the_deletion_are_refused_and_of_the_next_are_not(master, sql, user):
    ben = user("ben")
    at = 0.0

    async def deleted_late():
        """Delete in the second half of a second, where rounding would give the next one."""
        nonlocal at
        await master.delete(f"{USERS}/{ben.user_id}")
        at = float(
            await sql.fetchval("SELECT extract(epoch FROM deleted_at) FROM users WHERE id = $1", ben.user_id)
        )
        return at % 1 > 0.5

    await until(deleted_late, "a deletion late in its second")
    ben.token = token(ben.user_id, iat=int(at))
    assert (await ben.get("/api/conversations")).status == 401
    ben.token = token(ben.user_id, iat=int(at) + 1)
    assert (await ben.get("/api/conversations")).status == 200


@pytest.mark.parametrize("iat", [-1e300, -(2**63), 5.5, "x", None, [], True])
async def test_any_time_of_issue_in_the_past_is_no_reason_to_refuse(user, iat):
    anna = user("anna")
    anna.token = token(anna.user_id, iat=iat)
    assert (await anna.get("/api/conversations")).status == 200


async def test_a_time_of_issue_may_be_a_minute_ahead_and_no_more(user):
    anna = user("anna")
    for ahead, status in ((50, 200), (70, 401), (3600, 401), (1e300, 401), (2**63, 401)):
        anna.token = token(anna.user_id, iat=int(time.time()) + ahead)
        assert (await anna.get("/api/conversations")).status == status


async def test_groups_are_left_as_by_leaving(user, master, cluster):
    ben, anna = user("ben"), user("anna", cluster[1])
    owned = await ben.group(anna.user_id)
    joined = await anna.group(ben.user_id)
    alone = await ben.group()
    async with ear(cluster[1], anna.user_id) as far:
        await master.delete(f"{USERS}/{ben.user_id}")
        await far.wait_for("participant:removed", 2)
        await far.wait_for("conversation:updated")
        gone = {"seq": 1, "userId": ben.user_id, "removedBy": ben.user_id}
        told = sorted(far.of("participant:removed"), key=lambda data: data["conversationId"])
        assert told == [{"conversationId": room, **gone} for room in sorted((owned, joined))]
        (handed,) = far.of("conversation:updated")
        assert (handed["conversationId"], handed["ownerId"], handed["seq"]) == (owned, anna.user_id, 2)
    for room in (owned, joined):
        view = (await anna.get(path(room))).json
        assert [one["userId"] for one in view["participants"]] == [anna.user_id]
    listed = (await master.get(f"/api/admin/conversations?userId={quote(ben.user_id)}")).json["items"]
    assert listed == []
    assert (await master.delete(f"/api/admin/conversations/{alone}")).status == 404


async def test_more_groups_than_can_be_left_at_once_are_left_in_the_background(user, master, sql):
    ben = user("ben")
    for _ in range(3):
        await asyncio.gather(*(ben.group(somebody()) for _ in range(50)))
    assert (await master.delete(f"{USERS}/{ben.user_id}")).status == 204
    groups = "SELECT count(*) FROM participants WHERE user_id = $1"

    async def left():
        return await sql.fetchval(groups, ben.user_id) == 0

    await until(left, "leaving")


async def test_who_comes_back_stays_where_they_went_then(user, master, sql):
    anna, ben = user("anna"), user("ben")
    await master.delete(f"{USERS}/{ben.user_id}")
    await sync(master, ben.user_id, "Ben")
    await sql.execute("UPDATE users SET refused_until = refused_until - 5 WHERE id = $1", ben.user_id)
    room = await anna.group(ben.user_id)
    await sql.execute("INSERT INTO chores (kind, subject) VALUES ('leave', $1)", ben.user_id)
    await until(lambda: _is_done(sql, ben.user_id), "leaving")
    assert (await anna.get(path(room))).json["participantCount"] == 2


async def test_adding_a_deleted_user_is_409_until_they_are_synced_again(user, master):
    anna, ben, eve = user("anna"), user("ben"), user("eve")
    room, known = await anna.group(), await eve.direct(ben.user_id)
    await master.delete(f"{USERS}/{ben.user_id}")

    async def attempts():
        return [
            (await anna.post(path(room, "/participants"), {"userIds": [somebody(), ben.user_id]})).status,
            (await anna.post("/api/conversations", {"type": "direct", "participantIds": [ben.user_id]})).status,
            (await anna.post("/api/conversations", {"type": "group", "participantIds": [ben.user_id]})).status,
        ]

    assert await attempts() == [409, 409, 409]
    assert (await anna.get(path(room))).json["lastSeq"] == 0
    # The direct conversation that there is stays one.
    assert await eve.direct(ben.user_id) == known
    await sync(master, ben.user_id, "Ben")
    assert await attempts() == [201, 201, 201]


async def test_a_key_gives_the_first_group_also_when_one_of_it_was_deleted(user, master):
    anna, ben = user("anna"), user("ben")
    body = {"type": "group", "participantIds": [ben.user_id]}
    first = await anna.post("/api/conversations", body, headers={"Idempotency-Key": "k"})
    await master.delete(f"{USERS}/{ben.user_id}")
    again = await anna.post("/api/conversations", body, headers={"Idempotency-Key": "k"})
    assert (again.status, again.json["id"]) == (200, first.json["id"])


async def erased(sql, user_id):
    """Tell whether a chore is done and nothing is left of what somebody said."""
    left = "SELECT count(*) FROM messages WHERE sender_id = $1 AND deleted_at IS NULL"
    chores = "SELECT count(*) FROM chores WHERE subject = $1"
    return await sql.fetchval(left, user_id) == await sql.fetchval(chores, user_id) == 0


async def test_all_messages_are_erased_like_any_where_one_is_and_where_one_was(user, master, cluster, sql):
    anna, ben = user("anna", cluster[1]), user("ben")
    direct, group, left = [
        await ben.direct(anna.user_id),
        await ben.group(anna.user_id),
        await ben.group(anna.user_id),
    ]
    for room in (direct, group, left):
        for n in range(3):
            await ben.say(room, f"a secret {n}")
            await anna.say(room, f"not yours {n}")
    await ben.delete(path(left))
    async with ear(cluster[1], anna.user_id) as far:
        assert (await master.delete(f"{USERS}/{ben.user_id}?erase=messages")).status == 204
        await until(lambda: erased(sql, ben.user_id), "erasure")
        await far.wait_for("message:deleted", 9)
    for room in (direct, group, left):
        messages = (await anna.get(path(room, "/messages"))).json["items"]
        assert [("deletedAt" in message, message["content"]) for message in messages] == [
            (False, "not yours 2"),
            (True, ""),
            (False, "not yours 1"),
            (True, ""),
            (False, "not yours 0"),
            (True, ""),
        ]
        events = (await anna.get(path(room, "/events"))).json
        assert [item["seq"] for item in events["items"]] == list(range(1, events["lastSeq"] + 1))
        graves = [item["data"] for item in events["items"] if item["event"] == "message:deleted"]
        assert [grave for grave in far.of("message:deleted") if grave["conversationId"] == room] == graves
        assert len(graves) == 3
        assert b"secret" not in (await anna.get(path(room, "/events"))).raw


async def test_what_one_says_after_coming_back_is_not_erased(user, master, sql):
    anna, ben = user("anna"), user("ben")
    room = await ben.direct(anna.user_id)
    await ben.say(room, "before")
    await master.delete(f"{USERS}/{ben.user_id}")
    await sync(master, ben.user_id, "Ben")
    await sql.execute("UPDATE users SET refused_until = refused_until - 5 WHERE id = $1", ben.user_id)
    await sql.execute(
        "UPDATE messages SET created_at = created_at - interval '9 s' WHERE sender_id = $1", ben.user_id
    )
    after = await ben.say(room, "after")
    await sql.execute("INSERT INTO chores (kind, subject) VALUES ('erase', $1)", ben.user_id)
    await until(lambda: _is_done(sql, ben.user_id), "erasure")
    messages = (await anna.get(path(room, "/messages"))).json["items"]
    assert [message["content"] for message in messages] == ["after", ""]
    assert messages[0] == after


async def _is_done(sql, subject):
    return await sql.fetchval("SELECT count(*) FROM chores WHERE subject = $1", subject) == 0


async def test_an_erasure_goes_on_after_its_pod_was_killed(own_servers, tmp_path, http):
    sql = await asyncpg.connect(own_servers.database_url)
    async with pods(own_servers.environment(), tmp_path, 1) as (doomed,):
        anna, ben = (Rest(http, doomed.http, name := somebody(), token(name)) for _ in "12")
        room = await ben.group(anna.user_id)
        await sql.execute(
            "WITH stored AS (INSERT INTO messages (id, conversation_id, seq, sender_id, content, attachments,"
            " created_at, updated_at) SELECT gen_random_uuid(), $1, n, $2, 'x', '[]', now(), now()"
            " FROM generate_series(1, 2000) n) UPDATE conversation_heads SET last_seq = 2000,"
            " last_message_seq = 2000 WHERE conversation_id = $1",
            room.removeprefix("conv_"),
            ben.user_id,
        )
        await Master(http, doomed.http, "", "").delete(f"{USERS}/{ben.user_id}?erase=messages")
        left = "SELECT count(*) FROM messages WHERE sender_id = $1 AND deleted_at IS NULL"

        async def begun():
            return await sql.fetchval(left, ben.user_id) < 2000

        await until(begun, "some of it")
        doomed.signal(signal.SIGKILL)
        await doomed.exit_code()
        assert await sql.fetchval(left, ben.user_id) > 0
    await sql.execute("UPDATE chores SET leased_until = now() - interval '1 s' WHERE subject = $1", ben.user_id)
    async with pods(own_servers.environment(), tmp_path, 1) as (heir,):
        await until(lambda: erased(sql, ben.user_id), "the rest of it")
        # Each is deleted once, whoever did it: 2000 sent, the owner left and handed over, 2000 deleted.
        assert (await anna.at(heir).get(path(room))).json["lastSeq"] == 4002
        graves = "SELECT count(DISTINCT message_id) FROM events WHERE event = 'message:deleted'"
        assert await sql.fetchval(graves) == 2000
        assert heir.errors() == []
    await sql.close()
