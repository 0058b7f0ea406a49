"""Who comes and goes: at most one undelivered per user, in order, and of no use after ten minutes."""

import asyncio
from datetime import UTC, datetime, timedelta

import redis.asyncio as redis
from clients import Master, ear
from pods import until
from receiver import answering

from app.contract.ids import new_id
from app.webhooks.outbox import APPEND_PRESENCE

EVENTS = ("user.online", "user.offline")


def of(found, user):
    return [one for one in found.receiver.received if one.event in EVENTS and one.data["userId"] == user.user_id]


async def pending_of(found, user):
    return await found.database.fetch(
        "SELECT * FROM webhooks WHERE user_id = $1 AND state = 'due' AND conversation_id IS NULL", user.user_id
    )


async def come_and_go(found, user, pod=0):
    async with ear(found.pods[pod], user.user_id):
        pass


async def test_a_newer_transition_replaces_one_that_was_not_delivered(stack):
    async with stack(workers=0) as found:
        found.receiver.hears_presence = True
        anna = found.user("anna")
        await come_and_go(found, anna)

        async def is_told(event):
            rows = await pending_of(found, anna)
            return [row["event"] for row in rows] == [event]

        await until(lambda: is_told("user.offline"), "user.offline alone")
        (went,) = await pending_of(found, anna)
        async with ear(found.pods[1], anna.user_id):
            await until(lambda: is_told("user.online"), "user.online alone")
            (came,) = await pending_of(found, anna)
            assert came["seq"] > went["seq"]
            assert came["id"] != went["id"]
            await found.start_worker()
            await found.receiver.wait("user.online", lambda: len(of(found, anna)) == 1)
            (told,) = of(found, anna)
            assert told.event == "user.online"
            assert told.data["transition"] == came["seq"]


async def test_a_newer_transition_waits_for_the_end_of_an_attempt(stack):
    release = asyncio.Event()

    async def slowly(one):
        if one.event == "user.online":
            await release.wait()
        return 500

    async with stack(WEBHOOK_RETRY_SCHEDULE="30s,30s") as found:
        found.receiver.hears_presence = True
        found.receiver.behaviour = slowly
        anna = found.user("anna")
        await come_and_go(found, anna)
        await found.receiver.wait("user.online", lambda: len(of(found, anna)) == 1)

        async def is_replaced():
            return [row["event"] for row in await pending_of(found, anna)] == ["user.offline"]

        await until(is_replaced, "user.offline in its place")
        (waiting,) = await pending_of(found, anna)
        # Held by the attempt that is under way.
        assert waiting["lease"] is not None
        assert len(of(found, anna)) == 1
        found.receiver.behaviour = answering(200)
        release.set()
        # At once, though the one before failed: that is of no use any more.
        await found.receiver.wait("user.offline", lambda: len(of(found, anna)) == 2)
        came, went = of(found, anna)
        assert (came.event, went.event) == EVENTS
        assert went.at >= came.answered_at
        assert went.data["transition"] > came.data["transition"]
        assert went.id != came.id


async def test_a_transition_that_is_late_is_not_told_after_a_newer_one(stack):
    """As a pod would write it that stood still between the decision and the outbox."""
    async with stack() as found:
        found.receiver.hears_presence = True
        anna = found.user("anna")
        async with ear(found.pods[0], anna.user_id):
            await found.receiver.wait("user.online", lambda: len(of(found, anna)) == 1)
            await found.wait_for_listed("delivered", 1)
            (came,) = of(found, anna)
            await append_presence(found, anna, came.data["transition"] - 1, is_online=False)
            assert await pending_of(found, anna) == []
            await append_presence(found, anna, came.data["transition"], is_online=True)
            assert await pending_of(found, anna) == []
            await append_presence(found, anna, came.data["transition"] + 1, is_online=False)
            await found.receiver.wait("the newer one", lambda: len(of(found, anna)) == 2)
        # What is older than that may not be told again by hand either.
        (answer,) = [
            await found.master.post(f"/api/admin/webhooks/{one['id']}/replay")
            for one in await found.listed("delivered")
            if one["id"] == came.id
        ]
        assert answer.status == 409
        assert answer.json["code"] == "CONFLICT"


async def append_presence(found, user, number, *, is_online):

    at = await found.database.fetchval("SELECT now()")
    event = EVENTS[0] if is_online else EVENTS[1]
    await found.database.execute(APPEND_PRESENCE, [new_id()], [event], [number], [user.user_id], [at], [None])


