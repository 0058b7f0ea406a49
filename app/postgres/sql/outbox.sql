-- name: append_webhooks
-- In the transaction of the change: a webhook is committed with it or not at all.
INSERT INTO webhooks (id, conversation_id, event, seq, user_id, message_id, data, created_at, traceparent)
SELECT added.id, $1, added.event, added.seq, added.user_id, added.message_id, added.data::jsonb,
       added.created_at, $9
FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::uuid[], $7::text[], $8::timestamptz[])
     AS added (id, event, seq, user_id, message_id, data, created_at)

-- name: append_presence_webhooks
-- A newer transition takes the place of one that was not delivered; where that is under way, it waits for its end.
-- One that is late, because its pod was, is of no use any more, and a master must never see it after a newer one.
INSERT INTO webhooks (id, event, seq, user_id, state, created_at, expires_at, traceparent)
SELECT added.id, added.event, added.seq, added.user_id, 'due', added.at, added.at + interval '10 minutes',
       added.traceparent
FROM unnest($1::uuid[], $2::varchar[], $3::bigint[], $4::varchar[], $5::timestamptz[], $6::varchar[])
     AS added (id, event, seq, user_id, at, traceparent)
WHERE NOT EXISTS (
    SELECT 1 FROM webhooks w WHERE w.conversation_id IS NULL AND w.user_id = added.user_id AND w.seq >= added.seq
)
ORDER BY added.user_id
ON CONFLICT (user_id) WHERE conversation_id IS NULL AND state = 'due' DO UPDATE
SET id = EXCLUDED.id, event = EXCLUDED.event, seq = EXCLUDED.seq, created_at = EXCLUDED.created_at,
    expires_at = EXCLUDED.expires_at, traceparent = EXCLUDED.traceparent,
    attempts = 0, step = 0, last_status_code = NULL, last_error = NULL,
    due_at = CASE WHEN webhooks.lease IS NULL THEN clock_timestamp() ELSE webhooks.due_at END
WHERE webhooks.seq < EXCLUDED.seq

-- name: overdue_webhooks
-- Something that nobody has taken for a minute.
SELECT 1 FROM (
    (SELECT 1 FROM webhooks WHERE state = 'new' AND due_at < now() - interval '60 seconds' LIMIT 1)
    UNION ALL
    (SELECT 1 FROM webhooks WHERE state = 'due' AND due_at < now() - interval '60 seconds' LIMIT 1)
) AS overdue
LIMIT 1
