"""The heartbeat of Engine.IO sessions: pings, ping timeouts and connect timeouts on one clock.

A session that is due is pinged, or closed where it has not answered the last ping. None has a task or a timer.
"""

import asyncio
from typing import Protocol

TICK = 1.0


class Beating(Protocol):
    """A connection, as far as the clock knows it."""

    # The second that counts; the connection may wait in others too, which are passed over. 0 is never.
    due: int

    def on_due(self) -> None:
        """Do what is due; nothing of it blocks or raises."""


class Heartbeat:
    """The connections by the second in which they are due."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = int(self._loop.time())
        self._due: dict[int, list[Beating]] = {}

    def wait(self, one: Beating, seconds: int) -> None:
        """Have a connection wait, and for nothing else any more."""
        one.due = self._now + max(1, seconds)
        self._due.setdefault(one.due, []).append(one)

    async def beat_forever(self) -> None:
        """Go through the seconds, none left out."""
        while True:
            await asyncio.sleep(TICK)
            while self._now < int(self._loop.time()):
                self._now += 1
                for one in self._due.pop(self._now, ()):
                    if one.due == self._now:
                        one.on_due()
