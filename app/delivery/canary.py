"""Canary of pub/sub: a message that this pod publishes to itself every few seconds, to measure loss and delay."""

import asyncio
import time
from uuid import uuid4

from app.observability import metrics
from app.redis.pubsub import PubSub

INTERVAL = 5.0
PATIENCE = 2.0


class Canary:
    """The messages of this pod to itself, on a channel of its own."""

    def __init__(self, pubsub: PubSub) -> None:
        self.channel = f"chat:canary:{uuid4().hex}"
        self._pubsub = pubsub
        self._number = 0
        self._is_back = asyncio.Event()

    async def send_forever(self) -> None:
        """Send one after the other, and count those that do not come back in time."""
        await self._pubsub.subscribe([self.channel])
        while True:
            await asyncio.sleep(INTERVAL)
            self._number += 1
            self._is_back.clear()
            started = time.perf_counter()
            self._pubsub.publish(self.channel, b"%d" % self._number)
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._is_back.wait()
                metrics.CANARY_SECONDS.observe(time.perf_counter() - started)
            except TimeoutError:
                metrics.CANARY_FAILURES.inc()

    def returned(self, payload: bytes) -> None:
        """Take one back; one that comes too late was counted."""
        if payload == b"%d" % self._number:
            self._is_back.set()
