"""What Redis lost is found in PostgreSQL.

Holes are filled a moment after they were found, all those of the pod in one statement: most fill by themselves.
And every 5 s, every second while the bus is in doubt, the pod looks for what was committed since it last looked;
what it had not got becomes a hole like any other. The cost of looking follows what is written, not the sockets.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

from app import eventlog, metrics, store
from app.bus import Bus
from app.rooms import Room, Rooms

HOLE_PATIENCE = 0.05
LOOK_INTERVAL = 5.0
LOOK_INTERVAL_IN_DOUBT = 1.0
BATCH = 500
VERIFIED_AT_ONCE = 5000

_log = logging.getLogger(__name__)


class Repair:
    """Finds and fills the holes of rooms."""

    def __init__(self, bus: Bus, rooms: Rooms, on_notice: Callable[[store.Row], Awaitable[None]]) -> None:
        self._bus = bus
        self._on_notice = on_notice
        self._rooms = rooms
        rooms.on_hole = self.mark
        # Rooms that wait for a change, and whether they should have got it already.
        self._holes: dict[UUID, bool] = {}
        self._hole_found = asyncio.Event()
        self._look_now = asyncio.Event()
        self._horizon: str | None = None
        self._hearing = asyncio.Lock()
        # The ids of the notices since the horizon that were acted on.
        self._heard: set[int] = set()

    def mark(self, conversation_id: UUID) -> None:
        """Note that a room waits for a change that it has not got."""
        self._holes[conversation_id] = True
        self._hole_found.set()

    def read(self, conversation_id: UUID) -> None:
        """Have a room read what was committed: it is not sent around."""
        self._holes.setdefault(conversation_id, False)
        self._hole_found.set()

    def doubt(self) -> None:
        """Look at once: the bus may have lost something."""
        self._look_now.set()

    async def fill_forever(self) -> None:
        """Fill the holes of all rooms."""
        while True:
            await self._hole_found.wait()
            await asyncio.sleep(HOLE_PATIENCE)
            self._hole_found.clear()
            await self._fill()

    async def _fill(self) -> None:
        holes, self._holes = self._holes, {}
        positions = {
            conversation_id: room.delivered
            for conversation_id in holes
            if (room := self._rooms.rooms.get(conversation_id)) is not None and room.delivered is not None
        }
        try:
            changes = await eventlog.changes_after(positions, BATCH) if positions else []
            if changes:
                # Read after the changes, so that theirs are among them, and acted on before those are delivered.
                await self._hear_notices()
        except Exception:
            self._holes = holes | self._holes
            self._hole_found.set()
            raise
        counts: dict[UUID, int] = {}
        for change in changes:
            counts[change.conversation_id] = counts.get(change.conversation_id, 0) + 1
            self._rooms.receive(change)
        metrics.GAPS_REPAIRED.inc(sum(holes[conversation_id] for conversation_id in counts))
        for conversation_id, count in counts.items():
            if count == BATCH:
                self.read(conversation_id)

    async def verify_forever(self, returned: asyncio.Event) -> None:
        """Compare all rooms with PostgreSQL whenever that is there anew.

        Where it has less than was delivered, a failover lost commits: those sockets start afresh.
        """
        while True:
            await returned.wait()
            returned.clear()
            await self._verify()

    async def _verify(self) -> None:
        followed = [room for room in self._rooms.rooms.values() if room.delivered is not None]
        for start in range(0, len(followed), VERIFIED_AT_ONCE):
            part = followed[start : start + VERIFIED_AT_ONCE]
            delivered = {room: room.delivered or 0 for room in part}
            last_seqs = await store.last_seqs([room.conversation_id for room in part])
            for room, seq in delivered.items():
                last_seq = last_seqs.get(room.conversation_id)
                if last_seq is not None and last_seq > seq:
                    self.mark(room.conversation_id)
                elif last_seq is not None and last_seq < seq:
                    self._start_afresh(room, last_seq)

    def _start_afresh(self, room: Room, last_seq: int) -> None:
        _log.error("PostgreSQL lost what was committed to a conversation: its sockets start afresh")
        room.delivered = last_seq
        room.held.clear()
        for subscriber in list(room.subscribers):
            subscriber.reconnect()

    async def look_forever(self) -> None:
        """Look, from time to time, for what was committed since the last look."""
        while True:
            await self._look()
            interval = LOOK_INTERVAL if self._bus.is_up else LOOK_INTERVAL_IN_DOUBT
            try:
                async with asyncio.timeout(interval):
                    await self._look_now.wait()
            except TimeoutError:
                pass
            self._look_now.clear()

    async def _look(self) -> None:
        # The horizon is taken before the rows are read: what commits in between is seen twice, never missed.
        horizon = await store.horizon()
        if self._horizon is not None:
            committed = await store.committed_since(self._horizon)
            await self._hear_notices()
            for conversation_id, last_seq in committed.items():
                room = self._rooms.rooms.get(conversation_id)
                if room is not None and room.delivered is not None and room.delivered < last_seq:
                    self.mark(conversation_id)
        self._horizon = horizon

    async def _hear_notices(self) -> None:
        """Act on the notices since the last look, on each once."""
        async with self._hearing:
            if self._horizon is None:
                return
            notices = await store.notices_since(self._horizon)
            for notice in notices:
                if notice["id"] not in self._heard:
                    await self._on_notice(notice)
            self._heard = {notice["id"] for notice in notices}
