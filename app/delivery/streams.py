"""Ordering: changes enter rooms in the order of `seq`, and people enter and leave at a seq.

    a change arrives:   seq = delivered + 1   out to the room, then what was buffered behind it
                        seq > delivered + 1   buffered; the gap is read from PostgreSQL soon
                        seq ≤ delivered       dropped: it was delivered already

`participant:removed` is the last that the sockets of the one who goes get; whether they were added again meanwhile
is asked of PostgreSQL after each. An invitation counts at its own seq alone: a room that is not there yet lets its
user in when it is, and where the room is further PostgreSQL is asked once more, since a removal may lie between.
"""

from collections.abc import Callable
from uuid import UUID

from app.contract import events
from app.contract.events import Change
from app.delivery.rooms import Invitation, Joining, Room, Rooms

# What all rooms of a pod may hold; what comes beyond that is read from PostgreSQL when the gap is.
MAX_BUFFERED_BYTES = 16 * 2**20
# What may be delivered in a room while PostgreSQL is asked about somebody who enters.
MAX_KEPT_BYTES = 4 * 2**20


class Streams:
    """The changes of all rooms of a pod.

    `on_gap` gets a room that waits for a change; `on_removal` a user who was removed and is known here.
    """

    def __init__(
        self, rooms: Rooms, on_gap: Callable[[UUID], None], on_removal: Callable[[str, UUID], None]
    ) -> None:
        self._rooms = rooms
        self._on_gap = on_gap
        self._on_removal = on_removal
        self._buffered_bytes = 0

    def receive(self, change: Change) -> None:
        """Take in a committed change, from here or from another pod, as often and in whatever order it comes."""
        room = self._rooms.rooms.get(change.conversation_id)
        if room is None:
            return
        delivered = room.delivered
        if delivered is None:
            self._buffer(room, change)
        elif change.seq == delivered + 1:
            self._deliver(room, change)
            self._go_on(room)
        elif change.seq > delivered:
            self._buffer(room, change)
            self._on_gap(room.conversation_id)

    def expect(self, conversation_id: UUID, seq: int) -> None:
        """Note that a conversation has come to a seq: what of it this pod has not got is read."""
        room = self._rooms.rooms.get(conversation_id)
        if room is not None and seq > room.known:
            room.known = seq
            if room.delivered is not None and room.delivered < seq:
                self._on_gap(conversation_id)

    def go_live(self, room: Room, delivered: int) -> None:
        """Begin to deliver what follows a seq."""
        self._rooms.clock += 1
        room.live_since = self._rooms.clock
        room.delivered = delivered
        for seq in [seq for seq in room.buffered if seq <= delivered]:
            self._release(room, seq)
        self._go_on(room)

    def start_afresh(self, room: Room, last_seq: int) -> None:
        """Go on from what PostgreSQL has, which lost what was delivered: the sockets connect and load afresh."""
        room.delivered = last_seq
        self.forget_lost(room)
        for subscriber in list(room.subscribers):
            subscriber.reconnect()

    def close(self, room: Room) -> None:
        """Take everybody out of a room whose conversation was deleted."""
        self.forget_buffered(room)
        self._rooms.close(room)

    def forget_lost(self, room: Room) -> None:
        """Forget what was known of a room beyond what was delivered: PostgreSQL has lost it."""
        self.forget_buffered(room)
        room.known = room.delivered or 0
        for joining in list(room.joining.values()):
            self.abandon(room, joining)
            self._on_removal(joining.user_id, room.conversation_id)

    def forget_buffered(self, room: Room) -> None:
        """Let go what a room holds, which may be read again."""
        for seq in list(room.buffered):
            self._release(room, seq)

    def _buffer(self, room: Room, change: Change) -> None:
        room.known = max(room.known, change.seq)
        weight = len(change.event.data)
        if change.seq not in room.buffered and self._buffered_bytes + weight <= MAX_BUFFERED_BYTES:
            room.buffered[change.seq] = change
            self._buffered_bytes += weight

    def _release(self, room: Room, seq: int) -> Change | None:
        change = room.buffered.pop(seq, None)
        if change is not None:
            self._buffered_bytes -= len(change.event.data)
        return change

    def _go_on(self, room: Room) -> None:
        """Deliver what was buffered behind a change, and report the gap where there is one."""
        while room.buffered and (change := self._release(room, (room.delivered or 0) + 1)) is not None:
            self._deliver(room, change)
        if (room.delivered or 0) < room.known:
            self._on_gap(room.conversation_id)

    def _deliver(self, room: Room, change: Change) -> None:
        room.delivered = change.seq
        self._rooms.broadcast(room, change.event)
        if change.committed and room.subscribers:
            room.committed.append(change.committed)
        leaver = events.removed_user(change.event)
        if leaver is not None:
            self._rooms.dismiss(leaver, room)
            if leaver in self._rooms.people:
                self._on_removal(leaver, room.conversation_id)
        if room.joining:
            self._let_in(room, change)

    # Who enters

    def join(self, room: Room, user_id: str) -> Joining:
        """Begin to let a user into a LIVE room: what it delivers from here on is kept for them."""
        joining = room.joining[user_id] = Joining(user_id)
        return joining

    def abandon(self, room: Room, joining: Joining) -> None:
        """End what was begun by `join`."""
        if room.joining.get(joining.user_id) is joining:
            del room.joining[joining.user_id]
            self._rooms.note_if_empty(room)

    def settle(self, room: Room, joining: Joining, invitation: Invitation) -> None:
        """Let a user into a room when it is at the seq of their invitation, or now where it is beyond that."""
        joining.invitation = invitation
        if room.joining.get(joining.user_id) is not joining:
            # The conversation was deleted, or PostgreSQL lost a part of it, and then it is asked again.
            return
        if room.delivered is not None and room.delivered >= invitation.seq:
            self._enter(room, joining, invitation)
        else:
            self.expect(room.conversation_id, invitation.seq)

    def _let_in(self, room: Room, change: Change) -> None:
        for joining in list(room.joining.values()):
            if joining.invitation is None:
                joining.kept_bytes += len(change.event.data)
                if joining.kept_bytes <= MAX_KEPT_BYTES:
                    joining.kept.append(change)
            elif joining.invitation.seq <= change.seq:
                self._enter(room, joining, joining.invitation)

    def _enter(self, room: Room, joining: Joining, invitation: Invitation) -> None:
        """Send the sockets that are not in yet the conversation and what came after, and let them in."""
        self.abandon(room, joining)
        if joining.kept_bytes > MAX_KEPT_BYTES:
            self._rooms.restart(joining.user_id)
            return
        entering = self._rooms.outside(joining.user_id, room.conversation_id)
        if not entering:
            return
        self._rooms.send(entering, invitation.event)
        for change in joining.kept:
            if change.seq > invitation.seq:
                self._rooms.send(entering, change.event)
                if events.removed_user(change.event) == joining.user_id:
                    return
        for subscriber in entering:
            self._rooms.enter(subscriber, room)
