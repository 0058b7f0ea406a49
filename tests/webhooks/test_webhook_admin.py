"""What operators see of the webhooks, and what they can do."""

from uuid import uuid4

import pytest
from clients import Master
from pods import pods
from receiver import answering


async def pages(found, query, limit=3):
    """Walk through a list; gives the pages."""
    got, cursor = [], ""
    while True:
        answer = await found.master.get(f"/api/admin/webhooks?limit={limit}{query}{cursor}")
        assert answer.status == 200, answer
        got.append(answer.json["items"])
        if "nextCursor" not in answer.json:
            return got
        cursor = f"&cursor={answer.json['nextCursor']}"


async def test_each_status_is_listed_page_by_page(stack):
    async def refuse_some(one):
        return 200 if one.event == "conversation.created" else 400

    async with stack(workers=0, WEBHOOK_RETRY_SCHEDULE="50ms") as found:
        found.receiver.behaviour = refuse_some
        anna = found.user("anna")
        rooms = [await anna.group() for _ in range(4)]
        for room in rooms:
            await anna.say(room, "hello")
        pending = await pages(found, "&status=pending")
        assert [len(page) for page in pending] == [3, 3, 2]
        listed = [one["id"] for page in pending for one in page]
        assert listed == sorted(set(listed))
        (first, *_), *_ = pending
        assert first.keys() == {"id", "event", "status", "attempts", "createdAt", "nextAttemptAt"}
        assert first["event"] == "conversation.created"
        await found.start_worker()
        await found.wait_for_listed("dead", 4)
        delivered = [one for page in await pages(found, "&status=delivered") for one in page]
        dead = [one for page in await pages(found, "&status=dead") for one in page]
        assert {one["event"] for one in delivered} == {"conversation.created"}
        assert {one["status"] for one in delivered} == {"delivered"}
        assert {(one["event"], one["attempts"], one["lastStatusCode"]) for one in dead} == {
            ("message.created", 2, 400)
        }
        everything = [one["id"] for page in await pages(found, "") for one in page]
        assert everything == listed
        assert sorted(one["id"] for one in delivered + dead) == listed
        # A cursor that was given for one status goes on with another.
        exact = await pages(found, "&status=delivered", limit=4)
        assert [len(page) for page in exact] == [4]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=lost", "status"),
        ("limit=0", "limit"),
        ("limit=many", "limit"),
        ("cursor=nonsense", "cursor"),
        ("cursor=", "cursor"),
    ],
)
async def test_a_bad_query_names_its_field(stack, query, field):
    async with stack(workers=0) as found:
        answer = await found.master.get(f"/api/admin/webhooks?{query}")
        assert answer.status == 400
        assert answer.json["code"] == "VALIDATION_ERROR"
        assert answer.json["details"]["field"] == field


async def test_a_cursor_of_another_list_is_refused(stack):
    async with stack(workers=0) as found:
        anna = found.user("anna")
        await anna.group()
        await anna.group()
        others = await found.master.get("/api/admin/conversations?limit=1")
        answer = await found.master.get(f"/api/admin/webhooks?cursor={others.json['nextCursor']}")
        assert answer.status == 400
        own = await found.master.get("/api/admin/webhooks?limit=1")
        answer = await found.master.get(f"/api/admin/conversations?cursor={own.json['nextCursor']}")
        assert answer.status == 400


async def test_only_what_is_there_can_be_replayed_and_only_by_the_master(stack):
    async with stack(workers=0) as found:
        for unknown in (f"wh_{uuid4().hex}", "wh_nonsense", f"conv_{uuid4().hex}"):
            answer = await found.master.post(f"/api/admin/webhooks/{unknown}/replay")
            assert answer.status == 404
            assert answer.json["code"] == "NOT_FOUND"
        anna = found.user("anna")
        for method, path in (
            ("GET", "/api/admin/webhooks"),
            ("POST", f"/api/admin/webhooks/wh_{uuid4().hex}/replay"),
        ):
            assert (await anna.call(method, path)).status == 401
            answer = await found.master.call(method, path, headers={"X-Internal-Secret": "another"})
            assert answer.status == 401


async def test_what_was_delivered_can_be_sent_again(stack):
    async with stack() as found:
        anna = found.user("anna")
        room = await anna.group()
        await anna.say(room, "hello")
        _, told = await found.wait_for_listed("delivered", 2)
        assert (await found.master.post(f"/api/admin/webhooks/{told['id']}/replay")).status == 202
        first, again = await found.receiver.wait_for("message.created", 2)
        assert (again.id, again.body) == (first.id, first.body)


async def test_what_waits_for_its_first_attempt_keeps_its_place_when_replayed(stack):
    async with stack(workers=0) as found:
        anna = found.user("anna")
        room = await anna.group()
        await anna.say(room, "first")
        await anna.say(room, "second")
        *_, last = await found.listed("pending")
        assert (await found.master.post(f"/api/admin/webhooks/{last['id']}/replay")).status == 202
        await found.start_worker()
        await found.receiver.wait_for("message.created", 2)
        assert found.receiver.contents == ["first", "second"]


async def test_stats_count_what_is_pending_and_dead(stack, own_servers, tmp_path):
    async with stack(workers=0, WEBHOOK_RETRY_SCHEDULE="50ms") as found:
        anna = found.user("anna")
        await anna.group()
        await anna.group()
        found.receiver.behaviour = answering(400)
        await found.start_worker()
        await found.wait_for_listed("dead", 2)
        await found.workers[0].stop()
        await anna.group()
        # One that has not counted yet: it does so once a minute.
        async with pods(own_servers.environment(), tmp_path, 1) as (fresh,):
            stats = await Master(found.http, fresh.http, "", "").get("/api/admin/stats")
        assert stats.json["webhooks"] == {"pending": 1, "dead": 2}
