"""The worker's side of the outbox: claim, renew, settle, in few statements.

A claimed row is held by a lease: its `due_at` is the lease's end, and `worker` says whose it is. First attempts
are claimed lane by lane, a lane being one conversation: its first new row stands for all of it. Rows of one
conversation commit in the order of `seq`, and while the first is held nobody else takes those behind it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from app import store
from app.store import Row

LEASE = 30.0
ROWS_OF_A_LANE = 20
RETRIES_OF_A_LANE = 4

_COLUMNS = """
    w.id, w.event, w.conversation_id, w.seq, w.user_id, w.message_id, w.data, w.traceparent, w.created_at,
    w.expires_at, w.step
"""

# A message is read where it stands now: one that was deleted says nothing any more.
_CLAIMED = """
SELECT claimed.*, m.content, m.attachments, m.client_message_id, m.deleted_at
FROM claimed LEFT JOIN LATERAL (SELECT * FROM messages WHERE id = claimed.message_id OFFSET 0) m ON true
ORDER BY claimed.conversation_id, claimed.seq
"""

# From lane to lane by the index, so that a conversation with a million rows costs what one with a single row does.
# The first row is locked and looked at anew: who was faster has its lease there.
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
), claimed AS (
    UPDATE webhooks w SET due_at = now() + interval '{LEASE:g} seconds', worker = $3
    WHERE w.id = ANY (ARRAY(
        SELECT lane.id FROM held CROSS JOIN LATERAL (
            SELECT id FROM webhooks WHERE state = 'new' AND conversation_id = held.conversation_id
            ORDER BY seq LIMIT $4
        ) lane
    ))
    RETURNING {_COLUMNS}
)
{_CLAIMED}
"""

# What hangs for one conversation must not take the place of all others: few of each at a time. The inner LIMIT
# bounds what is looked at.
CLAIM_DUE = f"""
WITH candidates AS MATERIALIZED (
    SELECT id, due_at, row_number() OVER (PARTITION BY conversation_id, presence_of ORDER BY due_at) AS place
    FROM (
        SELECT id, conversation_id, due_at, CASE WHEN conversation_id IS NULL THEN user_id END AS presence_of
        FROM webhooks
        WHERE state = 'due' AND due_at <= now() AND (expires_at IS NULL OR expires_at > now())
              AND (conversation_id IS NULL OR conversation_id <> ALL($1::uuid[]))
        ORDER BY due_at LIMIT 1000
    ) due
), held AS MATERIALIZED (
    SELECT id FROM webhooks
    WHERE id = ANY (ARRAY(
        SELECT id FROM candidates WHERE place <= {RETRIES_OF_A_LANE} ORDER BY due_at LIMIT $2
    )) AND state = 'due' AND due_at <= now()
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE webhooks w SET due_at = now() + interval '{LEASE:g} seconds', worker = $3
    WHERE w.id = ANY (ARRAY(SELECT id FROM held))
    RETURNING {_COLUMNS}
)
{_CLAIMED}
"""

RENEW = f"""
UPDATE webhooks SET due_at = now() + interval '{LEASE:g} seconds'
WHERE id = ANY($1::uuid[]) AND worker = $2
RETURNING id
"""

RELEASE = "UPDATE webhooks SET due_at = now(), worker = NULL WHERE id = ANY($1::uuid[]) AND worker = $2"

# Who lost the lease has nothing to say any more: another worker is at it.
SETTLE = """
UPDATE webhooks w
SET state = settled.state, attempts = w.attempts + 1, step = settled.step, worker = NULL,
    due_at = now() + settled.delay * interval '1 second',
    last_status_code = settled.status, last_error = settled.error,
    delivered_at = CASE WHEN settled.state = 'delivered' THEN clock_timestamp() END
FROM unnest($1::uuid[], $2::text[], $3::int[], $4::float8[], $5::int[], $6::text[])
     AS settled (id, state, step, delay, status, error)
WHERE w.id = settled.id AND w.worker = $7
"""

# A transition that came while an older one was under way waited for its end.
FREE_PRESENCE = """
UPDATE webhooks SET due_at = now(), worker = NULL
WHERE conversation_id IS NULL AND state = 'due' AND user_id = ANY($1::text[]) AND worker = $2
"""

EXPIRE = """
UPDATE webhooks SET state = 'dead', worker = NULL
WHERE conversation_id IS NULL AND state = 'due' AND expires_at <= now() AND due_at <= now()
RETURNING id
"""

FORGET = """
DELETE FROM webhooks WHERE id = ANY (ARRAY(
    SELECT id FROM webhooks WHERE state = 'delivered' AND id < $1 ORDER BY id LIMIT $2
)) RETURNING id
"""

PRESENT = "SELECT content, attachments, client_message_id, deleted_at FROM messages WHERE id = $1"


@dataclass(frozen=True, slots=True)
class Settled:
    """How an attempt ended: its `state` from now on and, where it is `due`, in how many seconds."""

    id: UUID
    state: str
    step: int
    delay: float
    status: int | None
    error: str | None
    presence_of: str | None


class Queue:
    """The outbox as one worker sees it."""

    def __init__(self, worker: UUID) -> None:
        self._worker = worker

    async def claim_lanes(self, after: UUID, most: int, rows_of_a_lane: int = ROWS_OF_A_LANE) -> list[Row]:
        """Take lanes behind a conversation for their first attempts: the rows of each stand together, in order."""
        return await store.rows(CLAIM_LANES, after, most, self._worker, rows_of_a_lane)

    async def claim_due(self, busy: Collection[UUID], most: int) -> list[Row]:
        """Take what is to be tried again, except of the conversations that are busy."""
        return await store.rows(CLAIM_DUE, list(busy), most, self._worker)

    async def renew(self, held: Collection[UUID]) -> set[UUID]:
        """Hold on to what is claimed for another lease; gives what is still ours."""
        return {row["id"] for row in await store.rows(RENEW, list(held), self._worker)}

    async def release(self, unsent: Collection[UUID]) -> None:
        """Give back what was claimed and not sent: no attempt was used up."""
        await store.rows(RELEASE, list(unsent), self._worker)

    async def settle(self, settled: Sequence[Settled]) -> None:
        """Write how attempts ended."""
        await store.rows(
            SETTLE,
            [one.id for one in settled],
            [one.state for one in settled],
            [one.step for one in settled],
            [one.delay for one in settled],
            [one.status for one in settled],
            [one.error for one in settled],
            self._worker,
        )
        users = [one.presence_of for one in settled if one.presence_of is not None]
        if users:
            await store.rows(FREE_PRESENCE, users, self._worker)

    @staticmethod
    async def present(message_id: UUID) -> Row:
        """Read what a message says now; nothing where it is gone with its conversation."""
        return await store.row(PRESENT, message_id) or {"content": None}

    @staticmethod
    async def expire() -> int:
        """Give up on presence that is too old to be of use; gives how many."""
        return len(await store.rows(EXPIRE))

    @staticmethod
    async def forget(before: UUID, most: int) -> int:
        """Delete what was delivered and is older than an id, so many at most; gives how many."""
        return len(await store.rows(FORGET, before, most))
