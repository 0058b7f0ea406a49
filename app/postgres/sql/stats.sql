-- name: bounded_counts
-- The counts of the tables that grow with use, each up to the bound, and what the planner knows of them.
SELECT (SELECT count(*) FROM (SELECT 1 FROM users WHERE deleted_at IS NULL LIMIT $1) counted) AS users,
       (SELECT count(*) FROM (SELECT 1 FROM conversations LIMIT $1) counted) AS conversations,
       (SELECT count(*) FROM (SELECT 1 FROM messages LIMIT $1) counted) AS messages,
       (SELECT count(*) FROM (SELECT 1 FROM webhooks WHERE state IN ('new', 'due') LIMIT $1) counted) AS pending,
       (SELECT count(*) FROM (SELECT 1 FROM webhooks WHERE state = 'dead' LIMIT $1) counted) AS dead

-- name: estimated_counts
-- What the planner knows of the tables: cheap however large they are.
SELECT relname AS name, reltuples::bigint AS count FROM pg_class
WHERE oid IN ('users'::regclass, 'conversations'::regclass, 'messages'::regclass)

-- name: messages_of_last_day
-- The upper bound leaves nothing out: it tells the planner that a day is little, who would guess a third of it
-- all.
SELECT count(*) AS count FROM (
    SELECT 1 FROM messages WHERE id BETWEEN $1 AND 'ffffffff-ffff-ffff-ffff-ffffffffffff' LIMIT $2
) counted

-- name: sampled_messages
-- The first messages of each slice of time, and the last of these. Where a slice ends is looked at afterwards: the
-- planner takes a range between two ids for a short one, and would read and sort all of it.
SELECT taken.count, taken.last
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS slice (start, stop, place)
CROSS JOIN LATERAL (
    SELECT count(*) AS count, (array_agg(id))[count(*)::int] AS last
    FROM (SELECT id FROM messages WHERE id >= slice.start ORDER BY id LIMIT $3) first
    WHERE id < slice.stop
) taken
ORDER BY slice.place
