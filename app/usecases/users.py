"""Use cases of users: sync and show the profiles that the master owns, delete a user."""

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
from app.postgres.statements import statement
from app.postgres.transactions import POOL, transaction
from app.usecases import background_jobs
from app.usecases.access import lock_deleted_user
from app.usecases.deps import Deps
from app.usecases.participants import leave_groups

SYNC = statement("sync_users")
GET = statement("get_user")
DELETE = statement("delete_user")

# The groups that a user leaves with the call; more are left by a background job.
GROUPS_AT_ONCE = 100


class Synced(msgspec.Struct):
    """The answer to one profile that was stored."""

    success: Literal[True]


class SyncFailure(msgspec.Struct, rename="camel"):
    """A bad entry, by its place in the list, and whose it is where it names a user."""

    index: int
    code: str
    message: str
    external_user_id: str | UnsetType = UNSET


class SyncReport(msgspec.Struct):
    """The answer to many profiles; `success` is whether none failed."""

    success: bool
    synced: int
    failed: list[SyncFailure]


async def sync_user(deps: Deps, command: SyncUser) -> None:
    """Store a profile as the master has it; raises ValidationFailed."""
    await _store([(command, policy.check_metadata(deps.settings, command.metadata or {}))])


async def sync_users(deps: Deps, command: SyncUsers) -> SyncReport:
    """Store many profiles; the bad ones are reported one by one and do not fail the others."""
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
    """Read the id of the user in a bad entry, where there is one."""
    try:
        user_id: str = json.loads(bytes(raw))["externalUserId"]
        user_id.encode()  # raises UnicodeEncodeError, a ValueError, for half a character
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return UNSET
    return user_id


async def _store(users: Sequence[tuple[SyncUser, bytes]]) -> None:
    if users:
        await POOL.rows(
            SYNC,
            [user.external_user_id for user, _ in users],
            [user.display_name for user, _ in users],
            [user.avatar_url for user, _ in users],
            [metadata.decode() for _, metadata in users],
        )


async def get_user(user_id: str) -> UserView:
    """Show a profile; raises NotFound."""
    row = await POOL.row(GET, user_id)
    if row is None:
        raise NotFound(f"There is no user {user_id[:128]!r}")
    return views.user(row)


async def delete_user(deps: Deps, user_id: str, *, erase: bool) -> None:
    """Delete a user: profile, sockets, tokens and groups; with `erase` their messages, in the background.

    The second call does what the first may have left.
    """
    async with transaction() as tx:
        await lock_deleted_user(tx, user_id)
        deleted = await tx.row(DELETE, user_id)
    assert deleted is not None
    deps.fanout.expel(user_id, deleted["refused_until"])
    if erase:
        await background_jobs.add(background_jobs.ERASE, user_id)
    if await leave_groups(deps, user_id, GROUPS_AT_ONCE):
        await background_jobs.add(background_jobs.LEAVE, user_id)
