"""The queue of webhooks in PostgreSQL: claim, renew, settle and release, in few statements.

A claimed row is held by a lease: its `due_at` is the lease's end, and `lease` says which claim it was. First
attempts are claimed lane by lane, a lane being one conversation: its first new row stands for all of it. Rows of
one conversation commit in the order of `seq`, and while the first is held nobody else takes those behind it.

No two statements may wait for each other: a claim waits for no row, and whatever else changes several rows locks
them by user and id first. The outbox, too, writes presence user by user in that order.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from app.postgres import store
from app.postgres.store import Row

LEASE = 30.0
ROWS_OF_A_LANE = 20
RETRIES_OF_A_LANE = 4
LOOKED_AT_ONCE = 5000

_LAST_ID = UUID(int=2**128 - 1)
_COLUMNS = """
    w.id, w.event, w.conversation_id, w.seq, w.user_id, w.message_id, w.data, w.traceparent, w.created_at,
    w.expires_at, w.step, w.lease
"""

# From lane to lane by the index, so that a conversation with a million rows costs what one with a single row does.
# The first row is locked and looked at anew: who was faster has its lease there. Of the rows behind it those are
# claimed that are free, up to the first that is not: what comes after that would overtake it.
CLAIM_LANES = f"""
WITH RECURSIVE firsts AS (
    (
        SELECT id, conversation_id, due_at FROM webhooks
        WHERE state = 'new' AND conversation_id > $1 ORDER BY conversation_id, seq LIMIT 1
    )
    UNION ALL
    SELECT following.*
    FROM firsts CROSS JOIN LATERAL (
        SELECT id, conversation_id, due_at FROM webhooks
        WHERE state = 'new' AND conversation_id > firsts.conversation_id ORDER BY conversation_id, seq LIMIT 1
    ) following
), held AS MATERIALIZED (
    SELECT conversation_id FROM webhooks
    WHERE id = ANY (ARRAY(SELECT id FROM firsts WHERE due_at <= now() LIMIT $2))
          AND state = 'new' AND due_at <= now()
    FOR UPDATE SKIP LOCKED
), lane AS MATERIALIZED (
    SELECT one.id, row_number() OVER (PARTITION BY held.conversation_id ORDER BY one.seq) AS place
    FROM held CROSS JOIN LATERAL (
        SELECT id, seq FROM webhooks WHERE state = 'new' AND conversation_id = held.conversation_id
        ORDER BY seq LIMIT $4
    ) one
), free AS MATERIALIZED (
    SELECT id, conversation_id, seq FROM webhooks
    WHERE id = ANY (ARRAY(SELECT id FROM lane)) AND state = 'new'
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE webhooks w SET due_at = now() + interval '{LEASE:g} seconds', lease = $3
    WHERE w.id = ANY (ARRAY(
        SELECT id FROM lane JOIN (
            SELECT id, row_number() OVER (PARTITION BY conversation_id ORDER BY seq) AS place FROM free
        ) AS numbered USING (id, place)
    ))
    RETURNING {_COLUMNS}
)
SELECT * FROM claimed ORDER BY conversation_id, seq
"""

# What hangs for one conversation must not take the place of all others: few of each at a time, and where it fills
# all that is looked at, the next claim looks behind it. What it looks at is bounded before anything is left out.
# The pair is for the planner: it takes a range between two times for a short one, and would read and sort it all.
CLAIM_DUE = f"""
WITH looked_at AS MATERIALIZED (
    SELECT id, due_at, expires_at, conversation_id,
           CASE WHEN conversation_id IS NULL THEN user_id END AS presence_of
    FROM webhooks
    WHERE state = 'due' AND due_at <= now()
          AND (due_at, id) > (coalesce($4::timestamptz, '-infinity'), '{_LAST_ID}')
    ORDER BY due_at FETCH FIRST {LOOKED_AT_ONCE} ROWS WITH TIES
), candidates AS MATERIALIZED (
    SELECT id, due_at, row_number() OVER (PARTITION BY conversation_id, presence_of ORDER BY due_at) AS place
    FROM looked_at
    WHERE (expires_at IS NULL OR expires_at > now())
          AND (conversation_id IS NULL OR conversation_id <> ALL($1::uuid[]))
), held AS MATERIALIZED (
    SELECT id FROM webhooks
    WHERE id = ANY (ARRAY(
        SELECT id FROM candidates WHERE place <= {RETRIES_OF_A_LANE} ORDER BY due_at LIMIT $2
    )) AND state = 'due' AND due_at <= now()
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE webhooks w SET due_at = now() + interval '{LEASE:g} seconds', lease = $3
    WHERE w.id = ANY (ARRAY(SELECT id FROM held))
    RETURNING {_COLUMNS}
)
SELECT claimed.*, looked.until AS looked_until
FROM (SELECT CASE WHEN count(*) >= {LOOKED_AT_ONCE} THEN max(due_at) END AS until FROM looked_at) looked
LEFT JOIN claimed ON true
ORDER BY claimed.created_at
"""


def _locked(key: str, condition: str) -> str:
    """Write the CTE that locks what is held, by a key and the lease of each, in the one order."""
    return f"""
