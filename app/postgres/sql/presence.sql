-- name: contacts
-- The next conversations of each user, and who is in them: of a large group one more than it takes to be large.
SELECT who.user_id, mine.conversation_id, probe.user_ids
FROM unnest($1::varchar[], $2::uuid[]) AS who (user_id, after)
CROSS JOIN LATERAL (
    SELECT conversation_id FROM participants
    WHERE user_id = who.user_id AND conversation_id > who.after
    ORDER BY conversation_id LIMIT $3
) AS mine
CROSS JOIN LATERAL (
    SELECT array_agg(few.user_id) AS user_ids FROM (
        SELECT user_id FROM participants WHERE conversation_id = mine.conversation_id LIMIT $4 + 1
    ) AS few
) AS probe
ORDER BY mine.conversation_id

-- name: acquainted_users
-- Which of these share a conversation with somebody, large groups aside. Nobody is looked for past the first such
-- conversation, and none is read further than shows that it is large. OFFSET 0 has each looked up one by one.
SELECT asked.user_id
FROM unnest($2::varchar[]) AS asked (user_id)
CROSS JOIN LATERAL (
    SELECT 1
    FROM (SELECT conversation_id FROM participants WHERE user_id = asked.user_id OFFSET 0) AS theirs
    CROSS JOIN LATERAL (
        SELECT 1 FROM participants WHERE conversation_id = theirs.conversation_id AND user_id = $1 OFFSET 0
    ) AS mine
    WHERE (
        SELECT count(*) FROM (
            SELECT 1 FROM participants WHERE conversation_id = theirs.conversation_id LIMIT $3 + 1
        ) AS probe
    ) <= $3
    LIMIT 1
) AS shared

-- name: last_presence_webhooks
-- The last webhook about the presence of each of the next users, delivered or not.
SELECT DISTINCT ON (user_id) user_id, event, seq FROM webhooks
WHERE conversation_id IS NULL AND user_id > $1
ORDER BY user_id, seq DESC
LIMIT $2
