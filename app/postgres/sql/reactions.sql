-- name: add_reaction
-- Nothing is added where it is already, nor where there are as many different ones as may be.
WITH present AS (SELECT DISTINCT emoji FROM reactions WHERE message_id = $1)
INSERT INTO reactions (message_id, emoji, user_id)
SELECT $1, $2::varchar, $3
WHERE $2::varchar IN (SELECT emoji FROM present) OR (SELECT count(*) FROM present) < $4
ON CONFLICT DO NOTHING
RETURNING id

-- name: has_reaction
-- Tells a reaction that is there already from one too many, which `add_reaction` refuses as well.
SELECT 1 FROM reactions WHERE message_id = $1 AND emoji = $2 AND user_id = $3

-- name: remove_reaction
-- Gives nothing where there is none: then no event is logged.
DELETE FROM reactions WHERE message_id = $1 AND emoji = $2 AND user_id = $3 RETURNING id