WITH mine AS MATERIALIZED (
    SELECT w.id FROM webhooks w
    JOIN unnest($1::{"uuid" if key == "id" else "text"}[], $2::uuid[]) AS held ({key}, lease)
         ON w.{key} = held.{key} AND w.lease = held.lease
    WHERE {condition}
    ORDER BY w.user_id, w.id
    FOR UPDATE OF w
)"""


_HELD = _locked("id", "true")
# A transition that came while an older one was under way has taken its row, and waits for the end of its lease.
_HELD_PRESENCE = _locked("user_id", "w.conversation_id IS NULL AND w.state = 'due'")

_LONGER = f"""
UPDATE webhooks w SET due_at = now() + interval '{LEASE:g} seconds'
FROM mine WHERE w.id = mine.id RETURNING w.id
"""

_FREED = "UPDATE webhooks w SET due_at = now(), lease = NULL FROM mine WHERE w.id = mine.id"

RENEW = f"{_HELD} {_LONGER}"
RENEW_PRESENCE = f"{_HELD_PRESENCE} {_LONGER}"
RELEASE = f"{_HELD} {_FREED}"
FREE_PRESENCE = f"{_HELD_PRESENCE} {_FREED}"

# Who lost the lease has nothing to say any more: another worker is at it.
SETTLE = f"""{_HELD}
UPDATE webhooks w
SET state = settled.state, attempts = w.attempts + 1, step = settled.step, lease = NULL,
    due_at = now() + settled.delay * interval '1 second',
    last_status_code = settled.status, last_error = settled.error,
    delivered_at = CASE WHEN settled.state = 'delivered' THEN clock_timestamp() END
FROM mine JOIN unnest($1::uuid[], $3::text[], $4::int[], $5::float8[], $6::int[], $7::text[])
     AS settled (id, state, step, delay, status, error) USING (id)
WHERE w.id = mine.id
"""

# How much waits, counted up to a bound, and for how long the oldest has been due. What was never tried is due from
# the moment it was written, and in the order of the ids.
BACKLOG = """
SELECT (
           SELECT count(*) FROM (SELECT 1 FROM webhooks WHERE state IN ('new', 'due') LIMIT 100000) counted
       ) AS pending,
       extract(epoch FROM now() - least(
           (SELECT created_at FROM webhooks WHERE state = 'new' ORDER BY id LIMIT 1),
           (SELECT min(due_at) FROM webhooks WHERE state = 'due'),
           now()
       ))::float8 AS oldest
