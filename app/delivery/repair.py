"""Repair of gaps: what pub/sub lost is read from PostgreSQL.

Gaps are read a moment after they were found, many rooms and not too many rows at a time: most fill by themselves,
and what is live goes on between two reads. And every 5 s, every second while pub/sub is in doubt, the pod looks
for what was committed since it last looked; what it had not got becomes a gap like any other. The cost of looking
follows what is written, neither the sockets nor the transactions that others leave open.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from itertools import islice
from uuid import UUID

from app.delivery import committed
from app.delivery.committed import Seen
from app.delivery.gaps import Gaps
from app.delivery.rooms import Room, Rooms
from app.delivery.streams import Streams
from app.messages import event_log
from app.observability import metrics
from app.postgres import conversation_rows
from app.postgres.database import AWAY
from app.postgres.transactions import Row
from app.redis.pubsub import PubSub

GAP_PATIENCE = 0.05
LOOK_INTERVAL = 5.0
LOOK_INTERVAL_IN_DOUBT = 1.0
# What one statement reads of gaps: the loop stands still while its rows become events.
ROOMS_AT_ONCE = 50
ROWS_AT_ONCE = 500
# What one look takes in; where there is more the next one follows at once.
WRITTEN_AT_ONCE = 2000
NOTICES_AT_ONCE = 500
VERIFIED_AT_ONCE = 5000

_log = logging.getLogger(__name__)


class Repair:
    """Finds what rooms have not got, and reads it; `on_notice` acts on what changed for people."""

    def __init__(
        self,
        pubsub: PubSub,
        rooms: Rooms,
        streams: Streams,
        gaps: Gaps,
        on_notice: Callable[[Row], Awaitable[None]],
    ) -> None:
        self._pubsub = pubsub
        self._rooms = rooms
        self._streams = streams
        self._gaps = gaps
        self._on_notice = on_notice
        self._look_now = asyncio.Event()
        # What was taken in of changes, and of notices; None before the first look.
        self._changes_seen: Seen | None = None
        self._notices_seen: Seen | None = None
        # One at a time handles notices, and what was read stays here until it is acted on.
        self._notices_lock = asyncio.Lock()
        self._unhandled: deque[Row] = deque()

    def doubt(self) -> None:
        """Look at once: pub/sub may have lost something."""
        self._look_now.set()

    async def fill_forever(self) -> None:
        """Fill the gaps of all rooms."""
        while True:
            await self._gaps.found.wait()
            await asyncio.sleep(GAP_PATIENCE)
            await self.fill()

    async def fill(self) -> None:
        """Fill all gaps that there are now; what fails is left to be filled again, behind all others."""
        left = self._gaps.take()
        part: dict[UUID, bool] = {}
        try:
            while left:
                part = dict(islice(left.items(), ROOMS_AT_ONCE))
                for conversation_id in part:
                    del left[conversation_id]
                # A room that has more is read again when all others were.
                left.update(await self._fill_part(part))
                part = {}
        finally:
            self._gaps.give_back({**left, **part})

    async def _fill_part(self, part: dict[UUID, bool]) -> dict[UUID, bool]:
        """Read what some rooms have not got; gives those that have more."""
        try:
            return await self._read_part(part)
        except AWAY:
            raise
        except Exception:  # noqa: BLE001 - it is logged, and each room by itself is read or starts afresh
            if len(part) == 1:
                _log.exception("what a conversation has cannot be read: its sockets start afresh")
                (conversation_id,) = part
                await self._give_up(conversation_id)
                return {}
            _log.exception("what some conversations have cannot be read: they are read one by one")
        more: dict[UUID, bool] = {}
        for conversation_id, is_late in part.items():
            more.update(await self._fill_part({conversation_id: is_late}))
        return more

    async def _read_part(self, part: dict[UUID, bool]) -> dict[UUID, bool]:
        followed = [room for one in part if (room := self._rooms.rooms.get(one)) and room.delivered is not None]
        if not followed:
            return {}
        # What is announced after the read may not have been committed before it.
        known = {room: room.known for room in followed}
        most = ROWS_AT_ONCE // len(followed)
        changes = await event_log.changes_after(
            {room.conversation_id: room.delivered or 0 for room in followed}, most
        )
        if changes:
            # Read after the changes, so that theirs are among them, and acted on before those are delivered.
            await self._handle_notices()
        for change in changes:
            self._streams.receive(change)
        counts = Counter(change.conversation_id for change in changes)
        metrics.GAPS_REPAIRED.inc(sum(part[conversation_id] for conversation_id in counts))
        for room in followed:
            if room.conversation_id not in counts and (room.delivered or 0) < known[room]:
                await self._give_up(room.conversation_id)
        return {conversation_id: False for conversation_id, count in counts.items() if count >= most}

    async def _give_up(self, conversation_id: UUID) -> None:
        """Go on from what PostgreSQL has, where what is missing cannot be read: it was lost, or is too old."""
        room = self._rooms.rooms.get(conversation_id)
        if room is None:
            return
        delivered = room.delivered
        last_seq = (await conversation_rows.last_seqs([conversation_id])).get(conversation_id)
        # One that was deleted has an event of its own, and one that went on meanwhile is in order.
        if last_seq is None or delivered is None or room.is_closed or room.delivered != delivered:
            return
        if last_seq == delivered:
            self._streams.forget_lost(room)
        else:
            self._start_afresh(room, last_seq)

    async def verify_forever(self, returned: asyncio.Event) -> None:
        """Compare all rooms with PostgreSQL whenever that is there anew.

        Where it has less than was delivered, a failover lost commits: those sockets start afresh.
        """
        while True:
            await returned.wait()
            returned.clear()
            try:
                await self.verify()
            except BaseException:
                returned.set()
                raise

    async def verify(self) -> None:
        """Compare all rooms with what PostgreSQL has."""
        followed = [room for room in self._rooms.rooms.values() if room.delivered is not None]
        for start in range(0, len(followed), VERIFIED_AT_ONCE):
            part = followed[start : start + VERIFIED_AT_ONCE]
            before = {room: (room.delivered or 0, room.known) for room in part}
            last_seqs = await conversation_rows.last_seqs([room.conversation_id for room in part])
            for room, (delivered, known) in before.items():
                last_seq = last_seqs.get(room.conversation_id)
                if last_seq is None:
                    # Deleted, which has an event of its own.
                    continue
                if last_seq < delivered:
                    self._start_afresh(room, last_seq)
                elif last_seq < known == room.known:
                    self._streams.forget_lost(room)
                self._streams.expect(room.conversation_id, last_seq)

    def _start_afresh(self, room: Room, last_seq: int) -> None:
        _log.error("PostgreSQL lost what was committed to a conversation: its sockets start afresh")
        self._streams.start_afresh(room, last_seq)

    async def look_forever(self) -> None:
        """Look, from time to time, for what was committed since the last look."""
        while True:
            while await self.look():
                continue
            interval = LOOK_INTERVAL if self._pubsub.is_up else LOOK_INTERVAL_IN_DOUBT
            try:
                async with asyncio.timeout(interval):
                    await self._look_now.wait()
            except TimeoutError:
                pass
            self._look_now.clear()

    async def look(self) -> bool:
        """Take in what was committed since the last look, or the beginning of that; True where there is more."""
        seen = self._changes_seen
        if seen is None:
            # Whatever is committed later than this is found, whatever was before it is compared.
            self._changes_seen = await committed.seen_now()
            self._notices_seen = self._notices_seen or self._changes_seen
            await self.verify()
            return False
        found = await committed.committed_since(seen, WRITTEN_AT_ONCE)
        await self._handle_notices()
        for conversation_id, last_seq in found.last_seqs.items():
            self._streams.expect(conversation_id, last_seq)
        self._changes_seen = found.seen
        if found.seen.xmax < seen.xmax:
            # Another server, which has not seen all that the one before had: it gives the same ids once more.
            await self.verify()
        return found.has_more

    async def _handle_notices(self) -> None:
        """Act on the notices since the last time, on each once; those that fail for a while are kept."""
        async with self._notices_lock:
            has_more = self._notices_seen is not None
            while self._unhandled or has_more:
                while self._unhandled:
                    await self._act_on(self._unhandled[0])
                    self._unhandled.popleft()
                if has_more and self._notices_seen is not None:
                    found = await committed.notices_since(self._notices_seen, NOTICES_AT_ONCE)
                    self._unhandled.extend(found.notices)
                    self._notices_seen, has_more = found.seen, found.has_more

    async def _act_on(self, notice: Row) -> None:
        try:
            await self._on_notice(notice)
        except AWAY:
            raise
        except Exception:  # noqa: BLE001 - it is logged, and those whom it is about load afresh
            _log.exception("a notice could not be acted on: the sockets of its user have to connect again")
            if notice["user_id"] is not None:
                self._rooms.restart(notice["user_id"])
