-- name: lock_conversation
-- The lock of every change: NO KEY, so that it does not wait for what only refers to the row.
SELECT last_seq, last_message_seq FROM conversation_heads WHERE conversation_id = $1 FOR NO KEY UPDATE

-- name: locked_conversation
-- Read by a statement of its own: one that waited for the lock would still see what was there before the wait.
SELECT c.type, c.title, c.metadata, c.owner_id, c.updated_at, me.role,
       is_refused($2, $3) AS is_refused
FROM conversations c
LEFT JOIN participants me ON me.conversation_id = $1 AND me.user_id = $2
WHERE c.id = $1

-- name: create_conversation
-- Two people who create their conversation at the same moment get the same one: the loser waits and finds it.
WITH created AS (
    INSERT INTO conversations (id, type, title, metadata, created_by, owner_id, direct_low, direct_high,
                               creation_key, fingerprint, created_at, updated_at)
    SELECT $1, $2, $3, $4::text::jsonb, $5::varchar, $6::varchar, $7, $8, $10, $11, now(), now()
    WHERE NOT is_refused($5::varchar, $12)
          AND NOT EXISTS (
              SELECT 1 FROM users WHERE id = ANY($9::text[]) AND id <> $5::varchar AND deleted_at IS NOT NULL
          )
    ON CONFLICT (direct_low, direct_high) DO NOTHING
    RETURNING id, created_at
), noticed AS (
    INSERT INTO notices (kind, user_id, conversation_id)
    SELECT 'joined', person.user_id, created.id FROM created, unnest($9::text[]) AS person (user_id)
), head AS (
    INSERT INTO conversation_heads (conversation_id, last_seq, last_message_seq, activity_at)
    SELECT id, 0, 0, created_at FROM created
), announced AS (
    INSERT INTO webhooks (id, event, conversation_id, seq, user_id, data, created_at, traceparent)
    SELECT id, 'conversation.created', id, 0, $5::varchar,
           json_build_object('type', $2::text, 'participantIds', $9::text[])::jsonb, created_at, $14
    FROM created WHERE $13
)
INSERT INTO participants (conversation_id, user_id, role, joined_at, last_read_seq)
SELECT created.id, person.user_id, CASE WHEN person.user_id = $6::varchar THEN 'owner' ELSE 'member' END,
       created.created_at, 0
FROM created, unnest($9::text[]) AS person (user_id)
RETURNING conversation_id

-- name: find_direct_conversation
-- By the unique index of the pair, which is in order.
SELECT id FROM conversations WHERE direct_low = $1 AND direct_high = $2

-- name: find_conversation_created_as
-- By the Idempotency-Key of a group; the digest tells whether the same was asked for.
SELECT id, fingerprint FROM conversations WHERE created_by = $1 AND creation_key = $2

-- name: update_conversation
-- Under the lock of the head, so that nothing else changes the two in between.
UPDATE conversations SET title = $2, metadata = $3::text::jsonb, updated_at = clock_timestamp() WHERE id = $1

-- name: conversation_state
-- Read after a change, so that the event has what the database has.
SELECT title, metadata, owner_id, updated_at FROM conversations WHERE id = $1

-- name: hide_conversation
-- Until a message comes after this seq; the head remembers that somebody has hidden it, so that a send takes the
-- statement that shows it again. Gives nothing where it is hidden already.
WITH head AS (
    UPDATE conversation_heads SET is_hidden = true WHERE conversation_id = $1 RETURNING last_message_seq
)
UPDATE participants SET hidden_seq = head.last_message_seq
FROM head
WHERE conversation_id = $1 AND user_id = $2 AND (hidden_seq IS NULL OR hidden_seq < head.last_message_seq)
RETURNING id

-- name: show_conversation
-- Gives nothing where it was not hidden.
UPDATE participants p SET hidden_seq = NULL
FROM conversation_heads h
WHERE h.conversation_id = $1 AND p.conversation_id = $1 AND p.user_id = $2 AND p.hidden_seq >= h.last_message_seq
RETURNING p.id

