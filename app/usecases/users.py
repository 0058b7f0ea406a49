"""The profiles that the master owns, and what becomes of somebody whom it deletes."""

import json
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from app.contract.codec import decode
from app.contract.errors import NotFound, ValidationFailed
from app.contract.schemas import SyncUser, SyncUsers, UserView
from app.identity import policy
from app.messages import views
from app.postgres import store
from app.postgres.database import transaction
from app.usecases import chores
from app.usecases.access import lock_deleted_user
from app.usecases.deps import Deps
from app.usecases.participants import leave_groups

# One statement for a thousand as for one. A user who was deleted comes back, but tokens of before do not.
SYNC = """
INSERT INTO users (id, display_name, avatar_url, metadata, created_at, updated_at)
SELECT person.id, person.display_name, person.avatar_url, person.metadata::jsonb, now(), now()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS person (id, display_name, avatar_url, metadata)
ORDER BY person.id
ON CONFLICT (id) DO UPDATE
SET display_name = EXCLUDED.display_name, avatar_url = EXCLUDED.avatar_url, metadata = EXCLUDED.metadata,
    updated_at = EXCLUDED.updated_at, deleted_at = NULL,
    created_at = CASE WHEN users.deleted_at IS NULL THEN users.created_at ELSE EXCLUDED.created_at END
"""

GET = "SELECT * FROM users WHERE id = $1 AND deleted_at IS NULL"

# The profile goes; that there was one is kept, so that old tokens stay refused. The time is that of the statement:
# whoever was let into a group while the transaction waited for its lock came before.
DELETE = """
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
"""

# What is left of somebody's groups at once; more go in the background.
GROUPS_AT_ONCE = 100


class Synced(msgspec.Struct):
    """What one profile that was stored is answered with."""

    success: Literal[True]


class SyncFailure(msgspec.Struct, rename="camel"):
    """A bad entry, by its place in the list, and whom it is about where it says so."""

    index: int
    code: str
    message: str
    external_user_id: str | UnsetType = UNSET


class SyncReport(msgspec.Struct):
    """What many profiles are answered with; `success` is whether none failed."""

    success: bool
    synced: int
    failed: list[SyncFailure]


async def sync_user(deps: Deps, command: SyncUser) -> None:
    """Store a profile as the master has it; raises ValidationFailed."""
    await _store([(command, policy.check_metadata(deps.settings, command.metadata or {}))])


async def sync_users(deps: Deps, command: SyncUsers) -> SyncReport:
    """Store many profiles; the bad ones are told one by one and do not sink the others."""
    good: dict[str, tuple[SyncUser, bytes]] = {}
    failed: list[SyncFailure] = []
    synced = 0
    for index, raw in enumerate(command.users):
        try:
            user = decode(SyncUser, raw)
            # Of duplicates the last good one wins.
            good[user.external_user_id] = user, policy.check_metadata(deps.settings, user.metadata or {})
            synced += 1
        except ValidationFailed as error:
            failed.append(SyncFailure(index, error.code, error.message, _named(raw)))
    await _store(list(good.values()))
    return SyncReport(not failed, synced, failed)


def _named(raw: Raw) -> str | UnsetType:
    """Find out whom a bad entry is about, where it says so."""
    try:
        user_id: str = json.loads(bytes(raw))["externalUserId"]
        user_id.encode()  # raises UnicodeEncodeError, a ValueError, for half a character
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return UNSET
    return user_id


async def _store(users: Sequence[tuple[SyncUser, bytes]]) -> None:
    if users:
        await store.rows(
            SYNC,
            [user.external_user_id for user, _ in users],
            [user.display_name for user, _ in users],
            [user.avatar_url for user, _ in users],
            [metadata.decode() for _, metadata in users],
        )


async def get_user(user_id: str) -> UserView:
    """Show a profile; raises NotFound."""
    row = await store.row(GET, user_id)
    if row is None:
        raise NotFound(f"There is no user {user_id[:128]!r}")
    return views.user(row)


async def delete_user(deps: Deps, user_id: str, *, erase: bool) -> None:
    """Forget a user: profile, sockets, tokens and groups; with `erase` their messages, in the background.

    The second call does what the first may have left.
    """
    async with transaction():
        await lock_deleted_user(user_id)
        deleted = await store.row(DELETE, user_id)
    assert deleted is not None
    deps.fanout.expel(user_id, deleted["refused_until"])
    if erase:
        await chores.add(chores.ERASE, user_id)
    if await leave_groups(deps, user_id, GROUPS_AT_ONCE):
        await chores.add(chores.LEAVE, user_id)
