-- name: sync_users
-- One statement for a thousand as for one. A user who was deleted comes back, but tokens of before do not.
INSERT INTO users (id, display_name, avatar_url, metadata, created_at, updated_at)
SELECT person.id, person.display_name, person.avatar_url, person.metadata::jsonb, now(), now()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS person (id, display_name, avatar_url, metadata)
ORDER BY person.id
ON CONFLICT (id) DO UPDATE
SET display_name = EXCLUDED.display_name, avatar_url = EXCLUDED.avatar_url, metadata = EXCLUDED.metadata,
    updated_at = EXCLUDED.updated_at, deleted_at = NULL,
    created_at = CASE WHEN users.deleted_at IS NULL THEN users.created_at ELSE EXCLUDED.created_at END

-- name: get_user
-- One who was deleted is as one who was never there.
SELECT * FROM users WHERE id = $1 AND deleted_at IS NULL

-- name: profiles
-- Whoever has none is shown without a name.
SELECT id, display_name, avatar_url FROM users WHERE id = ANY($1::text[])

-- name: deleted_users
-- Of somebody who was never synced there is no row, and nothing against them.
SELECT id FROM users WHERE id = ANY($1::text[]) AND deleted_at IS NOT NULL

-- name: lock_users
-- By advisory locks, since there is no row of who was never synced. All are taken in one order, after the head of
-- a conversation; a deletion takes one alone, and no head with it.
SELECT pg_advisory_xact_lock_shared(key)
FROM (
    SELECT DISTINCT hashtextextended(user_id, 0) AS key FROM unnest($1::text[]) AS person (user_id) ORDER BY key
) AS ordered

-- name: delete_user
-- The profile goes; that there was one is kept, so that old tokens stay refused. The time is that of the
-- statement: whoever was let into a group while the transaction waited for its lock came before.
WITH moment AS (
    SELECT statement_timestamp() AS at
), noticed AS (
    INSERT INTO notices (kind, user_id, created_at) SELECT 'expelled', $1, at FROM moment
)
INSERT INTO users (id, display_name, metadata, created_at, updated_at, deleted_at, refused_until)
SELECT $1, '', '{}', at, at, at, floor(extract(epoch FROM at))::bigint FROM moment
ON CONFLICT (id) DO UPDATE
SET display_name = '', avatar_url = NULL, metadata = '{}', deleted_at = EXCLUDED.deleted_at,
    updated_at = EXCLUDED.updated_at, refused_until = EXCLUDED.refused_until
RETURNING refused_until

-- name: lock_deleted_user
-- The other side of `lock_users`: waits for all who let this user in.
SELECT pg_advisory_xact_lock(hashtextextended($1, 0))