-- name: dissolve_conversation
-- What takes long, the messages above all, goes in the background.
WITH gone AS (
    DELETE FROM participants WHERE conversation_id = $1 RETURNING conversation_id, user_id
), remembered AS (
    INSERT INTO former_participants (user_id, conversation_id)
    SELECT user_id, conversation_id FROM gone
    ON CONFLICT DO NOTHING
), head AS (
    DELETE FROM conversation_heads WHERE conversation_id = $1
), noticed AS (
    INSERT INTO notices (kind, conversation_id) VALUES ('dissolved', $1)
), job AS (
    INSERT INTO chores (kind, subject) VALUES ('purge', $1::uuid::text) ON CONFLICT DO NOTHING
)
DELETE FROM conversations WHERE id = $1

-- name: last_seqs
-- OFFSET 0 has each head looked up: the planner does not know how few they are.
SELECT h.conversation_id, h.last_seq
FROM unnest($1::uuid[]) AS wanted (conversation_id)
CROSS JOIN LATERAL (SELECT * FROM conversation_heads WHERE conversation_id = wanted.conversation_id OFFSET 0) h

-- name: unread_count
-- The first thousand messages after the cursor settle it, unless some of them are the reader's own or deleted.
-- Then there may be a hundred thousand more of those, so it is counted sender by sender, by an index that has no
-- deleted ones: a lookup for each sender, and a thousand rows at most.
(
    SELECT CASE WHEN seen < 1000 OR unread = 1000 THEN unread ELSE (
        SELECT count(*) FROM (
            WITH RECURSIVE senders AS (
                (
                    SELECT sender_id FROM messages
                    WHERE conversation_id = c.id AND deleted_at IS NULL
                    ORDER BY sender_id LIMIT 1
                )
                UNION ALL
                SELECT (
                    SELECT sender_id FROM messages
                    WHERE conversation_id = c.id AND deleted_at IS NULL AND sender_id > senders.sender_id
                    ORDER BY sender_id LIMIT 1
                )
                FROM senders WHERE sender_id IS NOT NULL
            )
            SELECT 1
            FROM senders CROSS JOIN LATERAL (
                SELECT 1 FROM messages
                WHERE conversation_id = c.id AND deleted_at IS NULL AND sender_id = senders.sender_id
                      AND seq > me.last_read_seq
                LIMIT 1000
            ) AS theirs
            WHERE senders.sender_id <> me.user_id
            LIMIT 1000
        ) AS unread
    ) END
    FROM (
        SELECT count(*) AS seen,
               count(*) FILTER (WHERE sender_id <> me.user_id AND deleted_at IS NULL) AS unread
        FROM (
            SELECT sender_id, deleted_at FROM messages
            WHERE conversation_id = c.id AND seq > me.last_read_seq
            ORDER BY seq LIMIT 1000
        ) AS first
    ) AS looked
)

-- name: shown_conversations
-- What is shown of the conversations in `me`. OFFSET 0, here and below, has a table looked up row by row: the
-- planner does not know how few they are, and would read all of it. The reactions are those of
-- `message_with_reactions`.
SELECT c.id, c.type, c.title, c.metadata, c.created_by, c.owner_id, c.created_at, c.updated_at,
    me.last_seq, me.activity_at,
    (SELECT count(*) FROM participants WHERE conversation_id = c.id) AS participant_count,
    {unread_count} AS unread_count,
    m.id AS last_message_id, m.conversation_id AS last_message_conversation_id, m.seq AS last_message_seq,
    m.sender_id AS last_message_sender_id, m.content AS last_message_content,
    m.attachments AS last_message_attachments, m.client_message_id AS last_message_client_message_id,
    m.fingerprint AS last_message_fingerprint, m.created_at AS last_message_created_at,
    m.updated_at AS last_message_updated_at, m.deleted_at AS last_message_deleted_at,
    (
        SELECT coalesce(json_agg(json_build_object('emoji', emoji, 'userIds', user_ids, 'count', count)
                                 ORDER BY first_id), '[]')::text
        FROM (
            SELECT emoji, count(*) AS count, min(id) AS first_id,
                   CASE WHEN bool_or(user_id = me.user_id)
                             AND NOT me.user_id = ANY((array_agg(user_id ORDER BY id))[1:50])
                        THEN (array_agg(user_id ORDER BY id))[1:50] || me.user_id::varchar
                        ELSE (array_agg(user_id ORDER BY id))[1:50] END AS user_ids
            FROM reactions WHERE message_id = m.id GROUP BY emoji
        ) AS grouped
    ) AS last_message_reactions
