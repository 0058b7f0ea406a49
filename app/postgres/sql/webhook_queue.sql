-- name: claimed_columns
-- What a worker needs to deliver a webhook and to settle it.
w.id, w.event, w.conversation_id, w.seq, w.user_id, w.message_id, w.data, w.traceparent, w.created_at,
    w.expires_at, w.step, w.lease

-- name: claim_lanes
-- From lane to lane by the index, so that a conversation with a million rows costs what one with a single row
-- does. The first row is locked and looked at anew: who was faster has its lease there. Of the rows behind it
-- those are claimed that are free, up to the first that is not: what comes after that would overtake it.
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
), taken AS MATERIALIZED (
    SELECT conversation_id FROM webhooks
    WHERE id = ANY (ARRAY(SELECT id FROM firsts WHERE due_at <= now() LIMIT $2))
          AND state = 'new' AND due_at <= now()
    FOR UPDATE SKIP LOCKED
), lane AS MATERIALIZED (
    SELECT one.id, row_number() OVER (PARTITION BY taken.conversation_id ORDER BY one.seq) AS place
    FROM taken CROSS JOIN LATERAL (
        SELECT id, seq FROM webhooks WHERE state = 'new' AND conversation_id = taken.conversation_id
        ORDER BY seq LIMIT $4
    ) one
), free AS MATERIALIZED (
    SELECT id, conversation_id, seq FROM webhooks
    WHERE id = ANY (ARRAY(SELECT id FROM lane)) AND state = 'new'
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE webhooks w SET due_at = now() + interval '30 seconds', lease = $3
    WHERE w.id = ANY (ARRAY(
        SELECT id FROM lane JOIN (
            SELECT id, row_number() OVER (PARTITION BY conversation_id ORDER BY seq) AS place FROM free
        ) AS numbered USING (id, place)
    ))
    RETURNING {claimed_columns}
)
SELECT * FROM claimed ORDER BY conversation_id, seq

-- name: claim_due
-- What hangs for one conversation must not take the place of all others: few of each at a time, and where it fills
-- all that is looked at, the next claim looks behind it. What it looks at is bounded before anything is left out.
-- The pair is for the planner: it takes a range between two times for a short one, and would read and sort it all.
WITH looked_at AS MATERIALIZED (
    SELECT id, due_at, expires_at, conversation_id,
           CASE WHEN conversation_id IS NULL THEN user_id END AS presence_of
    FROM webhooks
    WHERE state = 'due' AND due_at <= now()
          AND (due_at, id) > (coalesce($4::timestamptz, '-infinity'), 'ffffffff-ffff-ffff-ffff-ffffffffffff')
    ORDER BY due_at FETCH FIRST 5000 ROWS WITH TIES
), candidates AS MATERIALIZED (
    SELECT id, due_at, row_number() OVER (PARTITION BY conversation_id, presence_of ORDER BY due_at) AS place
    FROM looked_at
    WHERE (expires_at IS NULL OR expires_at > now())
          AND (conversation_id IS NULL OR conversation_id <> ALL($1::uuid[]))
), taken AS MATERIALIZED (
    SELECT id FROM webhooks
    WHERE id = ANY (ARRAY(
        SELECT id FROM candidates WHERE place <= 4 ORDER BY due_at LIMIT $2
    )) AND state = 'due' AND due_at <= now()
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE webhooks w SET due_at = now() + interval '30 seconds', lease = $3
    WHERE w.id = ANY (ARRAY(SELECT id FROM taken))
    RETURNING {claimed_columns}
)
SELECT claimed.*, looked.until AS looked_until
FROM (SELECT CASE WHEN count(*) >= 5000 THEN max(due_at) END AS until FROM looked_at) looked
LEFT JOIN claimed ON true
ORDER BY claimed.created_at

-- name: messages_of_webhooks
-- As they are now; the content is NULL where one is gone with its conversation. OFFSET 0 has each looked up.
SELECT wanted.id, m.content, m.attachments, m.client_message_id, m.deleted_at
FROM unnest($1::uuid[]) AS wanted (id)
LEFT JOIN LATERAL (SELECT * FROM messages WHERE id = wanted.id OFFSET 0) m ON true

