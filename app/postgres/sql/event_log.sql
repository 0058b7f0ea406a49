-- name: append_events
-- The entries that a change adds to the log, and the head that they move on, in one round trip.
WITH logged AS (
    INSERT INTO events (conversation_id, seq, event, message_id, data)
    SELECT $1, entry.seq, entry.event, entry.message_id, entry.data::jsonb
    FROM unnest($2::bigint[], $3::text[], $4::uuid[], $5::text[]) AS entry (seq, event, message_id, data)
)
UPDATE conversation_heads SET last_seq = $6 WHERE conversation_id = $1
RETURNING conversation_id

-- name: changes_after
-- All gaps of a pod at once: what each conversation has after the seq that was delivered last. A message is its
-- own entry in the log; the content of a message and the profile of a user are read as they are now. OFFSET 0 has
-- it looked up entry by entry: the planner takes each gap for a large one, and would read whole tables.
SELECT gap.conversation_id, log.seq, log.event, log.data, log.message_id,
       m.sender_id, m.content, m.attachments, m.client_message_id, m.created_at, m.updated_at, m.deleted_at,
       u.display_name, u.avatar_url
FROM unnest($1::uuid[], $2::bigint[]) AS gap (conversation_id, delivered)
CROSS JOIN LATERAL (
    (
        SELECT seq, 'message:new' AS event, NULL::jsonb AS data, id AS message_id
        FROM messages
        WHERE conversation_id = gap.conversation_id AND seq > gap.delivered
        ORDER BY seq LIMIT $3
    )
    UNION ALL
    (
        SELECT seq, event, data, message_id
        FROM events
        WHERE conversation_id = gap.conversation_id AND seq > gap.delivered
        ORDER BY seq LIMIT $3
    )
    ORDER BY seq
    LIMIT $3
) AS log
LEFT JOIN LATERAL (SELECT * FROM messages WHERE id = log.message_id OFFSET 0) m ON true
LEFT JOIN LATERAL (
    SELECT * FROM users WHERE id = log.data ->> 'userId' AND log.event = 'participant:added' OFFSET 0
) u ON u.deleted_at IS NULL
ORDER BY gap.conversation_id, log.seq

-- name: log_positions
-- Where conversations stand, and whether the entry after a seq of each is still there.
SELECT h.conversation_id, h.last_seq,
       EXISTS (SELECT 1 FROM messages m WHERE m.conversation_id = h.conversation_id AND m.seq = wanted.seq + 1)
       OR EXISTS (SELECT 1 FROM events e WHERE e.conversation_id = h.conversation_id AND e.seq = wanted.seq + 1)
       AS is_kept
FROM unnest($1::uuid[], $2::bigint[]) AS wanted (conversation_id, seq)
CROSS JOIN LATERAL (SELECT * FROM conversation_heads WHERE conversation_id = wanted.conversation_id OFFSET 0) h
