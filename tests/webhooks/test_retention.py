"""What was delivered long ago is forgotten, in pieces; what was not is kept."""

import time
from contextlib import asynccontextmanager
from uuid import UUID

from pods import until

from app.contract import ids
from app.webhooks.worker import CLEANED_AT_ONCE

DAY = 86_400
RETENTION = 3
LONG_AGO = RETENTION * DAY + 600
NOT_SO_LONG_AGO = RETENTION * DAY - 600
MANY = 2 * CLEANED_AT_ONCE + 500

# Far from due: no worker sends what is pending.
WRITE = """
INSERT INTO webhooks (id, event, conversation_id, seq, user_id, state, due_at, created_at)
SELECT id, 'message.created', gen_random_uuid(), 1, 'anna', $2, 'infinity', now() FROM unnest($1::uuid[]) AS id
"""
COUNT_WHAT_GOES = """
CREATE TABLE gone (rows bigint);
CREATE FUNCTION count_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gone SELECT count(*) FROM deleted;
    RETURN NULL;
END $$;
CREATE TRIGGER count_gone AFTER DELETE ON webhooks REFERENCING OLD TABLE AS deleted
FOR EACH STATEMENT EXECUTE FUNCTION count_gone()
"""
COUNT_NO_MORE = "DROP TRIGGER count_gone ON webhooks; DROP FUNCTION count_gone; DROP TABLE gone"


@asynccontextmanager
async def counting(database):
    """Count in the database how many rows each statement deletes."""
    await database.execute(COUNT_WHAT_GOES)
    try:
        yield
    finally:
        await database.execute(COUNT_NO_MORE)


async def write(database, state, seconds_ago, count=1):
    """Write webhooks of a state that are so old; gives their ids."""
    first = ids.first_of(time.time() - seconds_ago).int
    written = [UUID(int=first + number) for number in range(count)]
    await database.execute(WRITE, written, state)
    return written


async def test_what_was_delivered_before_the_retention_is_forgotten_in_pieces_and_nothing_else(stack):
    async with stack(workers=0, WEBHOOK_RETENTION_DAYS=str(RETENTION)) as found, counting(found.database):
        await write(found.database, "delivered", LONG_AGO, MANY)
        kept = [
            *await write(found.database, "delivered", NOT_SO_LONG_AGO),
            *await write(found.database, "dead", 2 * LONG_AGO),
            *await write(found.database, "due", 3 * LONG_AGO),
            *await write(found.database, "new", 4 * LONG_AGO),
        ]

        async def left():
            return [row["id"] for row in await found.database.fetch("SELECT id FROM webhooks")]

        async def is_clean():
            return len(await left()) == len(kept)

        worker = await found.start_worker()
        await until(is_clean, "the end of what is old", 30)
        assert set(await left()) == set(kept)
        pieces = await found.database.fetch("SELECT rows FROM gone WHERE rows > 0 ORDER BY rows DESC")
        assert [row["rows"] for row in pieces] == [CLEANED_AT_ONCE, CLEANED_AT_ONCE, MANY - 2 * CLEANED_AT_ONCE]
        # What gets old while the worker runs goes as well.
        await write(found.database, "delivered", LONG_AGO)
        await until(is_clean, "the end of what got old", 30)
        assert worker.errors() == []
