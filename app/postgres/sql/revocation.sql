-- name: refused_tokens
-- Which of these tokens were issued before their user was deleted, by their place. `is_refused` is a function of
-- the database: it reads what is committed when it is called, not when the statement began. Here and in
-- `admissions` only those are asked of whom it is worth a call: a few microseconds each.
SELECT token.place
FROM unnest($1::varchar[], $2::bigint[]) WITH ORDINALITY AS token (user_id, second, place)
CROSS JOIN LATERAL (
    SELECT 1 FROM users
    WHERE id = token.user_id AND refused_until IS NOT NULL AND is_refused(token.user_id, token.second) OFFSET 0
) revoked
