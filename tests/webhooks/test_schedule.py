"""What becomes of a webhook that the master does not take."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import psutil
import pytest
from aiohttp import web
from receiver import answering

from app.webhooks.http_client import MAX_ANSWER

FOREVER = 3600.0


def waits(attempts):
    """Give the seconds from each answer to the next attempt."""
    return [later.at - earlier.answered_at for earlier, later in pairwise(attempts)]


async def test_a_webhook_is_tried_by_the_schedule_and_then_dead_and_replayed_under_its_id(stack):
    async with stack(WEBHOOK_RETRY_SCHEDULE="300ms,900ms") as found:
        found.receiver.behaviour = answering(500, 404, 302, 204)
        anna = found.user("anna")
        await anna.group()
        attempts = await found.receiver.wait_for("conversation.created", 3)
        first, second = waits(attempts)
        assert first >= 0.3
        assert second >= 0.9
        (dead,) = await found.wait_for_listed("dead", 1)
        assert dead["attempts"] == 3
        assert dead["lastStatusCode"] == 302
        assert dead["lastError"] == "answered 302"
        assert "nextAttemptAt" not in dead
        assert dead["id"] == attempts[0].id
        assert (await found.master.post(f"/api/admin/webhooks/{dead['id']}/replay")).status == 202
        attempts = await found.receiver.wait_for("conversation.created", 4)
        assert {one.id for one in attempts} == {dead["id"]}
        assert len({one.body for one in attempts}) == 1
        (delivered,) = await found.wait_for_listed("delivered", 1)
        assert delivered["attempts"] == 4
        assert delivered["deliveredAt"] > delivered["createdAt"]
        assert "lastError" not in delivered


async def test_a_redirect_is_not_followed(stack):
    async def redirect(one):
        return web.Response(status=307, headers={"Location": str(one.request.url.with_query("again"))})

    async with stack(WEBHOOK_RETRY_SCHEDULE="200ms") as found:
        found.receiver.behaviour = redirect
        await found.user().group()
        (dead,) = await found.wait_for_listed("dead", 1)
        assert dead["lastStatusCode"] == 307
        assert [one.request.query_string for one in found.receiver.received] == ["", ""]


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_master_that_asks_for_time_gets_it(stack, form):
    async def later(_):
        if len(found.receiver.received) > 1:
            return 200
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
        return web.Response(status=503, headers={"Retry-After": "2" if form == "seconds" else at})

    async with stack(WEBHOOK_RETRY_SCHEDULE="100ms") as found:
        found.receiver.behaviour = later
        await found.user().group()
        (wait,) = waits(await found.receiver.wait_for("conversation.created", 2))
        # A date has no fraction of a second.
        assert wait >= 1.9


async def test_what_the_master_does_not_answer_in_time_is_tried_again(stack):
    async def hang(_):
        if len(found.receiver.received) == 1:
            await asyncio.sleep(FOREVER)
        return 200

    async with stack(WEBHOOK_TIMEOUT="500ms") as found:
        found.receiver.behaviour = hang
        await found.user().group()
        await found.receiver.wait_for("conversation.created", 2)
        (delivered,) = await found.wait_for_listed("delivered", 1)
        assert delivered["attempts"] == 2


async def test_a_connection_that_closes_is_a_failure_that_says_so(stack):
    async def close(one):
        one.request.transport.close()
        return 200

    async with stack(WEBHOOK_RETRY_SCHEDULE="200ms") as found:
        found.receiver.behaviour = close
        await found.user().group()
        (dead,) = await found.wait_for_listed("dead", 1)
        assert dead["attempts"] == 2
        assert dead["lastError"]
        assert "lastStatusCode" not in dead


async def test_nobody_there_is_a_failure_that_names_no_address(stack):
    url = "http://user:very-secret@127.0.0.1:9/webhooks?token=very-secret"
    async with stack(WEBHOOK_RETRY_SCHEDULE="200ms", WEBHOOK_URL=url) as found:
        await found.user().group()
        (dead,) = await found.wait_for_listed("dead", 1)
        assert dead["lastError"] == "Connection refused"
        assert "very-secret" not in found.workers[0].log.read_text()


async def test_an_answer_without_end_is_not_read(stack):
    """A hundred megabytes for each of ten webhooks: what is read is bounded, and a 2xx is delivered."""
    sent = []

    async def pour(one):
        answer = web.StreamResponse()
        await answer.prepare(one.request)
        sent.append(0)
        place = len(sent) - 1
        try:
            for _ in range(1600):
                await answer.write(b"x" * 65_536)
                sent[place] += 65_536
        except ConnectionError:
            pass
        return answer

    async with stack() as found:
        anna = found.user()
        room = await anna.group()
        await found.wait_for_listed("delivered", 1)
        process = psutil.Process(found.workers[0].process.pid)
        before = process.memory_info().rss
        found.receiver.behaviour = pour
        for number in range(10):
            await anna.say(room, str(number))
        await found.wait_for_listed("delivered", 11)
        grown = process.memory_info().rss - before
        assert len(found.receiver.about("message.created")) == 10
        # What the kernel takes for the connection is not in the worker's hands.
        assert max(sent) < 16 << 20
        assert grown < 16 << 20


async def test_an_answer_that_trickles_is_delivered_and_holds_nothing_up(stack):
    async def trickle(one):
        answer = web.StreamResponse(headers={"Content-Length": str(MAX_ANSWER)})
        await answer.prepare(one.request)
        await asyncio.sleep(FOREVER)
        return answer

    async with stack() as found:
        anna = found.user()
        room = await anna.group()
        found.receiver.behaviour = trickle
        await anna.say(room, "first")
        await anna.say(room, "second")
        await found.receiver.wait("both", lambda: found.receiver.contents == ["first", "second"])
        await found.wait_for_listed("delivered", 3)
