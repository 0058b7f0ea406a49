"""Use cases of presence: who is online, heartbeat and settling; changes go out in `presence_announcer`."""

import asyncio
import logging
from collections.abc import Sequence
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from app.contract import ids
from app.contract.fields import Timestamp
from app.contract.schemas import timestamp
from app.identity import policy
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.postgres import participant_rows
from app.postgres.statements import statement
from app.postgres.transactions import POOL
from app.presence.presence import HEARTBEAT
from app.redis.connection import AWAY
from app.usecases.access import require_participant
from app.usecases.deps import Deps
from app.usecases.sessions import make_room

SETTLE_INTERVAL = 0.5

ACQUAINTED = statement("acquainted_users")

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
    """Give the presence of all participants; raises Forbidden and NotFound."""
    policy.require_read(actor)
    await deps.limits.check(Action.READ, actor.user_id)
    await require_participant(conversation_id, actor)
    people = await participant_rows.participants([conversation_id], actor.user_id, 2**31 - 1)
    found = await deps.presence.user_presence([person["user_id"] for person in people])
    return PresenceView(
        conversation_id=ids.to_wire(ids.CONVERSATION, conversation_id),
        online=[one.user_id for one in found if one.is_online],
        participants=[
            PersonPresence(one.user_id, one.is_online, timestamp(one.last_seen) if one.last_seen else UNSET)
            for one in found
        ],
    )


async def online_among(deps: Deps, actor: Actor, user_ids: Sequence[str]) -> list[str]:
    """List those of these users who are online and share a conversation with the actor."""
    policy.require_read(actor)
    await deps.limits.check(Action.READ, actor.user_id)
    async with deps.database.heavy_reads:
        found = await POOL.rows(ACQUAINTED, actor.user_id, list(set(user_ids)), deps.settings.large_group)
    known = {acquainted["user_id"] for acquainted in found}
    asked = [user_id for user_id in dict.fromkeys(user_ids) if user_id in known or user_id == actor.user_id]
    return [one.user_id for one in await deps.presence.user_presence(asked) if one.is_online]


async def beat_forever(deps: Deps) -> None:
    """Renew the lease of this pod."""
    while True:
        try:
            await deps.presence.beat()
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)
        await asyncio.sleep(HEARTBEAT)


async def settle_forever(deps: Deps) -> None:
    """Repair what Redis has of this pod, and find out who has gone, also with a pod that died."""
    while True:
        is_more = False
        try:
            for user_id, too_many in (await deps.presence.repair()).items():
                make_room(deps, user_id, too_many)
            is_more = await deps.presence.settle()
        except AWAY as error:
            _log.debug("presence pauses, Redis is away: %s", error)
        if not is_more:
            await asyncio.sleep(SETTLE_INTERVAL)
