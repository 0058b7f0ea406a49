"""The webhook worker: it claims rows of the outbox that are due, posts them, and settles the outcomes.

    claim ──▶ lanes ──▶ senders of first attempts ──┐
      ▲  └──▶ retries ▶ senders of retries ─────────┴──▶ outcomes ──▶ settle ──▶ wakes the claim

A lane is the webhooks of one conversation, posted by one sender in order. After a failure the rest of the lane is
released: a conversation for which the master hangs occupies one sender for one attempt at a time. Retries have
senders of their own, and first attempts never wait for them. The state is in PostgreSQL; Redis only wakes workers.
The leases of a worker that dies expire, and another worker claims their rows.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from app.config.settings import Settings
from app.contract import ids
from app.observability import metrics
from app.postgres.database import AWAY, Database
from app.postgres.transactions import Row
from app.runtime.supervisor import Supervisor
from app.webhooks import queue
from app.webhooks.breaker import Breaker
from app.webhooks.delivery import Outcome, Sender
from app.webhooks.leases import Leases
from app.webhooks.payload import webhook_id
from app.webhooks.queue import RETRIES_OF_A_LANE, Settled
from app.webhooks.retry import next_delay

FIRST_SENDERS = 48
RETRY_SENDERS = 16
# As many lanes as keep the senders busy until the next claim.
LANES_AT_ONCE = 2 * FIRST_SENDERS
RETRIES_AT_ONCE = 2 * RETRY_SENDERS
POLL_INTERVAL = 0.5
PROBE_INTERVAL = 1.0
# The pause after a claim that found rows, in seconds, so that the next one finds several.
CLAIM_PAUSE = 0.03
CLEANING_INTERVAL = 10.0
CLEANED_AT_ONCE = 1000
MEASURING_INTERVAL = 5.0

_START = UUID(int=0)
_log = logging.getLogger(__name__)


class Worker:
    """One worker; any number may run."""

    def __init__(self, settings: Settings, sender: Sender) -> None:
        self._settings = settings
        self._sender = sender
        self._breaker = Breaker()
        self._lanes: asyncio.Queue[list[Row]] = asyncio.Queue()
        self._retries: asyncio.Queue[list[Row]] = asyncio.Queue()
        # How many retries of each lane are under way.
        self._retrying: Counter[Any] = Counter()
        # Where the next claims start: behind the lanes and the due times of the last ones.
        self._after = _START
        self._due_after: datetime | None = None
        self._wakeup = asyncio.Event()
        self._leases = Leases(self._wakeup.set)
        self._claiming = asyncio.Lock()
        self._draining = False

    def start(self, supervisor: Supervisor, known: Database) -> None:
        """Start the loops; those that begin with PostgreSQL wait for it."""
        supervisor.loop("claim", lambda: known.when_there(self._claim_forever), AWAY)
        supervisor.loop("settle", self._leases.settle_forever, AWAY)
        supervisor.loop("renew", self._leases.renew_forever, AWAY)
        supervisor.loop("clean", lambda: known.when_there(self._clean_forever), AWAY)
        supervisor.loop("measure", lambda: known.when_there(_measure_forever), AWAY)
        for _ in range(FIRST_SENDERS):
            supervisor.loop("send", lambda: self._send_forever(self._lanes))
        for _ in range(RETRY_SENDERS):
            supervisor.loop("retry", lambda: self._send_forever(self._retries))

    def wake(self, *_: Any) -> None:
        """Claim at once, without waiting for the next poll."""
        self._wakeup.set()

    async def drain(self) -> None:
        """Stop claiming, finish the attempts that are under way, and release the other rows."""
        self._draining = True
        # A claim that is under way still brings rows that have to be released.
        async with self._claiming:
            pass
        await self._lanes.join()
        await self._retries.join()
        await self._leases.settle()

    async def _claim_forever(self) -> None:
        while True:
            self._wakeup.clear()
            async with self._claiming:
                found = not self._draining and await (self._probe() if self._breaker.is_open else self._claim())
            if self._breaker.is_open:
                await asyncio.sleep(PROBE_INTERVAL)
            elif found:
                await asyncio.sleep(CLAIM_PAUSE)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL):
                        await self._wakeup.wait()

    async def _claim(self) -> bool:
        """Claim lanes and retries; True where there may be more."""
        found = False
        if self._lanes.qsize() < FIRST_SENDERS:
            found = await self._claim_lanes(LANES_AT_ONCE)
        if self._retries.qsize() < RETRY_SENDERS:
            found = await self._claim_retries() or found
        return found

    async def _claim_lanes(self, most: int) -> bool:
        after = self._after
        lanes: dict[UUID, list[Row]] = {}
        for row in await self._leases.claim(queue.claim_lanes(after, most)):
            lanes.setdefault(row["conversation_id"], []).append(row)
        for lane in lanes.values():
            self._lanes.put_nowait(lane)
        # Each gets its turn: on behind those that were taken, and from the start where none are left.
        self._after = max(lanes) if len(lanes) == most else _START
        return bool(lanes) or after != _START

    async def _claim_retries(self) -> bool:
        rows = await self._leases.claim(self._claim_due(RETRIES_AT_ONCE))
        for row in rows:
            self._retrying[_lane(row)] += 1
            self._retries.put_nowait([row])
        return bool(rows) or self._due_after is not None

    async def _claim_due(self, most: int) -> list[Row]:
        # Of a user there is never more than one.
        busy = [lane for lane, count in self._retrying.items() if count >= RETRIES_OF_A_LANE]
        rows, self._due_after = await queue.claim_due(busy, most, self._due_after)
        return rows

    async def _probe(self) -> bool:
        """Probe the master with one delivery that is due, while the circuit breaker is open."""
        rows = await self._leases.claim(self._claim_due(1))
        rows = rows or await self._leases.claim(queue.claim_lanes(self._after, 1, 1))
        self._after = rows[0]["conversation_id"] or _START if rows else _START
        for row in rows:
            await self._attempt(row)
        return bool(rows)

    async def _send_forever(self, claimed: asyncio.Queue[list[Row]]) -> None:
        while True:
            rows = await claimed.get()
            try:
                await self._send(rows)
            finally:
                claimed.task_done()
                if claimed is self._retries:
                    self._retrying -= Counter(_lane(row) for row in rows)

    async def _send(self, rows: Sequence[Row]) -> None:
        """Post the webhooks of a lane in order, up to the first failure."""
        for place, row in enumerate(rows):
            if not self._may_send(row):
                self._leases.release(rows[place:])
                return
            if not await self._attempt(row):
                self._leases.release(rows[place + 1 :])
                return

    def _may_send(self, row: Row) -> bool:
        """Tell whether this worker still holds the lease of a row, and may post it."""
        is_ours: bool = row["leased_until"] > time.monotonic()
        return is_ours and not self._draining and not self._breaker.is_open

    async def _attempt(self, row: Row) -> bool:
        """Post a webhook and record the outcome; False where it was not delivered."""
        try:
            outcome = await self._sender.attempt(row)
        except AWAY as error:
            _log.warning("PostgreSQL is away: %s", str(error) or type(error).__name__)
            self._leases.release([row])
            return False
        except Exception:  # noqa: BLE001 - it is logged, and nothing else may suffer from it
            # Otherwise its lease would be renewed for ever, and its conversation would wait for ever.
            _log.exception("the webhook %s cannot be sent", webhook_id(row))
            outcome = Outcome(None, "an unexpected error, see the log of the worker")
        else:
            self._judge(row, outcome)
        self._record(row, outcome)
        return outcome.is_delivered

    def _judge(self, row: Row, outcome: Outcome) -> None:
        metrics.of(metrics.WEBHOOK_ATTEMPTS, outcome.kind).inc()
        was_open = self._breaker.is_open
        if outcome.is_failure_of_master:
            self._breaker.failed(_lane(row))
        else:
            self._breaker.answered()
        metrics.WEBHOOK_BREAKER_OPEN.set(self._breaker.is_open)
        if self._breaker.is_open and not was_open:
            _log.warning("the master does not take webhooks (%s): one a second is tried", outcome.error)
        elif was_open and not self._breaker.is_open:
            _log.warning("the master takes webhooks again")

    def _record(self, row: Row, outcome: Outcome) -> None:
        state, delay = self._next(row, outcome)
        if state == "dead":
            metrics.WEBHOOK_DEAD.inc()
            _log.error("the webhook %s (%s) is dead: %s", webhook_id(row), row["event"], outcome.error)
        self._leases.settle_soon(Settled(row, state, delay, outcome.status, outcome.error))

    def _next(self, row: Row, outcome: Outcome) -> tuple[str, float]:
        """Decide what becomes of a webhook: its state, and the seconds until the next attempt."""
        if outcome.is_delivered:
            return "delivered", 0.0
        schedule = self._settings.webhook_retry_schedule
        delay = next_delay(schedule, row["step"], random.random(), outcome.retry_after)  # noqa: S311 - jitter
        if delay is not None and row["expires_at"] is not None:
            left = (row["expires_at"] - datetime.now(UTC)).total_seconds()
            delay = min(delay, left) if left > 0 else None
        return ("dead", 0.0) if delay is None else ("due", delay)

    async def _clean_forever(self) -> None:
        """Mark webhooks that are too old as dead, and delete those that were delivered long ago."""
        while True:
            metrics.WEBHOOK_DEAD.inc(await queue.expire())
            before = ids.first_of(time.time() - self._settings.webhook_retention_days * 86_400)
            while await queue.forget(before, CLEANED_AT_ONCE):
                continue
            await asyncio.sleep(CLEANING_INTERVAL)


async def _measure_forever() -> None:
    """Measure the backlog: how many webhooks are pending, and the age of the oldest."""
    while True:
        pending, oldest = await queue.backlog()
        metrics.WEBHOOK_PENDING.set(pending)
        metrics.WEBHOOK_OLDEST_SECONDS.set(oldest)
        await asyncio.sleep(MEASURING_INTERVAL)


def _lane(row: Row) -> Hashable:
    """Give the lane of a webhook: its conversation, or the user whose presence it is about."""
    lane: Hashable = row["conversation_id"] or row["user_id"]
    return lane
