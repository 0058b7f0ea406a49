"""When the master is gone, one delivery at a time asks for it."""

from pods import until
from receiver import answering
from scraping import series

from app.webhooks.breaker import FAILURES
from app.webhooks.worker import FIRST_SENDERS, PROBE_INTERVAL, RETRY_SENDERS

# The last one is the probe.
MOST_UNDER_WAY = FIRST_SENDERS + RETRY_SENDERS + 1


async def test_a_master_that_fails_is_asked_once_a_second_and_what_is_not_sent_uses_up_no_attempt(stack):
    async with stack(workers=0, WEBHOOK_RETRY_SCHEDULE="100ms,10m") as found:
        found.receiver.behaviour = answering(500)
        anna = found.user("anna")
        rooms = [await anna.group() for _ in range(20)]
        for room in rooms:
            for number in range(10):
                await anna.say(room, str(number))
        worker = await found.start_worker()
        await found.receiver.wait("the breaker", lambda: len(found.receiver.received) >= FAILURES)

        def probes():
            said = worker.log.read_text()
            return "does not take webhooks" in said and found.receiver.under_way == 0

        await found.receiver.wait("it to open", probes)
        assert (await series(found.http, worker.http))["chat_webhook_breaker_open",] == 1
        before = len(found.receiver.received)
        # What was under way when it opened is all that came beside the ten and the probes.
        assert before <= FAILURES + MOST_UNDER_WAY
        await found.receiver.wait("three probes", lambda: len(found.receiver.received) >= before + 3)
        probes = found.receiver.received[before : before + 3]
        assert probes[-1].at - probes[0].at >= 2 * PROBE_INTERVAL
        assert found.receiver.most_under_way <= MOST_UNDER_WAY
        attempts = "SELECT sum(attempts) FROM webhooks"
        untouched = "SELECT count(*) FROM webhooks WHERE attempts = 0 AND state = 'new'"
        assert await found.database.fetchval(attempts) <= len(found.receiver.received)
        assert await found.database.fetchval(untouched) > 100
        found.receiver.behaviour = answering(200)
        # Those that failed twice wait ten minutes; all else comes at once.
        to_come = "SELECT count(*) FROM webhooks WHERE state = 'new' OR state = 'due' AND step < 2"

        async def all_came():
            return await found.database.fetchval(to_come) == 0

        await until(all_came, "the rest", 60)
        waiting = await found.database.fetchval("SELECT count(*) FROM webhooks WHERE state = 'due'")
        assert len({one.id for one in found.receiver.delivered}) == 220 - waiting


async def test_a_poison_event_never_opens_it(stack):
    async def refuse(one):
        return 500 if one.data.get("content") == "poison" else 200

    schedule = ",".join(["50ms"] * 12)
    async with stack(WEBHOOK_RETRY_SCHEDULE=schedule) as found:
        found.receiver.behaviour = refuse
        anna = found.user("anna")
        room, other = await anna.group(), await anna.group()
        await anna.say(room, "poison")
        await anna.say(other, "poison")
        dead = await found.wait_for_listed("dead", 2)
        assert [one["attempts"] for one in dead] == [13, 13]
        assert "does not take webhooks" not in found.workers[0].log.read_text()


async def test_refusals_never_open_it(stack):
    async with stack(WEBHOOK_RETRY_SCHEDULE="50ms,50ms") as found:
        found.receiver.behaviour = answering(404)
        anna = found.user("anna")
        for _ in range(10):
            await anna.group()
        await found.wait_for_listed("dead", 10)
        assert len(found.receiver.received) == 30
        assert "does not take webhooks" not in found.workers[0].log.read_text()
