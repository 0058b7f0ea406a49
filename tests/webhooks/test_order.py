"""First attempts of one conversation go one after the other; what is deleted meanwhile is not told."""

import asyncio
import signal
from datetime import timedelta
from itertools import pairwise
from uuid import uuid4

import pytest
from pods import until
from receiver import answering

from app.webhooks.queue import LEASE, LOOKED_AT_ONCE, RETRIES_OF_A_LANE
from app.webhooks.worker import RETRY_SENDERS

MANY = 100_000
# Somebody's messages that were due so long ago, one a millisecond, in these conversations by turns.
OVERDUE = """
INSERT INTO webhooks (id, event, conversation_id, seq, user_id, message_id, state, due_at, created_at)
SELECT gen_random_uuid(), 'message.created', ($2::uuid[])[1 + number % cardinality($2)], number, $1,
       gen_random_uuid(), 'due', now() - $4::interval + number * interval '1 ms', now()
FROM generate_series(1, $3) AS number
"""


async def test_first_attempts_follow_each_other_and_retries_wait_for_nobody(stack):
    fails_once = answering(500, 200)

    async def slowly(one):
        await asyncio.sleep(0.05)
        return await fails_once(one) if one.event == "message.created" else 200

    async with stack(workers=2) as found:
        found.receiver.behaviour = slowly
        anna = found.user("anna")
        room = await anna.group()
        for number in range(30):
            await anna.say(room, str(number))
        await found.receiver.wait("all", lambda: len(found.receiver.delivered) == 31)
        firsts = {one.id: one for one in reversed(found.receiver.received)}
        in_order = sorted(firsts.values(), key=lambda one: one.at)
        assert [one.data.get("content") for one in in_order] == [None, *map(str, range(30))]
        for earlier, later in pairwise(in_order):
            assert later.at >= earlier.answered_at


