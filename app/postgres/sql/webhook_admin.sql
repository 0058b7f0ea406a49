-- name: shown_webhook
-- What operators see; when it is due matters only while it is pending.
id, event, state, attempts, last_status_code, last_error, created_at, delivered_at,
CASE WHEN state IN ('new', 'due') THEN due_at END AS due_at

-- name: list_webhooks
-- Two walks along the index of state and id. Compared and sorted by both, because with `state = $1` a plan that
-- knows no values walks along the ids of all instead, past a million that were delivered.
SELECT * FROM (
    (SELECT {shown_webhook} FROM webhooks WHERE (state, id) > ($1, $3) AND state <= $1 ORDER BY state, id LIMIT $4)
    UNION ALL
    (SELECT {shown_webhook} FROM webhooks WHERE (state, id) > ($2, $3) AND state <= $2 ORDER BY state, id LIMIT $4)
) AS found
ORDER BY id LIMIT $4

-- name: list_all_webhooks
-- By id, which is by age.
SELECT {shown_webhook} FROM webhooks WHERE id > $1 ORDER BY id LIMIT $2

-- name: replay_webhook
-- One that waits for its first attempt keeps its place; one that is under way is left alone. Of a user's presence
-- only the newest may be replayed.
UPDATE webhooks w
SET state = CASE WHEN state = 'new' THEN 'new' ELSE 'due' END, step = 0, delivered_at = NULL,
    due_at = CASE WHEN lease IS NULL THEN now() ELSE due_at END,
    expires_at = CASE WHEN expires_at IS NOT NULL THEN now() + interval '10 minutes' END
WHERE id = $1 AND NOT EXISTS (
    SELECT 1 FROM webhooks newer
    WHERE w.conversation_id IS NULL
          AND newer.conversation_id IS NULL AND newer.user_id = w.user_id AND newer.seq > w.seq
)
RETURNING id

-- name: webhook_exists
-- Tells a webhook that was never there from one that must not be replayed.
SELECT 1 FROM webhooks WHERE id = $1