FROM me
CROSS JOIN LATERAL (SELECT * FROM conversations WHERE id = me.conversation_id OFFSET 0) c
LEFT JOIN LATERAL (
    SELECT * FROM messages WHERE conversation_id = me.conversation_id AND seq = me.last_message_seq OFFSET 0
) m ON true

-- name: list_conversations
-- A page of one's list: it reads the narrow rows of all one's conversations, and messages of this page's only.
WITH me AS MATERIALIZED (
    SELECT p.conversation_id, p.user_id, p.last_read_seq, h.last_seq, h.last_message_seq, h.activity_at
    FROM participants p
    CROSS JOIN LATERAL (
        SELECT * FROM conversation_heads WHERE conversation_id = p.conversation_id OFFSET 0
    ) h
    WHERE p.user_id = $1 AND (p.hidden_seq IS NULL OR h.last_message_seq > p.hidden_seq)
          AND ($2::timestamptz IS NULL OR (h.activity_at, p.conversation_id) < ($2, $3::uuid))
    ORDER BY h.activity_at DESC, p.conversation_id DESC
    LIMIT $4
)
{shown_conversations}
ORDER BY me.activity_at DESC, c.id DESC

-- name: get_conversation
-- One conversation as one of its participants sees it.
WITH me AS MATERIALIZED (
    SELECT p.conversation_id, p.user_id, p.last_read_seq, h.last_seq, h.last_message_seq, h.activity_at
    FROM participants p JOIN conversation_heads h USING (conversation_id)
    WHERE p.conversation_id = $1 AND p.user_id = $2
)
{shown_conversations}

-- name: all_conversations
-- A page of conversations by id, as nobody in particular sees them: all is read. It and the next three differ in
-- their condition, because one that may be there or not is one that no index serves.
WITH me AS MATERIALIZED (
    SELECT c.id AS conversation_id, ''::varchar AS user_id, h.last_seq AS last_read_seq, h.last_seq,
           h.last_message_seq, h.activity_at
    FROM conversations c
    CROSS JOIN LATERAL (SELECT * FROM conversation_heads WHERE conversation_id = c.id OFFSET 0) h
    WHERE c.id > $1
    ORDER BY c.id
    LIMIT $2
)
{shown_conversations}
ORDER BY c.id

-- name: direct_conversations
-- As `all_conversations`, of one type.
WITH me AS MATERIALIZED (
    SELECT c.id AS conversation_id, ''::varchar AS user_id, h.last_seq AS last_read_seq, h.last_seq,
           h.last_message_seq, h.activity_at
    FROM conversations c
    CROSS JOIN LATERAL (SELECT * FROM conversation_heads WHERE conversation_id = c.id OFFSET 0) h
    WHERE c.type = 'direct' AND c.id > $1
    ORDER BY c.id
    LIMIT $2
)
{shown_conversations}
ORDER BY c.id

-- name: group_conversations
-- The same.
WITH me AS MATERIALIZED (
    SELECT c.id AS conversation_id, ''::varchar AS user_id, h.last_seq AS last_read_seq, h.last_seq,
           h.last_message_seq, h.activity_at
    FROM conversations c
    CROSS JOIN LATERAL (SELECT * FROM conversation_heads WHERE conversation_id = c.id OFFSET 0) h
    WHERE c.type = 'group' AND c.id > $1
    ORDER BY c.id
    LIMIT $2
)
{shown_conversations}
ORDER BY c.id

-- name: conversations_of_user
-- As `all_conversations`, of a user, and of a type where $4 names one.
WITH me AS MATERIALIZED (
    SELECT c.id AS conversation_id, ''::varchar AS user_id, h.last_seq AS last_read_seq, h.last_seq,
           h.last_message_seq, h.activity_at
    FROM participants p JOIN conversations c ON c.id = p.conversation_id
    CROSS JOIN LATERAL (SELECT * FROM conversation_heads WHERE conversation_id = c.id OFFSET 0) h
    WHERE p.user_id = $3 AND p.conversation_id > $1 AND ($4::text IS NULL OR c.type = $4)
    ORDER BY c.id
    LIMIT $2
)
{shown_conversations}
ORDER BY c.id
