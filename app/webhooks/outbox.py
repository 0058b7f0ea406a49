"""The outbox: webhooks are written in the transaction of the change, and posted by the worker.

Only use-cases append. Nothing is written where there is no WEBHOOK_URL. For a message that is sent there is no
statement here: `store.SEND` writes that row too.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from app.config.settings import Settings
from app.contract import events, ids
from app.contract.codec import encode
from app.observability import metrics, tracing
from app.postgres import store
from app.presence.changes import PresenceChange
from app.redis.connection import AWAY
from app.redis.pubsub import Bus

# The channel on which the worker is woken: a hint, since it looks by itself as well.
CHANNEL = "chat:webhooks"
# All that is committed within this time wakes the worker once.
WAKE_PAUSE = 0.01
MISSED_AFTER = 60
LOOK_INTERVAL = 10.0
# There while a worker has shown itself within a minute.
_SEEN = "chat:webhooks:seen"
SHOW_INTERVAL = 10.0

APPEND = """
INSERT INTO webhooks (id, conversation_id, event, seq, user_id, message_id, data, created_at, traceparent)
SELECT told.id, $1, told.event, told.seq, told.user_id, told.message_id, told.data::jsonb, told.created_at, $9
FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::uuid[], $7::text[], $8::timestamptz[])
     AS told (id, event, seq, user_id, message_id, data, created_at)
"""

# A newer transition takes the place of one that was not delivered; where that is under way, it waits for its end.
# One that is late, because its pod was, is of no use any more, and a master must never see it after a newer one.
APPEND_PRESENCE = """
INSERT INTO webhooks (id, event, seq, user_id, state, created_at, expires_at, traceparent)
SELECT told.id, told.event, told.seq, told.user_id, 'due', told.at, told.at + interval '10 minutes',
       told.traceparent
FROM unnest($1::uuid[], $2::varchar[], $3::bigint[], $4::varchar[], $5::timestamptz[], $6::varchar[])
     AS told (id, event, seq, user_id, at, traceparent)
WHERE NOT EXISTS (
    SELECT 1 FROM webhooks w WHERE w.conversation_id IS NULL AND w.user_id = told.user_id AND w.seq >= told.seq
)
ORDER BY told.user_id
ON CONFLICT (user_id) WHERE conversation_id IS NULL AND state = 'due' DO UPDATE
SET id = EXCLUDED.id, event = EXCLUDED.event, seq = EXCLUDED.seq, created_at = EXCLUDED.created_at,
    expires_at = EXCLUDED.expires_at, traceparent = EXCLUDED.traceparent,
    attempts = 0, step = 0, last_status_code = NULL, last_error = NULL,
    due_at = CASE WHEN webhooks.lease IS NULL THEN clock_timestamp() ELSE webhooks.due_at END
WHERE webhooks.seq < EXCLUDED.seq
"""

# Something that nobody has taken for a minute.
OVERDUE = """
SELECT 1 FROM (
    (SELECT 1 FROM webhooks WHERE state = 'new' AND due_at < now() - interval '60 seconds' LIMIT 1)
    UNION ALL
    (SELECT 1 FROM webhooks WHERE state = 'due' AND due_at < now() - interval '60 seconds' LIMIT 1)
) AS overdue
LIMIT 1
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook about a conversation; `data` never holds the content of a message."""

    event: str
    seq: int
    user_id: str
    created_at: datetime
    message_id: UUID | None
    data: dict[str, Any]


class Outbox:
    """The outbox of a process that makes changes."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self.is_on = settings.webhook_url is not None
        self._bus = bus
        self._waking = False

    async def append(self, conversation_id: UUID, webhooks: Sequence[Webhook]) -> None:
        """Write webhooks in the transaction that is open."""
        if not self.is_on or not webhooks:
            return
        await store.rows(
            APPEND,
            conversation_id,
            [ids.new_id() for _ in webhooks],
            [told.event for told in webhooks],
            [told.seq for told in webhooks],
            [told.user_id for told in webhooks],
            [told.message_id for told in webhooks],
            [encode(told.data).decode() for told in webhooks],
            [told.created_at for told in webhooks],
            tracing.traceparent(),
        )

    async def append_presence(self, changes: Sequence[PresenceChange]) -> None:
        """Write presence webhooks; of each user only the newest transition is kept."""
        if not self.is_on:
            return
        newest = {change.user_id: change for change in sorted(changes, key=lambda change: change.number)}.values()
        await store.rows(
            APPEND_PRESENCE,
            [ids.new_id() for _ in newest],
            [events.USER_CAME if change.is_online else events.USER_WENT for change in newest],
            [change.number for change in newest],
            [change.user_id for change in newest],
            # Numbers follow the clock, in milliseconds.
            [datetime.fromtimestamp(change.number / 1000, UTC) for change in newest],
            [change.traceparent for change in newest],
        )
        self.wake()

    def wake(self) -> None:
        """Wake the worker, soon after the commit."""
        if self.is_on and not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_later(WAKE_PAUSE, self._publish)

    async def look_for_worker_forever(self, redis: Redis) -> None:
        """Warn when there is something to deliver and no worker was seen for a minute."""
        is_missed = False
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            try:
                is_seen = await redis.exists(_SEEN) == 1
            except AWAY as error:
                _log.debug("whether a worker runs is not known, Redis is away: %s", error)
                continue
            was_missed, is_missed = is_missed, not is_seen and await store.row(OVERDUE) is not None
            metrics.WEBHOOK_WORKER_MISSING.set(is_missed)
            if is_missed and not was_missed:
                _log.warning("webhooks are due, and no worker was seen for %d s", MISSED_AFTER)
            elif was_missed and not is_missed:
                _log.warning("webhooks are delivered again")

    def _publish(self) -> None:
        self._waking = False
        self._bus.publish(CHANNEL, b"")


async def show_forever(redis: Redis) -> None:
    """Show all pods that a worker runs, by a key in Redis that expires."""
    while True:
        try:
            await redis.set(_SEEN, "1", ex=MISSED_AFTER)
        except AWAY as error:
            _log.debug("the worker is not seen, Redis is away: %s", error)
        await asyncio.sleep(SHOW_INTERVAL)
