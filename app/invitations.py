"""How people enter conversations while they are connected: one after the other, and with nothing left out."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from app import eventlog, events
from app.database import AWAY
from app.events import Event
from app.rooms import Invitation, Room, Rooms

MAX_INVITATIONS = 10_000
CATCH_UP_BATCH = 500

_log = logging.getLogger(__name__)


class Invitations:
    """The invitations of this pod's sockets; `follow` makes rooms LIVE."""

    def __init__(self, rooms: Rooms, follow: Callable[[list[Room]], Awaitable[bool]]) -> None:
        self._rooms = rooms
        self._follow = follow
        self._invitations: asyncio.Queue[Invitation] = asyncio.Queue(MAX_INVITATIONS)
        self._broken_off: Invitation | None = None

    def invite(self, invitation: Invitation) -> None:
        """Let a user's sockets into a conversation; those that are in already hear of it at once."""
        person = self._rooms.people.get(invitation.user_id)
        if person is None:
            return
        for connecting in person.connecting.values():
            connecting.departures.discard(invitation.conversation_id)
            connecting.invitations.append(invitation)
        room = self._rooms.rooms.get(invitation.conversation_id)
        inside = [subscriber for subscriber in person.subscribers if room and subscriber in room.subscribers]
        # Those who are in hear it at once, before what comes next: it ends the hiding of a conversation.
        self._rooms.send(inside, invitation.event)
        if len(inside) < len(person.subscribers):
            try:
                self._invitations.put_nowait(invitation)
            except asyncio.QueueFull:
                _log.error("too many new conversations at once: some sockets learn of theirs when they reconnect")

    async def admit_forever(self) -> None:
        """Let people into the conversations that they were added to, one after the other."""
        while True:
            invitation = self._broken_off or await self._invitations.get()
            self._broken_off = None
            try:
                await self._admit(invitation)
            except AWAY:
                # Begun anew when PostgreSQL is back.
                self._broken_off = invitation
                raise

    async def _admit(self, invitation: Invitation) -> None:
        pinned = self._rooms.pin([invitation.conversation_id])
        room = pinned[0]
        try:
            await self._follow(pinned)
            missed = await self._missed(room, invitation)
            # From here on nothing is awaited, so that the sockets are where the room is.
            person = self._rooms.people.get(invitation.user_id)
            new = [who for who in (person.subscribers if person else ()) if who not in room.subscribers]
            for event in (invitation.event, *missed):
                self._rooms.send(new, event)
            if not missed or events.removed_user(missed[-1]) != invitation.user_id:
                for subscriber in new:
                    self._rooms.enter(subscriber, room)
        finally:
            self._rooms.unpin(pinned)

    @staticmethod
    async def _missed(room: Room, invitation: Invitation) -> list[Event]:
        """Read what came between the invitation and where the room is, or until they went again."""
        missed: list[Event] = []
        position = invitation.seq
        while room.delivered is not None and position < room.delivered:
            changes = await eventlog.changes_after({room.conversation_id: position}, CATCH_UP_BATCH)
            for change in changes:
                if change.seq > room.delivered:
                    break
                missed.append(change.event)
                position = change.seq
                if events.removed_user(change.event) == invitation.user_id:
                    return missed
            if not changes:
                break
        return missed
