"""Membership of people who are connected: who is added enters, one after the other, and nobody is left out.

    invited ──▶ the room stands at the seq ──▶ in
       │        the room is not there yet  ──▶ in when it is (`streams`)
       ▼
      due ──▶ the room is followed ──▶ as above; where it is further, what came since is read ──▶ in
       │                                                                                            ▲
       └──▶ there is no invitation, or a removal after it: PostgreSQL is asked ──▶ not a member, or a new one

What is due stays so until it is done. What cannot be done, or is too much, is made good by closing the transports
of the user's sockets: they come back and load afresh.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from app.contract import events
from app.delivery.rooms import Invitation, Room, Rooms
from app.delivery.streams import Streams
from app.messages import event_log
from app.postgres.database import AWAY

# What all that is due may weigh.
MAX_DUE_BYTES = 16 * 2**20
# What one that is due weighs beside its event.
DUE_BYTES = 500
# What may have come since an invitation for it to be of use.
MAX_MISSED = 500
# What is let in within so many seconds, or tried again.
TIMEOUT = 10.0

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Due:
    """What is known of a user who may have to be let in; without an invitation PostgreSQL is asked."""

    invitation: Invitation | None

    @property
    def weight(self) -> int:
        return DUE_BYTES + (len(self.invitation.event.data) if self.invitation else 0)


class Invitations:
    """Lets the sockets of this pod into conversations.

    `follow` makes rooms LIVE; `read` gives the invitation of who is in a conversation, as PostgreSQL has it now.
    """

    def __init__(
        self,
        rooms: Rooms,
        streams: Streams,
        follow: Callable[[list[Room]], Awaitable[None]],
        read: Callable[[UUID, str], Awaitable[Invitation | None]],
    ) -> None:
        self._rooms = rooms
        self._streams = streams
        self._follow = follow
        self._read = read
        self._due: dict[tuple[str, UUID], Due] = {}
        self._due_bytes = 0
        self._is_due = asyncio.Event()

    def invite(self, invitation: Invitation) -> None:
        """Let a user's sockets into a conversation; those that are in already receive it at once."""
        user_id, conversation_id = invitation.user_id, invitation.conversation_id
        person = self._rooms.people.get(user_id)
        if person is None:
            return
        for connecting in person.connecting.values():
            connecting.changed.add(conversation_id)
        outside = self._rooms.outside(user_id, conversation_id)
        # Those who are in receive it at once, before what comes next: it ends the hiding of a conversation.
        if inside := [subscriber for subscriber in person.subscribers if subscriber not in outside]:
            self._rooms.send(inside, invitation.event)
        if outside:
            room = self._rooms.rooms.get(conversation_id)
            if room is None or not self._enter(room, invitation):
                self._put(user_id, conversation_id, Due(invitation))

    def check(self, user_id: str, conversation_id: UUID) -> None:
        """Have PostgreSQL asked whether sockets of a user that are not in a conversation should be."""
        person = self._rooms.people.get(user_id)
        for connecting in person.connecting.values() if person else ():
            connecting.changed.add(conversation_id)
        if self._rooms.outside(user_id, conversation_id):
            self._put(user_id, conversation_id, Due(None))

    def _put(self, user_id: str, conversation_id: UUID, due: Due) -> None:
        if self._due_bytes + due.weight > MAX_DUE_BYTES:
            _log.warning("too many enter conversations at once: some of their sockets have to connect again")
            self._rooms.restart(user_id)
            return
        self._drop((user_id, conversation_id))
        self._due[user_id, conversation_id] = due
        self._due_bytes += due.weight
        self._is_due.set()

    def _drop(self, key: tuple[str, UUID]) -> None:
        due = self._due.pop(key, None)
        if due is not None:
            self._due_bytes -= due.weight

    async def admit_forever(self) -> None:
        """Let people into the conversations that they were added to, one after the other."""
        while True:
            while not self._due:
                self._is_due.clear()
                await self._is_due.wait()
            await self.admit_next()

    async def admit_next(self) -> None:
        """Do what was due first; while PostgreSQL is away it stays so."""
        (user_id, conversation_id), due = next(iter(self._due.items()))
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._admit(user_id, conversation_id, due.invitation)
        except AWAY:
            # Behind the others, which may fare better.
            if self._due.get((user_id, conversation_id)) is due:
                self._due[user_id, conversation_id] = self._due.pop((user_id, conversation_id))
            raise
        except Exception:  # noqa: BLE001 - it is logged, and those whom it is about load afresh
            _log.exception("a user could not be let into a conversation: their sockets have to connect again")
            self._rooms.restart(user_id)
        # What came for the same meanwhile is still to be done.
        if self._due.get((user_id, conversation_id)) is due:
            self._drop((user_id, conversation_id))

    async def _admit(self, user_id: str, conversation_id: UUID, invitation: Invitation | None) -> None:
        if not self._rooms.outside(user_id, conversation_id):
            return
        pinned = self._rooms.pin([conversation_id])
        room = pinned[0]
        try:
            await self._follow(pinned)
            # Where nothing could be followed, the conversation was deleted.
            if room.delivered is None or (invitation and self._enter(room, invitation)):
                return
            if user_id not in room.joining and not (invitation and await self._enter_late(room, invitation)):
                await self._ask(room, user_id)
        finally:
            self._rooms.unpin(pinned)

    def _enter(self, room: Room, invitation: Invitation) -> bool:
        """Let a user in where the room has not gone beyond their invitation; whoever waits there already is."""
        if room.delivered is None or room.delivered > invitation.seq:
            return False
        joining = room.joining.get(invitation.user_id)
        if joining is None:
            joining = self._streams.join(room, invitation.user_id)
            self._streams.settle(room, joining, invitation)
        # What is being read may be older than the invitation.
        return joining.invitation is not None

    async def _enter_late(self, room: Room, invitation: Invitation) -> bool:
        """Let a user in where the room has gone on, unless they were removed since, or it has gone far."""
        joining = self._streams.join(room, invitation.user_id)
        try:
            end = room.delivered or 0
            changes = await event_log.changes_after({room.conversation_id: invitation.seq}, MAX_MISSED)
            missed = [change for change in changes if change.seq <= end]
            is_whole = len(missed) == end - invitation.seq
            if is_whole and not any(events.removed_user(one.event) == invitation.user_id for one in missed):
                joining.kept[:0] = missed
                self._streams.settle(room, joining, invitation)
        finally:
            if joining.invitation is None:
                self._streams.abandon(room, joining)
        return joining.invitation is not None

    async def _ask(self, room: Room, user_id: str) -> None:
        """Let a user in where PostgreSQL has them, with what it has of the conversation now."""
        joining = self._streams.join(room, user_id)
        try:
            invitation = await self._read(room.conversation_id, user_id)
            if invitation is not None:
                self._streams.settle(room, joining, invitation)
        finally:
            if joining.invitation is None:
                self._streams.abandon(room, joining)
