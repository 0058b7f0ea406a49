"""Waiting for what must come by itself once nothing is broken any more."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from soak.journal import Journal

SHOWN = 20
PAUSE = 0.2
# Seconds: for so long a request may be refused once nothing is broken any more.
RESUMED_WITHIN = 30.0


async def within(
    journal: Journal, seconds: float, promise: str, missing: Callable[[], Awaitable[list[Any]]]
) -> None:
    """Wait until the list of what is not yet so is empty; what is still in it in the end breaks the promise.

    The time during which this process itself stands still does not count.
    """
    began = time.monotonic()
    end = began + seconds
    journal.awaited = promise
    while left := await missing():
        if time.monotonic() > end:
            for one in left[:SHOWN]:
                journal.violation(promise, after=f"{seconds:g} s", left=one)
            return
        before = time.monotonic()
        await asyncio.sleep(PAUSE)
        end += time.monotonic() - before - PAUSE
    journal.notes.append(f"{promise}: after {time.monotonic() - began:.1f} s")
