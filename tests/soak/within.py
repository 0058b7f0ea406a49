"""Waiting for what must come by itself once nothing is broken any more."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from soak.journal import Journal

SHOWN = 20


async def within(
    journal: Journal, seconds: float, promise: str, missing: Callable[[], Awaitable[list[Any]]]
) -> None:
    """Wait until the list of what is not yet so is empty; what is still in it in the end breaks the promise."""
    began = time.monotonic()
    journal.awaited = promise
    while left := await missing():
        if time.monotonic() > began + seconds:
            for one in left[:SHOWN]:
                journal.violation(promise, after=f"{seconds:g} s", left=one)
            return
        await asyncio.sleep(0.2)
    journal.notes.append(f"{promise}: after {time.monotonic() - began:.1f} s")
