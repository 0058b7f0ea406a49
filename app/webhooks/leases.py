"""The leases of a worker: rows of the outbox from their claim until their outcome is stored.

Outcomes and unsent rows are collected and written in batches; a batch that cannot be written is tried again.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from uuid import UUID

from app.postgres.transactions import Row
from app.webhooks import queue
from app.webhooks.queue import LEASE, Settled

# How long outcomes are collected before they are written, in seconds.
SETTLE_PAUSE = 0.02
RENEW_INTERVAL = 8.0


class Leases:
    """The leases of one worker; `on_settled` is called after outcomes were stored."""

    def __init__(self, on_settled: Callable[[], None]) -> None:
        self._on_settled = on_settled
        self._leased: dict[UUID, Row] = {}
        self._settled: list[Settled] = []
        self._unsent: list[Row] = []
        # One statement at a time changes leased rows: two could lock the same rows in different order.
        self._writing = asyncio.Lock()
        self._outcomes = asyncio.Event()

    async def claim(self, claim: Coroutine[Any, Any, list[Row]]) -> list[Row]:
        """Run a claim and keep the leases of the rows that it gives."""
        # Before the statement, so that the lease ends here no later than there.
        leased_until = time.monotonic() + LEASE
        rows = await claim
        for row in rows:
            row["leased_until"] = leased_until
            self._leased[row["id"]] = row
        return rows

    def settle_soon(self, settled: Settled) -> None:
        """Store the outcome of an attempt with the next batch."""
        self._settled.append(settled)
        self._outcomes.set()

    def release(self, rows: Sequence[Row]) -> None:
        """End the leases of rows that were not sent, with the next batch."""
        self._unsent += rows
        self._outcomes.set()

    async def settle_forever(self) -> None:
        while True:
            await self._outcomes.wait()
            await asyncio.sleep(SETTLE_PAUSE)
            await self.settle()

    async def settle(self) -> None:
        """Store outcomes and release unsent rows; what fails stays for the next time."""
        async with self._writing:
            self._outcomes.clear()
            settled, unsent = self._settled, self._unsent
            self._settled, self._unsent = [], []
            try:
                if settled:
                    await queue.settle(settled)
                # Only now: what is behind a first attempt must not be claimed before that is settled.
                if unsent:
                    await queue.release(unsent)
            except Exception:
                self._settled, self._unsent = settled + self._settled, unsent + self._unsent
                self._outcomes.set()
                raise
            for row in (*(one.row for one in settled), *unsent):
                self._drop(row)
        # Behind what was settled there may be more of the same lane.
        self._on_settled()

    async def renew_forever(self) -> None:
        """Renew the leases of rows that are under way; rows whose lease is lost are not sent."""
        while True:
            await asyncio.sleep(RENEW_INTERVAL)
            async with self._writing:
                leased, leased_until = list(self._leased.values()), time.monotonic() + LEASE
                renewed = await queue.renew(leased) if leased else set()
            for row in leased:
                row["leased_until"] = leased_until if row["id"] in renewed else 0.0

    def _drop(self, row: Row) -> None:
        # A later claim may have leased it again, where this lease was lost.
        if self._leased.get(row["id"]) is row:
            del self._leased[row["id"]]
