-- name: advance_read_cursor
-- The cursor never moves back. The message that it stands at is named in the event.
WITH target AS (
    SELECT m.id, m.seq
    FROM conversation_heads h JOIN messages m ON m.conversation_id = h.conversation_id
    WHERE h.conversation_id = $1 AND m.seq = coalesce($3::bigint, h.last_message_seq)
)
UPDATE participants p
SET last_read_seq = target.seq, last_read_at = clock_timestamp()
FROM target
WHERE p.conversation_id = $1 AND p.user_id = $2 AND p.last_read_seq < target.seq AND NOT is_refused($2, $5)
RETURNING p.last_read_seq, p.last_read_at, target.id AS message_id,
          (SELECT count(*) > $4 FROM (
              SELECT 1 FROM participants WHERE conversation_id = $1 LIMIT $4::bigint + 1
          ) AS counted) AS is_large

-- name: read_cursor
-- Where it stands if it was not moved, and whether that was because the token was revoked.
SELECT last_read_seq, coalesce(last_read_at, joined_at) AS last_read_at, is_refused($2, $3) AS is_refused
FROM participants WHERE conversation_id = $1 AND user_id = $2
