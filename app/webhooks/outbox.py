"""The outbox: webhooks are written in the transaction of the change, and posted by the worker.

Only use-cases append. Nothing is written where there is no WEBHOOK_URL. For a message that is sent there is no
statement here: `message_rows.SEND` writes that row too.
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
from app.postgres.statements import statement
from app.postgres.transactions import POOL, Transaction
from app.presence.changes import PresenceChange
from app.redis.connection import AWAY
from app.redis.pubsub import PubSub

# The channel on which the worker is woken: a hint, since it looks by itself as well.
CHANNEL = "chat:webhooks"
# All that is committed within this time wakes the worker once.
WAKE_PAUSE = 0.01
MISSED_AFTER = 60
LOOK_INTERVAL = 10.0
# There while a worker has shown itself within a minute.
_SEEN = "chat:webhooks:seen"
SHOW_INTERVAL = 10.0

APPEND = statement("append_webhooks")
APPEND_PRESENCE = statement("append_presence_webhooks")
OVERDUE = statement("overdue_webhooks")

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

    def __init__(self, settings: Settings, pubsub: PubSub) -> None:
        self.is_on = settings.webhook_url is not None
        self._pubsub = pubsub
        self._waking = False

    async def append(self, tx: Transaction, conversation_id: UUID, webhooks: Sequence[Webhook]) -> None:
        """Write webhooks in the transaction of their change."""
        if not self.is_on or not webhooks:
            return
        await tx.execute(
            APPEND,
            conversation_id,
            [ids.new_id() for _ in webhooks],
            [webhook.event for webhook in webhooks],
            [webhook.seq for webhook in webhooks],
            [webhook.user_id for webhook in webhooks],
            [webhook.message_id for webhook in webhooks],
            [encode(webhook.data).decode() for webhook in webhooks],
            [webhook.created_at for webhook in webhooks],
            tracing.traceparent(),
        )

    async def append_presence(self, changes: Sequence[PresenceChange]) -> None:
        """Write presence webhooks; of each user only the newest transition is kept."""
        if not self.is_on:
            return
        newest = {change.user_id: change for change in sorted(changes, key=lambda change: change.number)}.values()
        await POOL.rows(
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
            was_missed, is_missed = is_missed, not is_seen and await POOL.row(OVERDUE) is not None
            metrics.WEBHOOK_WORKER_MISSING.set(is_missed)
            if is_missed and not was_missed:
                _log.warning("webhooks are due, and no worker was seen for %d s", MISSED_AFTER)
            elif was_missed and not is_missed:
                _log.warning("webhooks are delivered again")

    def _publish(self) -> None:
        self._waking = False
        self._pubsub.publish(CHANNEL, b"")


async def show_forever(redis: Redis) -> None:
    """Show all pods that a worker runs, by a key in Redis that expires."""
    while True:
        try:
            await redis.set(_SEEN, "1", ex=MISSED_AFTER)
        except AWAY as error:
            _log.debug("the worker is not seen, Redis is away: %s", error)
        await asyncio.sleep(SHOW_INTERVAL)