-- name: lock_leased
-- Locks what is claimed, by the id and the lease of each, in the one order: by user and id.
WITH mine AS MATERIALIZED (
    SELECT w.id FROM webhooks w
    JOIN unnest($1::uuid[], $2::uuid[]) AS leased (id, lease)
         ON w.id = leased.id AND w.lease = leased.lease
    ORDER BY w.user_id, w.id
    FOR UPDATE OF w
)

-- name: lock_leased_presence
-- A transition that came while an older one was under way has taken its row, and waits for the end of its lease.
WITH mine AS MATERIALIZED (
    SELECT w.id FROM webhooks w
    JOIN unnest($1::text[], $2::uuid[]) AS leased (user_id, lease)
         ON w.user_id = leased.user_id AND w.lease = leased.lease
    WHERE w.conversation_id IS NULL AND w.state = 'due'
    ORDER BY w.user_id, w.id
    FOR UPDATE OF w
)

-- name: renew_leases
-- Gives those whose lease is still ours.
{lock_leased}
UPDATE webhooks w SET due_at = now() + interval '30 seconds'
FROM mine WHERE w.id = mine.id RETURNING w.id

-- name: renew_presence_leases
-- The same of presence, which is found by its user: its row may have a newer id.
{lock_leased_presence}
UPDATE webhooks w SET due_at = now() + interval '30 seconds'
FROM mine WHERE w.id = mine.id RETURNING w.id

-- name: settle_webhooks
-- A worker that lost the lease settles nothing: another one has the webhook.
{lock_leased}
UPDATE webhooks w
SET state = settled.state, attempts = w.attempts + 1, step = settled.step, lease = NULL,
    due_at = now() + settled.delay * interval '1 second',
    last_status_code = settled.status, last_error = settled.error,
    delivered_at = CASE WHEN settled.state = 'delivered' THEN clock_timestamp() END
FROM mine JOIN unnest($1::uuid[], $3::text[], $4::int[], $5::float8[], $6::int[], $7::text[])
     AS settled (id, state, step, delay, status, error) USING (id)
WHERE w.id = mine.id

-- name: release_webhooks
-- Due at once, for any worker; no attempt is counted.
{lock_leased}
UPDATE webhooks w SET due_at = now(), lease = NULL FROM mine WHERE w.id = mine.id

-- name: release_presence_webhooks
-- The same of presence. Also after an attempt, for a newer transition that waits in the row.
{lock_leased_presence}
UPDATE webhooks w SET due_at = now(), lease = NULL FROM mine WHERE w.id = mine.id

-- name: webhook_backlog
-- How much waits, counted up to a bound, and for how long the oldest has been due. What was never tried is due
-- from the moment it was written, and in the order of the ids.
SELECT (
           SELECT count(*) FROM (SELECT 1 FROM webhooks WHERE state IN ('new', 'due') LIMIT 100000) counted
       ) AS pending,
       extract(epoch FROM now() - least(
           (SELECT created_at FROM webhooks WHERE state = 'new' ORDER BY id LIMIT 1),
           (SELECT min(due_at) FROM webhooks WHERE state = 'due'),
           now()
       ))::float8 AS oldest

-- name: expire_presence_webhooks
-- Presence that is too old is of no use to the master. One that is under way is left to its worker.
UPDATE webhooks SET state = 'dead', lease = NULL, last_error = coalesce(last_error, 'not delivered in time')
WHERE id = ANY (ARRAY(
    SELECT id FROM webhooks
    WHERE conversation_id IS NULL AND state = 'due' AND expires_at <= now() AND due_at <= now()
    FOR UPDATE SKIP LOCKED
))
RETURNING id

-- name: forget_webhooks
-- The oldest that were delivered, by id, a piece at a time. Dead ones stay for a replay.
DELETE FROM webhooks WHERE id = ANY (ARRAY(
    SELECT id FROM webhooks WHERE state = 'delivered' AND id < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING id
