"""Who is online, as far as one may know."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from app import events, ids, metrics, queries, store
from app.auth import policy
from app.auth.actor import Actor
from app.deps import Deps
from app.fields import Timestamp
from app.limits import Action
from app.presence import HEARTBEAT, PresenceChange
from app.redis_client import AWAY
from app.schemas import timestamp
from app.usecases.access import require_participant

SETTLE_INTERVAL = 0.5
MAX_CONTACTS = 10_000

# Who shares a conversation with each of these, large groups aside.
CONTACTS = """
SELECT who.user_id, contact.user_id AS contact
FROM unnest($1::varchar[]) AS who (user_id) CROSS JOIN LATERAL (
    SELECT DISTINCT other.user_id
    FROM participants mine JOIN participants other USING (conversation_id)
    WHERE mine.user_id = who.user_id AND other.user_id <> who.user_id
          AND ($3::text[] IS NULL OR other.user_id = ANY($3))
          AND (SELECT count(*) FROM participants WHERE conversation_id = mine.conversation_id) <= $2
    LIMIT $4
) contact
"""

_log = logging.getLogger(__name__)


class PersonPresence(msgspec.Struct, rename="camel"):
    user_id: str
    online: bool
    last_seen_at: Timestamp | UnsetType = UNSET


class PresenceView(msgspec.Struct, rename="camel"):
    conversation_id: str
    online: list[str]
    participants: list[PersonPresence]


async def conversation_presence(deps: Deps, actor: Actor, conversation_id: UUID) -> PresenceView:
    """Tell of all participants whether they are online; raises Forbidden and NotFound."""
    policy.require_read(actor)
    await deps.limits.check(Action.READ, actor.user_id)
    await require_participant(conversation_id, actor)
    people = await queries.participants([conversation_id], actor.user_id, 2**31 - 1)
    found = await deps.presence.whereabouts([person["user_id"] for person in people])
    return PresenceView(
        conversation_id=ids.to_wire(ids.CONVERSATION, conversation_id),
        online=[one.user_id for one in found if one.is_online],
        participants=[
            PersonPresence(one.user_id, one.is_online, timestamp(one.last_seen) if one.last_seen else UNSET)
            for one in found
        ],
    )


async def online_among(deps: Deps, actor: Actor, user_ids: Sequence[str]) -> list[str]:
    """Tell who of these is online, of those whom the actor shares a conversation with."""
    policy.require_read(actor)
    await deps.limits.check(Action.READ, actor.user_id)
    async with deps.database.dear_reads:
        known = set((await _contacts(deps, [actor.user_id], list(user_ids)))[actor.user_id])
    asked = [user_id for user_id in dict.fromkeys(user_ids) if user_id in known or user_id == actor.user_id]
    return [one.user_id for one in await deps.presence.whereabouts(asked) if one.is_online]


async def _contacts(deps: Deps, user_ids: Sequence[str], among: list[str] | None = None) -> dict[str, list[str]]:
    contacts: dict[str, list[str]] = {user_id: [] for user_id in user_ids}
    for found in await store.rows(CONTACTS, list(contacts), deps.settings.large_group, among, MAX_CONTACTS):
        contacts[found["user_id"]].append(found["contact"])
    return contacts


async def announce(deps: Deps, changes: Sequence[PresenceChange]) -> None:
    """Tell changes to the master, and each to those who share a conversation with the user; twice does no harm."""
    if not changes:
        return
    await deps.outbox.append_presence(changes)
    contacts = await _contacts(deps, [change.user_id for change in changes])
    for change in changes:
        event = events.user_presence(change.user_id, change.number, is_online=change.is_online)
        deps.fanout.tell(contacts[change.user_id], event)
        metrics.of(metrics.PRESENCE_CHANGES, "online" if change.is_online else "offline").inc()
    await deps.presence.told(changes)


async def announce_together(deps: Deps, asked: Sequence[Sequence[PresenceChange]]) -> list[None]:
    """Tell the changes of all who connect at the same time."""
    await announce(deps, [change for changes in asked for change in changes])
    return [None] * len(asked)


async def beat_forever(deps: Deps) -> None:
    """Hold the lease of this pod."""
    while True:
        await _announce_all(deps, deps.presence.beat())
        await asyncio.sleep(HEARTBEAT)


async def settle_forever(deps: Deps) -> None:
    """Find out who has gone, also with a pod that died, and tell it."""
    while True:
        await _announce_all(deps, deps.presence.settle())
        await asyncio.sleep(SETTLE_INTERVAL)


async def _announce_all(deps: Deps, found: Awaitable[list[PresenceChange]]) -> None:
    try:
        changes = await found
    except AWAY as error:
        _log.debug("presence pauses, Redis is away: %s", error)
        return
    await announce(deps, changes)
