"""The writer: statements that store many messages each, on connections of their own, planned once."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from app.config.settings import Settings
from app.contract.errors import ServiceUnavailable
from app.observability import metrics, tracing
from app.postgres import database, message_rows
from app.postgres.message_rows import NewMessage

# Statements at the same time: those that skip conversations whose head is busy, and those that wait for one.
BATCHES = 2
DEDICATED = 8

# Each statement is planned once, for batches of any size: planning one takes longer than running it. What suited
# small tables must still do when they have grown: every row is looked up, and no table read from end to end.
_OFF = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
PLANS = {"plan_cache_mode": "force_generic_plan"} | dict.fromkeys(_OFF, "off")


class Stored(NamedTuple):
    """Where a message stands, and whether it ends somebody's hiding of the conversation."""

    seq: int
    created_at: datetime
    is_revealing: bool


class Written(NamedTuple):
    """What a statement stored, by the place among its messages, and the conversations whose heads it locked."""

    stored: dict[int, Stored]
    locked: set[UUID]


class Writer:
    """Runs the statements of this process."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database_url
        self._webhooks_enabled = settings.webhook_url is not None
        self._pool: asyncpg.Pool | None = None

    async def run_forever(self) -> None:
        """Keep the connections; they are made when first used."""
        options = database.pool_options(self._url) | {"server_settings": database.SERVER_SETTINGS | PLANS}
        async with asyncpg.create_pool(**options, min_size=0, max_size=BATCHES + DEDICATED) as self._pool:
            await asyncio.Event().wait()

    async def write(self, collect: Callable[[], list[NewMessage]], *, waits: bool) -> Written:
        """Store messages by one statement, which is committed when this returns.

        `collect` is called once there is a connection, so that nothing is written that was taken back meanwhile.
        With `waits` they are of one conversation, whose head is waited for; else those whose head is busy are left
        out. Raises what asyncpg raises, and ServiceUnavailable while there is no pool.
        """
        if self._pool is None:
            raise ServiceUnavailable
        async with self._pool.acquire(timeout=database.CONNECT_TIMEOUT) as connection:
            messages = collect()
            written = Written({}, set())
            if not messages:
                return written
            metrics.SEND_GROUP_SIZE.observe(len(messages))
            values = message_rows.send_values(messages, webhooks_enabled=self._webhooks_enabled)
            size: tracing.Attributes = {"db.system.name": "postgresql", "db.operation.batch.size": len(messages)}
            traced = tracing.follow("INSERT messages", "client", (one.traceparent for one in messages), size)
            with traced, database.ending():
                rows = await connection.fetch(message_rows.SEND_WAITING if waits else message_rows.SEND, *values)
        for place, conversation_id, seq, at, is_revealing in rows:
            if place is None:
                written.locked.add(conversation_id)
            else:
                written.stored[place - 1] = Stored(seq, at, is_revealing)
        return written
