"""What a webhook worker tells Prometheus."""

from pods import until
from scraping import series

# Longer than any test.
HOUR = 3600


async def test_attempts_and_what_is_given_up_are_counted(stack, master):
    async def gone(_):
        return 404

    async with stack(WEBHOOK_RETRY_SCHEDULE="100ms") as found:
        (worker,) = found.workers
        anna = found.user("anna")
        conversation = await anna.direct(found.user("ben").user_id)
        await master.wait("the creation", lambda: len(master.delivered) == 1)
        master.behaviour = gone
        await anna.say(conversation, "Hi")
        await found.wait_for_listed("dead", 1)
        after = await series(found.http, worker.http)
    assert after["chat_webhook_attempts_total", "delivered"] == 1
    assert after["chat_webhook_attempts_total", "4xx"] == 2
    assert after["chat_webhook_dead_total",] == 1
    assert after["chat_webhook_breaker_open",] == 0
    assert after["chat_database_up",] == after["chat_redis_up",] == 1
    assert not any(name.startswith("chat_http") for name, *_ in after)


async def test_what_waits_is_counted_and_for_how_long(stack, master):
    async def fail(_):
        return 503

    async with stack(WEBHOOK_RETRY_SCHEDULE="10h") as found:
        (worker,) = found.workers
        master.behaviour = fail
        await found.user("anna").direct(found.user("ben").user_id)
        await master.wait("an attempt", lambda: len(master.received) == 1)

        async def is_told(pending, at_least, below):
            values = await series(found.http, worker.http)
            oldest = values["chat_webhook_oldest_seconds",]
            return values["chat_webhook_pending",] == pending and at_least <= oldest < below

        await until(lambda: is_told(1, 0, 1), "that one waits, and is not due", 20)
        # Held by nobody and never due again, so that no worker takes it meanwhile.
        await found.database.execute(
            """
            INSERT INTO webhooks (id, event, conversation_id, seq, user_id, created_at, due_at)
            SELECT gen_random_uuid(), event, gen_random_uuid(), 1, user_id, now() - interval '1 hour', 'infinity'
            FROM webhooks
            """
        )
        await until(lambda: is_told(2, HOUR, 2 * HOUR), "that another one has waited for an hour", 20)
    assert worker.errors() == []
