-- name: snapshot
-- What a pod has seen when it starts: all that is committed by now.
SELECT pg_current_snapshot()::text AS snapshot

-- name: committed_since
-- What was written by transactions that were not seen: $2 are those that ran at the last look, $1 the first that
-- had not begun then. The upper bound leaves nothing out: it tells the planner that the range is short, who would
-- guess a third of the table. WITH TIES: a transaction is read whole, so that the next look begins behind it.
WITH written AS MATERIALIZED (
    SELECT * FROM (
        (SELECT xid, conversation_id, seq FROM messages
         WHERE xid = ANY($2::text[]::xid8[])
         ORDER BY xid FETCH FIRST ($3::bigint) ROWS WITH TIES)
        UNION ALL
        (SELECT xid, conversation_id, seq FROM messages
         WHERE xid BETWEEN $1::text::xid8 AND pg_snapshot_xmax(pg_current_snapshot())
         ORDER BY xid FETCH FIRST ($3::bigint) ROWS WITH TIES)
        UNION ALL
        (SELECT xid, conversation_id, seq FROM events
         WHERE xid = ANY($2::text[]::xid8[])
         ORDER BY xid FETCH FIRST ($3::bigint) ROWS WITH TIES)
        UNION ALL
        (SELECT xid, conversation_id, seq FROM events
         WHERE xid BETWEEN $1::text::xid8 AND pg_snapshot_xmax(pg_current_snapshot())
         ORDER BY xid FETCH FIRST ($3::bigint) ROWS WITH TIES)
    ) AS page
    ORDER BY xid FETCH FIRST ($3::bigint) ROWS WITH TIES
)
SELECT pg_current_snapshot()::text AS snapshot, NULL AS xid, NULL AS conversation_id, NULL AS seq
UNION ALL
SELECT NULL, xid::text, conversation_id, seq FROM written

-- name: notices_since
-- The same of the notices. What ended the hiding of a conversation is the first message that was stored in the
-- same transaction.
WITH noticed AS MATERIALIZED (
    SELECT * FROM (
        (SELECT xid, id, kind, user_id, conversation_id, created_at FROM notices
         WHERE xid = ANY($2::text[]::xid8[])
         ORDER BY xid FETCH FIRST ($3::bigint) ROWS WITH TIES)
        UNION ALL
        (SELECT xid, id, kind, user_id, conversation_id, created_at FROM notices
         WHERE xid BETWEEN $1::text::xid8 AND pg_snapshot_xmax(pg_current_snapshot())
         ORDER BY xid FETCH FIRST ($3::bigint) ROWS WITH TIES)
    ) AS page
    ORDER BY xid FETCH FIRST ($3::bigint) ROWS WITH TIES
)
SELECT pg_current_snapshot()::text AS snapshot, NULL AS xid, NULL AS id, NULL AS kind, NULL AS user_id,
       NULL AS conversation_id, NULL AS at, NULL AS seq
UNION ALL
SELECT NULL, xid::text, id, kind, user_id, conversation_id, extract(epoch FROM created_at)::float8,
       CASE WHEN kind = 'revealed' THEN (
           SELECT min(seq) FROM messages WHERE xid = noticed.xid AND conversation_id = noticed.conversation_id
       ) END
FROM noticed