@pytest.mark.parametrize("way", ["hangs", "is refused"])
async def test_a_hundred_thousand_retries_of_one_conversation_hold_up_no_other(stack, way):
    """The others are due after all of them."""
    release = asyncio.Event()

    async def not_anna(one):
        if one.data["senderId"] != "anna":
            return 200
        if way == "hangs":
            await release.wait()
        return 404

    async with stack(workers=0, WEBHOOK_TIMEOUT="60s") as found:
        found.receiver.behaviour = not_anna
        await found.database.execute(OVERDUE, "anna", [uuid4()], MANY, timedelta(days=1))
        await found.database.execute(OVERDUE, "ben", [uuid4() for _ in range(10)], 20, timedelta(seconds=1))
        worker = await found.start_worker()
        try:
            await found.receiver.wait("the others", lambda: len(found.receiver.delivered) == 20)
            of_anna = [one for one in found.receiver.received if one.data["senderId"] == "anna"]
            assert {one.data["senderId"] for one in found.receiver.delivered} == {"ben"}
            # Few of each look, and the others come before a second look at all of it.
            assert 0 < len(of_anna) <= 2 * RETRIES_OF_A_LANE * (MANY // LOOKED_AT_ONCE + 1)
            assert found.receiver.under_way < RETRY_SENDERS
        finally:
            release.set()
        assert worker.errors() == []


async def test_a_conversation_that_hangs_holds_up_no_other(stack):
    async with stack(WEBHOOK_TIMEOUT="3s") as found:
        anna = found.user("anna")
        stuck = await anna.group()
        rooms = [await anna.group() for _ in range(5)]
        release = asyncio.Event()

        async def hang(one):
            if one.data.get("content") == "stuck":
                await release.wait()
            return 200

        found.receiver.behaviour = hang
        for _ in range(3):
            await anna.say(stuck, "stuck")
        for room in rooms:
            for number in range(20):
                await anna.say(room, str(number))
        arrived = lambda: sum(content != "stuck" for content in found.receiver.contents)  # noqa: E731
        await found.receiver.wait("all others", lambda: arrived() == 100)
        # All others were delivered while the first of them had not even timed out.
        assert found.receiver.contents.count("stuck") == 1
        release.set()
        await found.wait_for_listed("pending", 0)


async def test_what_is_deleted_while_it_waits_in_line_is_not_told(stack):
    async with stack(workers=0) as found:
        anna = found.user("anna")
        room = await anna.group()
        release = asyncio.Event()

        async def slow(one):
            if one.data.get("content") == "first":
                await release.wait()
            return 200

        found.receiver.behaviour = slow
        await anna.say(room, "first")
        secret = await anna.say(room, "a secret")
        # The worker finds them all at once.
        await found.start_worker()
        await found.receiver.wait("the first", lambda: "first" in found.receiver.contents)
        claimed = "SELECT count(*) FROM webhooks WHERE event = 'message.created' AND lease IS NOT NULL"
        assert await found.database.fetchval(claimed) == 2
        assert (await anna.delete(f"/api/messages/{secret['id']}")).status == 204
        release.set()
        await found.receiver.wait_for("message.deleted")
        assert found.receiver.contents == ["first", ""]
        assert not any(b"a secret" in one.body for one in found.receiver.received)


async def test_what_is_deleted_between_two_attempts_is_not_told_again(stack):
    async with stack() as found:
        found.receiver.behaviour = answering(500, 200)
        anna = found.user("anna")
        room = await anna.group()
        secret = await anna.say(room, "a secret")
        await found.receiver.wait_for("message.created")
        assert (await anna.delete(f"/api/messages/{secret['id']}")).status == 204
        first, second = await found.receiver.wait_for("message.created", 2)
        assert first.data["content"] == "a secret"
        assert second.data["content"] == ""
        assert second.id == first.id


async def test_what_is_deleted_with_its_conversation_is_not_told(stack):
    async with stack(workers=0) as found:
        anna = found.user("anna")
        room = await anna.group()
        await anna.say(room, "a secret")
        assert (await found.master.delete(f"/api/admin/conversations/{room}")).status == 204
        gone = "SELECT count(*) = 0 FROM messages WHERE sender_id = $1"

        async def is_purged():
            return await found.database.fetchval(gone, anna.user_id)

        await until(is_purged, "the rows are gone", 20)
        await found.start_worker()
        (told,) = await found.receiver.wait_for("message.created")
        assert told.data["content"] == ""


async def test_the_deliveries_of_a_killed_worker_come_again_under_their_ids(stack):
    async with stack() as found:
        anna = found.user("anna")
        room = await anna.group()
        await found.wait_for_listed("delivered", 1)
        forever = asyncio.Event()

        async def hang(_):
            await forever.wait()
            return 200

        found.receiver.behaviour = hang
        await anna.say(room, "first")
        await anna.say(room, "second")
        (before,) = await found.receiver.wait_for("message.created")
        found.workers[0].signal(signal.SIGKILL)
        await found.workers[0].exit_code()
        found.receiver.behaviour = answering(200)
        await found.start_worker()
        _, again, second = await found.receiver.wait_for("message.created", 3)
        assert again.id == before.id
        assert again.body == before.body
        assert second.data["content"] == "second"
        # Not before the lease was over: it might have been alive.
        assert again.at - before.at >= LEASE - 1
        assert again.at - before.at <= 60


async def test_a_lease_is_renewed_while_the_master_takes_its_time(stack):
    """The second worker must not take what the first one still waits for, though it takes longer than a lease."""
    async with stack(workers=2, WEBHOOK_TIMEOUT="60s") as found:
        anna = found.user("anna")
        room = await anna.group()

        async def slowly(one):
            if one.data.get("content") == "first":
                await asyncio.sleep(LEASE + 5)
            return 200

        found.receiver.behaviour = slowly
        await anna.say(room, "first")
        await anna.say(room, "second")
        first, second = await found.receiver.wait_for("message.created", 2)
        assert [first.data["content"], second.data["content"]] == ["first", "second"]
        assert second.at >= first.answered_at
        assert first.id != second.id
