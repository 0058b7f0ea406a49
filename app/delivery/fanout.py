"""Fan-out: committed changes are published to the other pods, and delivered to the sockets of this one.

A pod subscribes to the channels of the conversations and users that have sockets here, and to no others.
Local and remote changes take the same path through `streams`, so that all pods agree on the order. Redis
may lose anything: `repair` finds it in PostgreSQL.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
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
from app.delivery.subscriptions import Subscriptions
from app.delivery.typing import Typists
from app.delivery.wire_format import Order
from app.identity import revocation
from app.observability import tracing
from app.postgres import participant_rows
from app.postgres.transactions import Row
from app.redis.pubsub import PubSub
from app.runtime.batching import CONNECT_PAUSE, Batcher

MAX_REMEMBERED_PRESENCE = 100_000
# How often who connects reads where they are, should that change all the time.
MAX_READINGS = 4

# Of spans of what goes from pod to pod.
_ON_PUBSUB = {"messaging.system": "redis", "messaging.destination.template": wire_format.CONVERSATION_CHANNEL}

_log = logging.getLogger(__name__)


class Fanout:
    """Publishes and receives events for the sockets of this pod.

    `pubsub` builds the client of Redis from its callbacks; `encode` turns an event into a frame;
    `invitation` reads the `conversation:new` of a member; None for who is not one.
    """

    def __init__(
        self,
        pubsub: Callable[[Callable[[str, bytes], None], Callable[[], None], Callable[[str], None]], PubSub],
        encode: Callable[[Event], Frame],
        invitation: Callable[[UUID, str], Awaitable[Invitation | None]],
    ) -> None:
        self.pubsub = pubsub(self._on_message, self._on_doubt, self._on_unreadable)
        self._pod = uuid4().hex.encode()
        self._rooms = Rooms(encode)
        self._gaps = Gaps()
        self._streams = Streams(self._rooms, self._gaps.mark, self._on_removal)
        self._invitation = invitation
        self.subscriptions = Subscriptions(self.pubsub, self._rooms, self._streams)
        self.repair = Repair(self.pubsub, self._rooms, self._streams, self._gaps, self._on_notice)
        self.canary = Canary(self.pubsub)
        self.invitations = Invitations(self._rooms, self._streams, self.subscriptions.follow, invitation)
        self._typists = Typists(self._show_typing)
        # The number of the latest change of presence that a user was sent of another.
        self._presence: dict[tuple[str, str], int] = {}
        # Whoever connects at the same time asks together.
        self._admissions = Batcher(
            participant_rows.admissions,
            lambda _: tracing.statement(participant_rows.ADMISSIONS),
            pause=CONNECT_PAUSE,
        )

    # Sockets come and go.

    async def attach(
        self, subscriber: Subscriber, token_second: int, arrive: Callable[[], Awaitable[None]]
    ) -> None:
        """Put a socket into all its user's conversations; raises Unauthorized for a user who was deleted.

        `arrive` is awaited once the user is let in, before the socket receives anything. When this returns the
        socket is in: the caller must send CONNECT before it awaits anything.
        """
        user_id, began = subscriber.user_id, time.time()
        person = self._rooms.people.setdefault(user_id, Person())
        meanwhile = person.connecting[subscriber] = Connecting()
        pinned: dict[UUID, Room] = {}
        try:
            await self.subscriptions.follow_user(user_id)
            clock = self._rooms.clock
            admitted = await self._admit_token(user_id, token_second, pinned)
            await arrive()
            for _ in range(MAX_READINGS):
                await self.subscriptions.follow(pinned.values())
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
            self.subscriptions.note_departure(user_id)
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
        self.subscriptions.note_departure(subscriber.user_id)

    # Publishing, by use cases after their commit.

    def announce(self, change: Change, traceparent: str | None) -> None:
        """Deliver a committed change here and publish it; the other pods continue its trace."""
        change.committed = time.time()
        with tracing.follow("announce", "producer", (traceparent,), _ON_PUBSUB):
            self._streams.receive(change)
            self._publish(change, tracing.traceparent())

    def reveal(self, conversation_id: UUID) -> None:
        """Deliver a committed message that ended a hiding: all pods read it, after its `conversation:new`."""
        self._gaps.read(conversation_id)
        self._publish(Change(conversation_id, wire_format.UNNUMBERED, wire_format.NOTHING))

    def publish_to_room(self, conversation_id: UUID, event: Event) -> None:
        """Send an event without a seq to everybody in a conversation; not to who types themselves."""
        self._deliver_to_room(conversation_id, event, self._pod)
        self._publish(Change(conversation_id, wire_format.UNNUMBERED, event))

    def close_room(self, conversation_id: UUID, event: Event) -> None:
        """Send everybody in a conversation that it is deleted: `event` must be `conversation:deleted`."""
        self.publish_to_room(conversation_id, event)

    def invite(self, invitation: Invitation) -> None:
        """Let a user's sockets into a conversation, wherever they are."""
        self.invitations.invite(invitation)
        order = Order(wire_format.INVITE, invitation.conversation_id.hex, invitation.seq, invitation.event)
        self._order(invitation.user_id, order)

    @property
    def is_steady(self) -> bool:
        """Whether what is published now reaches the other pods, as far as can be known."""
        return self.pubsub.is_steady

    def publish_to_users(self, user_ids: Iterable[str], event: Event) -> None:
        """Send an event to all sockets of users, wherever they are."""
        for user_id in user_ids:
            self._deliver_to_user(user_id, event)
            self._order(user_id, Order(wire_format.SEND, event=event))

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
        self.pubsub.publish(wire_format.conversation_channel(change.conversation_id), payload)

    def _order(self, user_id: str, order: Order) -> None:
        self.pubsub.publish(wire_format.user_channel(user_id), wire_format.write_order(self._pod, order))

    # Receiving, from other pods.

    def _on_message(self, channel: str, payload: bytes) -> None:
        if payload.startswith(self._pod):
            return
        if channel.startswith(wire_format.CONVERSATION_CHANNEL):
            self._on_change(*wire_format.read_change(channel, payload), wire_format.origin(payload))
        elif channel.startswith(wire_format.USER_CHANNEL):
            self._on_order(*wire_format.read_order(channel, payload))
        elif channel == self.canary.channel:
            self.canary.returned(payload)

    def _on_doubt(self) -> None:
        """Look at once for what pub/sub may have lost."""
        self.repair.doubt()

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
            self._deliver_to_room(change.conversation_id, change.event, origin)
        else:
            with tracing.follow("deliver", "consumer", (traceparent,), _ON_PUBSUB):
                self._streams.receive(change)

    def _on_order(self, user_id: str, order: Order) -> None:
        if order.kind == wire_format.INVITE:
            self.invitations.invite(Invitation(user_id, UUID(hex=order.subject), order.number, order.event))
        elif order.kind == wire_format.SEND:
            self._deliver_to_user(user_id, order.event)
        elif order.kind == wire_format.EXPEL:
            self._expel(user_id, order.number, time.time())
        elif order.kind == wire_format.EVICT:
            self._evict(user_id, order.subject)
        else:
            raise ValueError("an order of an unknown kind")

    def _deliver_to_room(self, conversation_id: UUID, event: Event, origin: bytes) -> None:
        room = self._rooms.rooms.get(conversation_id)
        if room is not None:
            typing = events.typing(event)
            if typing is not None:
                user_id, is_typing = typing
                self._typists.receive(conversation_id, user_id, origin, is_typing=is_typing)
                return
            self._rooms.broadcast(room, event)
            if event.name == events.CONVERSATION_DELETED:
                self._streams.close(room)

    def _show_typing(self, conversation_id: UUID, user_id: str, event: Event) -> None:
        """Send a typing event to all in a conversation but the one who types."""
        room = self._rooms.rooms.get(conversation_id)
        if room is not None:
            self._rooms.send([one for one in room.subscribers if one.user_id != user_id], event)

    def _deliver_to_user(self, user_id: str, event: Event) -> None:
        person = self._rooms.people.get(user_id)
        if person is not None and not self._is_outdated(user_id, event):
            self._rooms.send(person.subscribers, event)

    def _is_outdated(self, user_id: str, event: Event) -> bool:
        """Whether a user was sent this change of presence already, or a later one.

        A change may be published twice, and two pods may publish two changes out of order.
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
        """Look whether somebody who was removed was added again, which this pod may have received before."""
        self.invitations.check(user_id, conversation_id)

    async def _on_notice(self, notice: Row) -> None:
        """Act on what Redis may have lost; most of it is done already."""
        if notice["kind"] == "joined":
            self.invitations.check(notice["user_id"], notice["conversation_id"])
        elif notice["kind"] == "revealed":
            await self._reveal(notice)
        elif notice["kind"] == "dissolved":
            self._deliver_to_room(
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
