-- name: sent_messages
-- Many sends in one statement: seq, membership, message and webhook of each. This and the next two are parts of
-- `send_messages` and `send_messages_waiting`, whose `head` locks the heads in one order before the membership is
-- read. The membership is locked as well, because a removal that commits meanwhile must be seen: a locked row is
-- read anew. Each refuses a deleted user too, by when the token was issued.
moment AS MATERIALIZED (
    SELECT clock_timestamp() AS at FROM (SELECT count(*) FROM head) locked
), accepted AS MATERIALIZED (
    SELECT input.*, moment.at,
           head.last_seq + row_number() OVER (PARTITION BY head.conversation_id ORDER BY input.place) AS seq
    FROM head
    JOIN unnest($1::uuid[], $2::uuid[], $3::varchar[], $4::text[], $5::text[], $6::varchar[], $7::bytea[],
                $8::bigint[], $9::varchar[])
         WITH ORDINALITY AS input (id, conversation_id, sender_id, content, attachments, client_message_id,
                                   fingerprint, token_second, traceparent, place) USING (conversation_id)
    CROSS JOIN LATERAL (
        SELECT 1 FROM participants p
        WHERE p.conversation_id = head.conversation_id AND p.user_id = input.sender_id
        FOR KEY SHARE
    ) member
    CROSS JOIN moment

-- name: sent_before
-- A message that was sent before under the same id gives nothing, so that only two of one moment meet the unique
-- index. OFFSET 0 has it looked up one by one: of tables that were empty a moment ago the planner would read the
-- whole.
EXISTS (
              SELECT 1 FROM messages m
              WHERE m.conversation_id = input.conversation_id AND m.sender_id = input.sender_id
                    AND m.client_message_id = input.client_message_id
              OFFSET 0
          )

-- name: stored_messages
-- The webhook has the id of its message, which no other has.
numbered AS (
    UPDATE conversation_heads h
    SET last_seq = latest.seq, last_message_seq = latest.seq, activity_at = latest.at, is_hidden = false
    FROM (SELECT conversation_id, at, max(seq) AS seq FROM accepted GROUP BY conversation_id, at) latest
    WHERE h.conversation_id = latest.conversation_id AND h.conversation_id = ANY($2::uuid[])
), stored AS (
    INSERT INTO messages (id, conversation_id, seq, sender_id, content, attachments, client_message_id,
                          fingerprint, created_at, updated_at)
    SELECT id, conversation_id, seq, sender_id, content, attachments::jsonb, client_message_id, fingerprint, at, at
    FROM accepted ORDER BY conversation_id, seq
), announced AS (
    INSERT INTO webhooks (id, event, conversation_id, seq, user_id, message_id, created_at, traceparent)
    SELECT id, 'message.created', conversation_id, seq, sender_id, id, at, traceparent FROM accepted WHERE $10
)

-- name: send_messages
-- Nobody's head is waited for: what is busy, or hidden, is left out and takes `send_messages_waiting`, because one
-- slow conversation must not hold up all others. Gives what was stored, by its place among the values, and the
-- conversations whose heads were free. Only those senders are asked of whom it is worth the call.
WITH head AS MATERIALIZED (
    SELECT conversation_id, last_seq, last_message_seq, is_hidden FROM conversation_heads
    WHERE conversation_id = ANY($2::uuid[]) AND NOT is_hidden
    ORDER BY conversation_id FOR NO KEY UPDATE SKIP LOCKED
), {sent_messages}
    WHERE NOT EXISTS (
              SELECT 1 FROM users
              WHERE id = input.sender_id AND refused_until IS NOT NULL
                    AND is_refused(input.sender_id, input.token_second)
              OFFSET 0
          )
          AND NOT {sent_before}
), {stored_messages}
SELECT place, NULL AS conversation_id, seq, at, false AS is_revealing FROM accepted
UNION ALL
SELECT NULL, conversation_id, NULL, NULL, NULL FROM head

