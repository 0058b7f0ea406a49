-- name: refused_tokens
-- Which of these tokens were issued before their user was deleted, by their place. `is_refused` is a function of the
-- database: it reads what is committed when it is called, not when the statement began.
SELECT token.place
FROM unnest($1::varchar[], $2::bigint[]) WITH ORDINALITY AS token (user_id, second, place)
WHERE is_refused(token.user_id, token.second)
