-- name: is_migrated
-- By the name of the last migration; a table that is missing says no as well.
SELECT true FROM tortoise_migrations WHERE app = $1 AND name = $2

-- name: is_standby
-- One that was a primary and is a standby now answers as well, and refuses every change.
SELECT pg_is_in_recovery()
