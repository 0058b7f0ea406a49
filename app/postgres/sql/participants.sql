-- name: membership
-- A stranger and an unknown conversation are told apart by one statement.
SELECT EXISTS (SELECT 1 FROM conversations WHERE id = $1) AS known,
       EXISTS (SELECT 1 FROM participants WHERE conversation_id = $1 AND user_id = $2) AS member

-- name: memberships
-- The same of many conversations. OFFSET 0 has each looked up: the planner would hash all that the user is in.
SELECT wanted.conversation_id,
       EXISTS (SELECT 1 FROM conversations WHERE id = wanted.conversation_id OFFSET 0) AS known,
       EXISTS (
           SELECT 1 FROM participants WHERE conversation_id = wanted.conversation_id AND user_id = $2 OFFSET 0
       ) AS member
FROM unnest($1::uuid[]) AS wanted (conversation_id)

-- name: list_participants
-- The reader first, then in the order of joining, at most so many of each conversation.
SELECT p.*, u.display_name, u.avatar_url
FROM unnest($1::uuid[]) AS wanted (conversation_id)
CROSS JOIN LATERAL (
    (
        SELECT *, 0 AS place FROM participants WHERE conversation_id = wanted.conversation_id AND user_id = $2
    )
    UNION ALL
    (
        SELECT *, 1 AS place FROM participants
        WHERE conversation_id = wanted.conversation_id AND user_id <> $2
        ORDER BY joined_at, user_id
        LIMIT $3
    )
    ORDER BY place, joined_at, user_id
    LIMIT $3
) AS p
LEFT JOIN LATERAL (SELECT * FROM users WHERE id = p.user_id OFFSET 0) u ON u.deleted_at IS NULL
ORDER BY p.conversation_id, p.place, p.joined_at, p.user_id

-- name: named_participants
-- OFFSET 0 has each looked up one by one.
SELECT p.*, u.display_name, u.avatar_url
FROM unnest($2::text[]) AS named (user_id)
CROSS JOIN LATERAL (
    SELECT * FROM participants WHERE conversation_id = $1 AND user_id = named.user_id OFFSET 0
) p
LEFT JOIN LATERAL (SELECT * FROM users WHERE id = p.user_id OFFSET 0) u ON u.deleted_at IS NULL

-- name: participant_count
-- Read under the lock of the head where it bounds what is added.
SELECT count(*) AS count FROM participants WHERE conversation_id = $1

-- name: joined_since
-- For a client that was away; no more than a thousand, so that its answer is bounded.
SELECT conversation_id FROM participants WHERE user_id = $1 AND joined_at >= $2 ORDER BY joined_at LIMIT 1000

-- name: admissions
-- What sockets follow from the moment they are connected, of all who connect at once, by the place of their token;
-- without a conversation, that it was issued before its user was deleted.
WITH token AS (
    SELECT * FROM unnest($1::varchar[], $2::bigint[]) WITH ORDINALITY AS input (user_id, second, place)
)
SELECT token.place, mine.conversation_id
FROM token
CROSS JOIN LATERAL (SELECT conversation_id FROM participants WHERE user_id = token.user_id OFFSET 0) mine
UNION ALL
SELECT token.place, NULL
FROM token
CROSS JOIN LATERAL (
    SELECT 1 FROM users
    WHERE id = token.user_id AND refused_until IS NOT NULL AND is_refused(token.user_id, token.second) OFFSET 0
) revoked

-- name: add_participants
-- Those who are in already are left as they are; a newcomer starts with nothing unread.
WITH entered AS (
    INSERT INTO participants (conversation_id, user_id, role, joined_at, last_read_seq)
    SELECT $1, person.user_id, 'member', clock_timestamp(), $3
    FROM unnest($2::text[]) WITH ORDINALITY AS person (user_id, place)
    ORDER BY person.place
    ON CONFLICT (conversation_id, user_id) DO NOTHING
    RETURNING user_id, role, joined_at, last_read_seq, last_read_at
), noticed AS (
    INSERT INTO notices (kind, user_id, conversation_id) SELECT 'joined', user_id, $1 FROM entered
)
SELECT * FROM entered ORDER BY joined_at

-- name: remove_participant
-- Former participants are remembered, because their messages are there to be erased with them.
WITH gone AS (
    DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2 RETURNING conversation_id, user_id
), remembered AS (
    INSERT INTO former_participants (user_id, conversation_id)
    SELECT user_id, conversation_id FROM gone
    ON CONFLICT DO NOTHING
)
SELECT user_id FROM gone

-- name: next_owner
-- The one who has been there longest takes over, then the one with the lower id.
SELECT user_id FROM participants WHERE conversation_id = $1 ORDER BY joined_at, user_id COLLATE "C" LIMIT 1

-- name: hand_over_group
-- The owner stands in both tables: one statement, so that they never differ.
WITH owned AS (UPDATE conversations SET owner_id = $2, updated_at = clock_timestamp() WHERE id = $1)
UPDATE participants SET role = 'owner' WHERE conversation_id = $1 AND user_id = $2

-- name: groups_of_deleted_user
-- Those that somebody was in when they were deleted: what they entered since, having come back, they stay in.
SELECT p.conversation_id
FROM participants p
JOIN conversations c ON c.id = p.conversation_id
JOIN users u ON u.id = p.user_id
WHERE p.user_id = $1 AND c.type = 'group' AND p.joined_at < to_timestamp(u.refused_until + 1)
ORDER BY p.conversation_id
LIMIT $2
