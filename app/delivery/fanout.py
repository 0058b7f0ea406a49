"""Delivery of what was committed, on whichever pod, to the sockets of this one.

A pod listens to the channels of the conversations in which it has sockets and of the users who have them, and to
no others. Local and remote changes take the same path through `rooms`, so that all pods agree on the order. Redis
may lose anything: `repair` finds it in PostgreSQL.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from uuid import UUID, uuid4

from app.contract import events
from app.contract.errors import ServiceUnavailable
from app.contract.events import Change, Event
from app.delivery import wire_format
from app.delivery.canary import Canary
from app.delivery.gaps import Gaps
from app.delivery.membership import Invitations
from app.delivery.repair import Repair
from app.delivery.rooms import Connecting, Frame, Invitation, Person, Room, Rooms, Subscriber
from app.delivery.streams import Streams
from app.delivery.typing import Typists
from app.delivery.wire_format import Order
from app.identity import revocation
from app.observability import tracing
from app.postgres import conversation_rows, participant_rows
from app.postgres.transactions import Row
from app.redis.pubsub import Bus
from app.runtime.batching import CONNECT_PAUSE, Batcher

# What nobody is in is followed for so long at least, and twice as long at most.
LINGER = 2.5
MAX_REMEMBERED_PRESENCE = 100_000
# How often who connects reads where they are, should that change all the time.
MAX_READINGS = 4

# Of spans of what goes from pod to pod.
_ON_THE_BUS = {"messaging.system": "redis", "messaging.destination.template": wire_format.CONVERSATION_CHANNEL}

_log = logging.getLogger(__name__)


class Fanout:
    """The sockets of this pod and the news for them; `encode` turns an event into the frame that they send.

    `invitation` reads what somebody who is in a conversation is to be told of it; None for who is not.
    """

    def __init__(
        self,
        bus: Bus,
        encode: Callable[[Event], Frame],
        invitation: Callable[[UUID, str], Awaitable[Invitation | None]],
    ) -> None:
        self._bus = bus
        self._pod = uuid4().hex.encode()
        self._rooms = Rooms(encode)
        self._gaps = Gaps()
        self._streams = Streams(self._rooms, self._gaps.mark, self._on_removal)
        self._invitation = invitation
        self.repair = Repair(bus, self._rooms, self._streams, self._gaps, self._on_notice)
        self.canary = Canary(bus)
        self.invitations = Invitations(self._rooms, self._streams, self._follow, invitation)
        self._typists = Typists(self._show_typing)
        # Who was told of whom: the number of the latest change of presence.
        self._presence: dict[tuple[str, str], int] = {}
        # Users whose last socket may have gone since the last sweep, and between the two sweeps before.
        self._left: set[str] = set()
        self._lingering: set[str] = set()
        # Whoever connects at the same time asks together.
        self._admissions = Batcher(
            participant_rows.admissions,
            lambda _: tracing.statement(participant_rows.ADMISSIONS),
            pause=CONNECT_PAUSE,
        )
        self._subscribe = Batcher(self._subscribe_all, lambda _: tracing.command("SUBSCRIBE"))
        self._last_seqs = Batcher(_last_seqs, lambda _: tracing.statement(conversation_rows.LAST_SEQS))
        bus.attach(self._on_message, self.repair.doubt, self._on_unreadable)

    # Sockets come and go.

    async def attach(
        self, subscriber: Subscriber, token_second: int, arrive: Callable[[], Awaitable[None]]
    ) -> None:
        """Put a socket into all its user's conversations; raises Unauthorized for a user who was deleted.

        `arrive` is awaited once the user is let in, before the socket hears anything. When this returns the socket
        is in: the caller must tell the client so before it awaits anything.
        """
        user_id, began = subscriber.user_id, time.time()
        person = self._rooms.people.setdefault(user_id, Person())
        meanwhile = person.connecting[subscriber] = Connecting()
        pinned: dict[UUID, Room] = {}
        try:
            await self._listen({wire_format.user_channel(user_id): None})
            clock = self._rooms.clock
            admitted = await self._admit_token(user_id, token_second, pinned)
            await arrive()
            for _ in range(MAX_READINGS):
                await self._follow(pinned.values())
                if not meanwhile.changed and all(room.live_since <= clock for room in pinned.values()):
                    break
                # Whoever was added or removed before a room was followed is seen here, and after that as a change.
                meanwhile.changed.clear()
                clock = self._rooms.clock
                admitted = await self._admit_token(user_id, token_second, pinned)
            if revocation.is_refused(token_second, meanwhile.refused_until) or meanwhile.deleted_at > began:
                raise revocation.refused()
            if meanwhile.must_restart:
                raise ServiceUnavailable
            uncertain = meanwhile.changed.union(
                one for one, room in pinned.items() if room.delivered is None or room.live_since > clock
            )
            person.subscribers[subscriber] = set()
            for conversation_id in admitted:
                if conversation_id not in uncertain:
                    self._rooms.enter(subscriber, pinned[conversation_id])
        finally:
            del person.connecting[subscriber]
            if not person.connecting:
                # A dict keeps the memory of what was in it for as long as it lives.
                person.connecting = {}
            self._rooms.unpin(pinned.values())
            self._left.add(user_id)
        for conversation_id in uncertain:
            self.invitations.check(user_id, conversation_id)

    async def _admit_token(self, user_id: str, token_second: int, pinned: dict[UUID, Room]) -> list[UUID]:
        """Read which conversations a user is in, and pin those that are not pinned yet."""
        admitted = await self._admissions((user_id, token_second))
        if admitted is None:
            raise revocation.refused()
        fresh = [one for one in admitted if one not in pinned] if pinned else admitted
        pinned.update(zip(fresh, self._rooms.pin(fresh), strict=True))
        return admitted

    def detach(self, subscriber: Subscriber) -> None:
        """Take a socket out of everything."""
        self._rooms.leave(subscriber)
        self._left.add(subscriber.user_id)

    # News from use-cases, after their commit.

    def announce(self, change: Change, traceparent: str | None) -> None:
        """Deliver a committed change here and tell the other pods, which go on with the trace that led to it."""
        change.committed = time.time()
        with tracing.follow("announce", "producer", (traceparent,), _ON_THE_BUS):
            self._streams.receive(change)
            self._publish(change, tracing.traceparent())

    def reveal(self, conversation_id: UUID) -> None:
        """Deliver a committed message that ended a hiding: all pods read it, and who is told of it before."""
        self._gaps.read(conversation_id)
        self._publish(Change(conversation_id, wire_format.UNNUMBERED, wire_format.NOTHING))

    def tell_room(self, conversation_id: UUID, event: Event) -> None:
        """Send an event without a seq to everybody in a conversation; nobody hears themselves type."""
        self._tell_room(conversation_id, event, self._pod)
        self._publish(Change(conversation_id, wire_format.UNNUMBERED, event))

    def close_room(self, conversation_id: UUID, event: Event) -> None:
        """Tell everybody in a conversation that it is gone: `event` must be `conversation:deleted`."""
        self.tell_room(conversation_id, event)

    def invite(self, invitation: Invitation) -> None:
        """Let a user's sockets into a conversation, wherever they are."""
        self.invitations.invite(invitation)
        order = Order(wire_format.INVITE, invitation.conversation_id.hex, invitation.seq, invitation.event)
        self._order(invitation.user_id, order)

    @property
    def is_steady(self) -> bool:
        """Whether what is told now reaches the other pods, as far as can be known."""
        return self._bus.is_steady

    def tell(self, user_ids: Iterable[str], event: Event) -> None:
        """Send an event to all sockets of users, wherever they are."""
        for user_id in user_ids:
            self._tell(user_id, event)
            self._order(user_id, Order(wire_format.TELL, event=event))

    def expel(self, user_id: str, until: int) -> None:
        """End all sockets of a user who was deleted at a second, wherever they are."""
        self._expel(user_id, until, time.time())
        self._order(user_id, Order(wire_format.EXPEL, number=until))

    def evict(self, user_id: str, socket_id: str) -> None:
        """End one socket of a user, wherever it is: there are too many."""
        self._evict(user_id, socket_id)
        self._order(user_id, Order(wire_format.EVICT, socket_id))

    def _publish(self, change: Change, traceparent: str | None = None) -> None:
        payload = wire_format.write_change(self._pod, change, traceparent)
        self._bus.publish(wire_format.conversation_channel(change.conversation_id), payload)

    def _order(self, user_id: str, order: Order) -> None:
        self._bus.publish(wire_format.user_channel(user_id), wire_format.write_order(self._pod, order))

    # News from other pods.

    def _on_message(self, channel: str, payload: bytes) -> None:
        if payload.startswith(self._pod):
            return
        if channel.startswith(wire_format.CONVERSATION_CHANNEL):
            self._on_change(*wire_format.read_change(channel, payload), wire_format.origin(payload))
        elif channel.startswith(wire_format.USER_CHANNEL):
            self._on_order(*wire_format.read_order(channel, payload))
        elif channel == self.canary.channel:
            self.canary.returned(payload)

    def _on_unreadable(self, channel: str) -> None:
        """Have what could not be read found in PostgreSQL."""
        if channel.startswith(wire_format.CONVERSATION_CHANNEL):
            self._gaps.mark(UUID(hex=channel.removeprefix(wire_format.CONVERSATION_CHANNEL)))
        else:
            self.repair.doubt()

    def _on_change(self, change: Change, traceparent: str, origin: bytes) -> None:
        if change.event == wire_format.NOTHING:
            self._gaps.read(change.conversation_id)
        elif change.seq == wire_format.UNNUMBERED:
            self._tell_room(change.conversation_id, change.event, origin)
        else:
            with tracing.follow("deliver", "consumer", (traceparent,), _ON_THE_BUS):
                self._streams.receive(change)

    def _on_order(self, user_id: str, order: Order) -> None:
        if order.kind == wire_format.INVITE:
            self.invitations.invite(Invitation(user_id, UUID(hex=order.subject), order.number, order.event))
        elif order.kind == wire_format.TELL:
            self._tell(user_id, order.event)
        elif order.kind == wire_format.EXPEL:
            self._expel(user_id, order.number, time.time())
        elif order.kind == wire_format.EVICT:
            self._evict(user_id, order.subject)
        else:
            raise ValueError("an order of an unknown kind")

    def _tell_room(self, conversation_id: UUID, event: Event, origin: bytes) -> None:
        room = self._rooms.rooms.get(conversation_id)
        if room is not None:
            typing = events.typing(event)
            if typing is not None:
                user_id, is_typing = typing
                self._typists.hear(conversation_id, user_id, origin, is_typing=is_typing)
                return
            self._rooms.broadcast(room, event)
            if event.name == events.CONVERSATION_DELETED:
                self._streams.close(room)

    def _show_typing(self, conversation_id: UUID, user_id: str, event: Event) -> None:
        """Nobody hears themselves type."""
        room = self._rooms.rooms.get(conversation_id)
        if room is not None:
            self._rooms.send([one for one in room.subscribers if one.user_id != user_id], event)

    def _tell(self, user_id: str, event: Event) -> None:
        person = self._rooms.people.get(user_id)
        if person is not None and not self._is_old_news(user_id, event):
            self._rooms.send(person.subscribers, event)

    def _is_old_news(self, user_id: str, event: Event) -> bool:
        """Tell whether somebody heard already that another came or went, or of what that one did since.

        A change may be told twice, and two pods may tell of two changes out of order.
        """
        change = events.presence_change(event)
        if change is None:
            return False
        whom, number = change
        last = self._presence.pop((user_id, whom), 0)
        self._presence[user_id, whom] = max(last, number)
        if len(self._presence) > MAX_REMEMBERED_PRESENCE:
            del self._presence[next(iter(self._presence))]
        return number <= last

    def _expel(self, user_id: str, until: int, deleted_at: float) -> None:
        """End the sockets of a user whose tokens were issued up to a second, or shown before the deletion."""
        person = self._rooms.people.get(user_id)
        if person is None:
            return
        for connecting in person.connecting.values():
            connecting.refused_until = max(connecting.refused_until, until)
            connecting.deleted_at = max(connecting.deleted_at, deleted_at)
        for subscriber in list(person.subscribers):
            subscriber.expel(until, deleted_at)

    def _evict(self, user_id: str, socket_id: str) -> None:
        person = self._rooms.people.get(user_id)
        # Those on their way in count as well.
        for subscriber in (*person.subscribers, *person.connecting) if person else ():
            if subscriber.socket_id == socket_id:
                subscriber.evict()

    def _on_removal(self, user_id: str, conversation_id: UUID) -> None:
        """Look whether somebody who was removed was added again, of which this pod may have heard before."""
        self.invitations.check(user_id, conversation_id)

    async def _on_notice(self, notice: Row) -> None:
        """Act on what Redis may have lost; most of it is done already."""
        if notice["kind"] == "joined":
            self.invitations.check(notice["user_id"], notice["conversation_id"])
        elif notice["kind"] == "revealed":
            await self._reveal(notice)
        elif notice["kind"] == "dissolved":
            self._tell_room(
                notice["conversation_id"], events.conversation_deleted(notice["conversation_id"]), self._pod
            )
        elif notice["kind"] == "expelled":
            self._expel(notice["user_id"], int(notice["at"]), notice["at"])

    async def _reveal(self, notice: Row) -> None:
        """Show a conversation to who had hidden it, unless what ended that was delivered: it was shown before."""
        room = self._rooms.rooms.get(notice["conversation_id"])
        # The message may be gone, with its conversation.
        if room is None or room.delivered is None or notice["seq"] is None or room.delivered >= notice["seq"]:
            return
        invitation = await self._invitation(notice["conversation_id"], notice["user_id"])
        if invitation is not None:
            self.invitations.invite(invitation)

    # Rooms come and go.

    async def _follow(self, rooms: Iterable[Room]) -> None:
        """Make rooms LIVE: subscribed first, and only then is `last_seq` read, so that nothing falls between.

        Those of conversations that were deleted stay as they are.
        """
        fresh = [room for room in rooms if room.delivered is None]
        if not fresh:
            return
        await self._listen({wire_format.conversation_channel(room.conversation_id): room for room in fresh})
        last_seqs = await self._last_seqs([room.conversation_id for room in fresh])
        for room in fresh:
            last_seq = last_seqs.get(room.conversation_id)
            # Another socket that waited for the same room may have been faster.
            if room.delivered is None and last_seq is not None:
                self._streams.go_live(room, last_seq)

    async def _listen(self, channels: Mapping[str, Room | None]) -> None:
        """Subscribe to the channels of rooms and of people, who have none."""
        if not all(map(self._bus.hears, channels)):
            await self._subscribe(channels)

    async def _subscribe_all(self, asked: list[Mapping[str, Room | None]]) -> list[None]:
        # Whoever asked may have gone meanwhile: what nobody needs must not be subscribed to after it was swept.
        needed = {
            channel: None
            for channels in asked
            for channel, room in channels.items()
            if (
                channel.removeprefix(wire_format.USER_CHANNEL) in self._rooms.people
                if room is None
                else not room.is_empty
            )
        }
        if needed:
            await self._bus.subscribe(needed)
        return [None] * len(asked)

    async def sweep_forever(self) -> None:
        """Stop following what nobody is in any more; a client that reloads its page is back before that."""
        while True:
            await asyncio.sleep(LINGER)
            await self._sweep()

    async def _sweep(self) -> None:
        dropped = self._rooms.drop_empty()
        for room in dropped:
            self._streams.forget_held(room)
        channels = [wire_format.conversation_channel(room.conversation_id) for room in dropped]
        lingering, self._lingering, self._left = self._lingering - self._left, self._left, set()
        for user_id in lingering:
            person = self._rooms.people.get(user_id)
            if person is not None and person.is_gone:
                del self._rooms.people[user_id]
                channels.append(wire_format.user_channel(user_id))
        if channels:
            # Nothing is awaited between the removal and this: whoever comes back subscribes after it.
            await self._bus.unsubscribe(channels)


async def _last_seqs(asked: list[list[UUID]]) -> list[dict[UUID, int]]:
    found = await conversation_rows.last_seqs(
        list({one for conversation_ids in asked for one in conversation_ids})
    )
    return [found] * len(asked)
