"""Read receipts: at most one a second for a reader and a conversation, over all pods, and then the latest."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from redis.asyncio import Redis

from app.contract.events import Event
from app.delivery.fanout import Fanout
from app.redis import scripts
from app.redis.connection import AWAY
from app.runtime.supervisor import Supervisor

INTERVAL_MS = 1000
# Receipts that wait for their second; past it they go out at once.
MAX_WAITING = 100_000

TURN = scripts.read("app.delivery", "receipts.lua")

# A conversation and a reader.
_Key = tuple[UUID, str]


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far a reader has got in a conversation, and the event that tells it."""

    conversation_id: UUID
    user_id: str
    seq: int
    event: Event
    is_large: bool


class Receipts:
    """Sends receipts, each reader's in its turn."""

    def __init__(self, redis: Redis, fanout: Fanout, supervisor: Supervisor) -> None:
        self._turn = scripts.Script(redis, TURN)
        self._fanout = fanout
        self._supervisor = supervisor
        self._waiting: dict[_Key, Receipt] = {}

    async def announce(self, receipt: Receipt) -> None:
        """Send a receipt now, or the latest one as soon as the last is a second old."""
        key = (receipt.conversation_id, receipt.user_id)
        if self._is_replaced(key, receipt):
            return
        wait = await self._wait(receipt)
        if wait < 0:
            return
        if wait == 0 or len(self._waiting) >= MAX_WAITING:
            self._send(receipt)
        # Another may have begun to wait meanwhile.
        elif not self._is_replaced(key, receipt):
            self._waiting[key] = receipt
            asyncio.get_running_loop().call_later(wait / 1000, self._ask_again, key)

    def _is_replaced(self, key: _Key, receipt: Receipt) -> bool:
        """Tell whether one waits already; the later of the two goes on."""
        waiting = self._waiting.get(key)
        if waiting is None:
            return False
        self._waiting[key] = max(receipt, waiting, key=lambda one: one.seq)
        return True

    def _ask_again(self, key: _Key) -> None:
        """Hand the receipt that waits to a task: whatever becomes of that, the next one is free to wait."""
        self._supervisor.once("send a receipt", self.announce(self._waiting.pop(key)))

    async def _wait(self, receipt: Receipt) -> int:
        try:
            name = f"chat:read:{receipt.conversation_id.hex}:{receipt.user_id}"
            wait = await self._turn(keys=[name], args=[receipt.seq, INTERVAL_MS])
        except AWAY:
            # Each pod sends what it has: more than once a second, rather than not at all.
            return 0
        return min(wait, INTERVAL_MS) if isinstance(wait, int) else 0

    def _send(self, receipt: Receipt) -> None:
        if receipt.is_large:
            self._fanout.tell([receipt.user_id], receipt.event)
        else:
            self._fanout.tell_room(receipt.conversation_id, receipt.event)