-- name: send_messages_waiting
-- The same for one conversation whose head is waited for: `is_refused` reads what is there when it is called, so
-- that a deletion during the wait is seen. Whoever has hidden the conversation is shown it again by the first
-- message. FOR KEY SHARE would not see a hiding that commits meanwhile, so `pair` is read anew; and only where a
-- direct conversation was hidden.
WITH head AS MATERIALIZED (
    SELECT conversation_id, last_seq, last_message_seq, is_hidden FROM conversation_heads
    WHERE conversation_id = ANY($2::uuid[])
    ORDER BY conversation_id FOR NO KEY UPDATE
), {sent_messages}
    WHERE NOT is_refused(input.sender_id, input.token_second)
          AND NOT {sent_before}
), {stored_messages}
, pair AS MATERIALIZED (
    SELECT user_id, hidden_seq FROM participants WHERE conversation_id = ANY($2::uuid[]) FOR SHARE
), revealed AS MATERIALIZED (
    SELECT CASE WHEN head.is_hidden THEN ARRAY(
        SELECT user_id FROM pair WHERE hidden_seq >= head.last_message_seq
    ) END AS users
    FROM head WHERE EXISTS (SELECT 1 FROM accepted)
), noticed AS (
    INSERT INTO notices (kind, user_id, conversation_id)
    SELECT 'revealed', person.user_id, head.conversation_id
    FROM head, revealed, unnest(revealed.users) AS person (user_id)
)
SELECT accepted.place, NULL AS conversation_id, accepted.seq, accepted.at,
       cardinality(revealed.users) > 0 AS is_revealing
FROM accepted CROSS JOIN revealed
UNION ALL
SELECT NULL, conversation_id, NULL, NULL, NULL FROM head

-- name: edit_message
-- Under the lock of the head; whether it may be edited was read under the same lock.
UPDATE messages SET content = $2, updated_at = $3 WHERE id = $1

-- name: delete_message
-- A tombstone: the row and its seq stay.
UPDATE messages SET content = '', attachments = '[]', deleted_at = $2 WHERE id = $1

-- name: database_time
-- To the precision that clients see.
SELECT date_trunc('milliseconds', clock_timestamp()) AS now

-- name: message_with_reactions
-- The reactions as JSON: of each emoji the first 50 to react, and the reader, $1, among them.
SELECT m.*, (
        SELECT coalesce(json_agg(json_build_object('emoji', emoji, 'userIds', user_ids, 'count', count)
                                 ORDER BY first_id), '[]')::text
        FROM (
            SELECT emoji, count(*) AS count, min(id) AS first_id,
                   CASE WHEN bool_or(user_id = $1) AND NOT $1 = ANY((array_agg(user_id ORDER BY id))[1:50])
                        THEN (array_agg(user_id ORDER BY id))[1:50] || $1::varchar
                        ELSE (array_agg(user_id ORDER BY id))[1:50] END AS user_ids
            FROM reactions WHERE message_id = m.id GROUP BY emoji
        ) AS grouped
    ) AS reactions FROM messages m

-- name: get_message
-- By its id alone: who may see it is asked of its conversation.
{message_with_reactions} WHERE m.id = $2

-- name: message_sent_as
-- The other half of a repeated send: what the same sender sent first under that id.
{message_with_reactions} WHERE m.conversation_id = $2 AND m.sender_id = $1 AND m.client_message_id = $3

-- name: history_backward
-- By the index of conversation and seq, from the newest or from a cursor.
{message_with_reactions} WHERE m.conversation_id = $2 AND m.seq < $3 ORDER BY m.seq DESC LIMIT $4

-- name: history_forward
-- The same, from a cursor towards the newest.
{message_with_reactions} WHERE m.conversation_id = $2 AND m.seq > $3 ORDER BY m.seq LIMIT $4

-- name: seq_of_message
-- Only in its own conversation: a message of another one is no place in this history.
SELECT seq FROM messages WHERE id = $2 AND conversation_id = $1
