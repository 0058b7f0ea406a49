"""What a worker holds: rows under a lease, from the claim until what came of them is written down.

Outcomes and what was not sent wait here for others to go with them; those that cannot be written are tried again.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from uuid import UUID

from app.postgres.store import Row
from app.webhooks import queue
from app.webhooks.queue import LEASE, Settled

# So long an outcome waits for more to go with it.
SETTLE_PAUSE = 0.02
RENEW_INTERVAL = 8.0


class Holding:
    """The leases of one worker; `on_settled` is called when some are written down."""

    def __init__(self, on_settled: Callable[[], None]) -> None:
        self._on_settled = on_settled
        self._held: dict[UUID, Row] = {}
        self._settled: list[Settled] = []
        self._unsent: list[Row] = []
        # One statement at a time changes what is held: two could lock the same rows in different order.
        self._writing = asyncio.Lock()
        self._outcomes = asyncio.Event()

    async def hold(self, claim: Coroutine[Any, Any, list[Row]]) -> list[Row]:
        """Claim, and hold on to what that gives."""
        # Before the statement, so that the lease ends here no later than there.
        held_until = time.monotonic() + LEASE
        rows = await claim
        for row in rows:
            row["held_until"] = held_until
            self._held[row["id"]] = row
        return rows

    def note(self, settled: Settled) -> None:
        """Have it written down how an attempt ended."""
        self._settled.append(settled)
        self._outcomes.set()

    def give_back(self, rows: Sequence[Row]) -> None:
        """Have rows given back that were not sent."""
        self._unsent += rows
        self._outcomes.set()

    async def settle_forever(self) -> None:
        while True:
            await self._outcomes.wait()
            await asyncio.sleep(SETTLE_PAUSE)
            await self.settle()

    async def settle(self) -> None:
        """Write down how attempts ended and what was not sent; what fails here is tried again."""
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
                self._let_go(row)
        # Behind what was settled there may be more of the same lane.
        self._on_settled()

    async def renew_forever(self) -> None:
        """Hold on to what is under way; what another worker has by now is dropped."""
        while True:
            await asyncio.sleep(RENEW_INTERVAL)
            async with self._writing:
                held, held_until = list(self._held.values()), time.monotonic() + LEASE
                renewed = await queue.renew(held) if held else set()
            for row in held:
                row["held_until"] = held_until if row["id"] in renewed else 0.0

    def _let_go(self, row: Row) -> None:
        # It may be held again by a later claim, where the lease was lost meanwhile.
        if self._held.get(row["id"]) is row:
            del self._held[row["id"]]