async def test_presence_that_could_not_be_told_for_ten_minutes_is_dead(stack):
    async with stack(workers=0) as found:
        found.receiver.hears_presence = True
        anna = found.user("anna")
        await come_and_go(found, anna)

        async def has_gone():
            return [row["event"] for row in await pending_of(found, anna)] == ["user.offline"]

        await until(has_gone, "user.offline")
        await found.database.execute(
            "UPDATE webhooks SET expires_at = expires_at - interval '10 minutes' WHERE user_id = $1", anna.user_id
        )
        await found.start_worker()
        (dead,) = await found.wait_for_listed("dead", 1)
        assert dead["event"] == "user.offline"
        assert dead["attempts"] == 0
        assert dead["lastError"] == "not delivered in time"
        assert of(found, anna) == []
        answer = await Master(found.http, found.pods[1].http, "", "").post(
            f"/api/admin/webhooks/{dead['id']}/replay"
        )
        assert answer.status == 202
        await found.receiver.wait("the replay", lambda: [one.id for one in of(found, anna)] == [dead["id"]])


async def test_retries_end_when_the_presence_is_too_old(stack):
    async with stack(WEBHOOK_RETRY_SCHEDULE="1h") as found:
        found.receiver.hears_presence = True
        found.receiver.behaviour = answering(503)
        anna = found.user("anna")
        async with ear(found.pods[0], anna.user_id):
            await found.receiver.wait("user.online", lambda: len(of(found, anna)) == 1)

            async def waits():
                (row,) = await pending_of(found, anna)
                return row["lease"] is None and abs(row["due_at"] - row["expires_at"]) < timedelta(seconds=2)

            await until(waits, "the end of its time, not that of the schedule")


async def test_who_connects_waits_neither_for_the_outbox_nor_for_its_errors(stack):
    async with stack(workers=0) as found:
        anna, ben = found.user("anna"), found.user("ben")
        await ben.direct(anna.user_id)
        async with ear(found.pods[1], ben.user_id) as far:
            await until(lambda: is_pending(found, ben), "ben is written")
            async with found.database.transaction():
                # Whoever writes presence waits for this until PostgreSQL gives up on it, with an error.
                await found.database.execute("LOCK TABLE webhooks IN ACCESS EXCLUSIVE MODE")
                async with ear(found.pods[0], anna.user_id) as near:
                    assert await near.call("presence:ping", {}) == {"ok": True}
                    await until(lambda: is_waited_for(found), "the outbox waits")
                    await found.database.execute(
                        "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
                    )
                    assert await near.call("presence:ping", {}) == {"ok": True}
            # It is told in the end, by whoever: she came and went, or that she went.
            await far.wait("of anna", lambda _: far.presence)
            await until(lambda: is_pending(found, anna), "anna is written")


async def is_pending(found, user):
    return bool(await pending_of(found, user))


async def is_waited_for(found):
    return await found.database.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")


async def test_after_a_loss_of_redis_the_master_is_told_what_is_so(stack, own_servers):
    async with stack() as found:
        found.receiver.hears_presence = True
        anna, gone = found.user("anna"), found.user("gone")
        async with ear(found.pods[0], anna.user_id):
            await found.receiver.wait("user.online", lambda: len(of(found, anna)) == 1)
            number = of(found, anna)[0].data["transition"] + 1
            # What was told of her last is that she went, and of somebody without a socket that they came: so it is
            # where a pod decides something else, and dies with Redis before it is told.
            for user, event in ((anna, "user.offline"), (gone, "user.online")):
                values = ([new_id()], [event], [number], [user.user_id], [datetime.now(UTC)], [None])
                await found.database.execute(APPEND_PRESENCE, *values)
            await found.receiver.wait("what was told", lambda: len(of(found, anna) + of(found, gone)) == 3)
            async with redis.from_url(own_servers.redis_url) as forgetful:
                await forgetful.flushdb()
            await found.receiver.wait(
                "what is so", lambda: len(of(found, anna)) == 3 and len(of(found, gone)) == 2, within=40
            )
            assert [one.event for one in of(found, anna)] == ["user.online", "user.offline", "user.online"]
            assert [one.event for one in of(found, gone)] == ["user.online", "user.offline"]
            numbers = [one.data["transition"] for one in of(found, anna)]
            assert numbers == sorted(set(numbers))
