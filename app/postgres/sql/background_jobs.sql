-- name: add_job
-- Under a new id, whoever is at it already does not end it: it is begun again.
INSERT INTO chores (kind, subject) VALUES ($1, $2)
ON CONFLICT (kind, subject) DO UPDATE SET id = EXCLUDED.id, leased_until = NULL

-- name: claim_job
-- The oldest job that no pod has a lease of. SKIP LOCKED: pods that ask at the same time get different ones.
UPDATE chores SET leased_until = now() + interval '30 seconds'
WHERE id = (
    SELECT id FROM chores WHERE leased_until IS NULL OR leased_until < now()
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING id, kind, subject

-- name: renew_job
-- With each piece, so that no other pod takes up what is under way.
UPDATE chores SET leased_until = now() + interval '30 seconds' WHERE id = $1

-- name: finish_job
-- By its id: a job that was added again meanwhile has another one, and is begun again.
DELETE FROM chores WHERE id = $1

-- name: purge_reactions
-- An array, so that the rows are looked up one by one: for a join the planner may read the whole table.
DELETE FROM reactions WHERE message_id = ANY (ARRAY(
    SELECT id FROM messages WHERE conversation_id = $1 ORDER BY seq LIMIT $2
))

-- name: purge_messages
-- After their reactions, which are found by them.
DELETE FROM messages WHERE id = ANY (ARRAY(
    SELECT id FROM messages WHERE conversation_id = $1 ORDER BY seq LIMIT $2
)) RETURNING id

-- name: purge_events
-- By an array of ids, as above.
DELETE FROM events WHERE id = ANY (ARRAY(
    SELECT id FROM events WHERE conversation_id = $1 ORDER BY seq LIMIT $2
)) RETURNING id

-- name: conversations_ever_joined
-- Where somebody's messages may be: where they are, and where they were.
SELECT conversation_id FROM participants WHERE user_id = $1
UNION
SELECT conversation_id FROM former_participants WHERE user_id = $1
ORDER BY conversation_id

-- name: messages_to_erase
-- What somebody wrote in a conversation and has not deleted, a piece at a time. What they wrote since, having come
-- back, stays.
SELECT max(seq) AS last_seq, array_agg(id ORDER BY seq) AS ids
FROM (
    SELECT id, seq FROM messages
    WHERE conversation_id = $1 AND sender_id = $2 AND deleted_at IS NULL AND seq > $3
          AND created_at < (SELECT to_timestamp(refused_until + 1) FROM users WHERE id = $2)
    ORDER BY seq LIMIT $4
) AS page

-- name: erase_messages
-- Only those that are not deleted yet: whoever is at the same piece a second time changes nothing.
UPDATE messages SET content = '', attachments = '[]', deleted_at = date_trunc('milliseconds', clock_timestamp())
WHERE id = ANY($1::uuid[]) AND deleted_at IS NULL
RETURNING id, sender_id, deleted_at

-- name: forget_notices
-- Both are written under the head's lock or never read in order, so that what goes is a beginning.
DELETE FROM notices WHERE id IN (
    SELECT id FROM notices WHERE created_at < now() - interval '1 hour' ORDER BY created_at LIMIT $1
) RETURNING id

-- name: forget_events
-- As `forget_notices`; the days are EVENTS_RETENTION_DAYS.
DELETE FROM events WHERE id IN (
    SELECT id FROM events WHERE created_at < now() - make_interval(days => $2) ORDER BY created_at LIMIT $1
) RETURNING id