"""

EXPIRE = """
UPDATE webhooks SET state = 'dead', lease = NULL, last_error = coalesce(last_error, 'not delivered in time')
WHERE id = ANY (ARRAY(
    SELECT id FROM webhooks
    WHERE conversation_id IS NULL AND state = 'due' AND expires_at <= now() AND due_at <= now()
    FOR UPDATE SKIP LOCKED
))
RETURNING id
"""

FORGET = """
DELETE FROM webhooks WHERE id = ANY (ARRAY(
    SELECT id FROM webhooks WHERE state = 'delivered' AND id < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING id
"""

MESSAGES = """
SELECT said.id, m.content, m.attachments, m.client_message_id, m.deleted_at
FROM unnest($1::uuid[]) AS said (id)
LEFT JOIN LATERAL (SELECT * FROM messages WHERE id = said.id OFFSET 0) m ON true
"""


@dataclass(frozen=True, slots=True)
class Settled:
    """How an attempt ended: the `state` from now on and, where that is `due`, in how many seconds."""

    row: Row
    state: str
    delay: float
    status: int | None
    error: str | None


async def claim_lanes(after: UUID, most: int, rows_of_a_lane: int = ROWS_OF_A_LANE) -> list[Row]:
    """Take lanes behind a conversation for their first attempts: the rows of each stand together, in order."""
    return await store.rows(CLAIM_LANES, after, most, uuid4(), rows_of_a_lane)


async def claim_due(
    busy: Collection[UUID], most: int, after: datetime | None = None
) -> tuple[list[Row], datetime | None]:
    """Take what has been due since a time, except of the conversations that are busy.

    Gives also up to when it looked, where there is more behind.
    """
    found = await store.rows(CLAIM_DUE, list(busy), most, uuid4(), after)
    return [row for row in found if row["id"] is not None], found[0]["looked_until"]


async def renew(held: Collection[Row]) -> set[UUID]:
    """Hold on to what is claimed for another lease; gives what is still ours."""
    found = await store.rows(RENEW, *_ids(held))
    await _presence(RENEW_PRESENCE, held)
    return {row["id"] for row in found}


async def release(unsent: Collection[Row]) -> None:
    """Give back what was claimed and not sent: no attempt was used up."""
    await store.rows(RELEASE, *_ids(unsent))
    await _presence(FREE_PRESENCE, unsent)


async def settle(settled: Sequence[Settled]) -> None:
    """Write how attempts ended."""
    rows = [one.row for one in settled]
    await store.rows(
        SETTLE,
        *_ids(rows),
        [one.state for one in settled],
        [row["step"] + 1 for row in rows],
        [one.delay for one in settled],
        [one.status for one in settled],
        [one.error for one in settled],
    )
    await _presence(FREE_PRESENCE, rows)


async def messages(message_ids: Collection[UUID]) -> list[Row]:
    """Read what messages say now, in their order; `content` is None where one is gone with its conversation."""
    found = {row["id"]: row for row in await store.rows(MESSAGES, list(message_ids))}
    return [found[message_id] for message_id in message_ids]


async def backlog() -> tuple[int, float]:
    """Tell how many webhooks wait, up to 100,000, and for how many seconds the oldest has been due."""
    found = await store.row(BACKLOG)
    assert found is not None
    return found["pending"], found["oldest"]


async def expire() -> int:
    """Give up on presence that is too old to be of use; gives how many."""
    return len(await store.rows(EXPIRE))


async def forget(before: UUID, most: int) -> int:
    """Delete what was delivered and is older than an id, so many at most; gives how many."""
    return len(await store.rows(FORGET, before, most))


def _ids(rows: Collection[Row]) -> tuple[list[UUID], list[UUID]]:
    return [row["id"] for row in rows], [row["lease"] for row in rows]


async def _presence(statement: str, rows: Collection[Row]) -> None:
    found = [(row["user_id"], row["lease"]) for row in rows if row["conversation_id"] is None]
    if found:
        await store.rows(statement, [user_id for user_id, _ in found], [lease for _, lease in found])
