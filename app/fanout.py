"""Delivery of what was committed, on whichever pod, to the sockets of this one.

A pod listens to the channels of the conversations in which it has sockets and of the users who have them, and to
no others. Local and remote changes take the same path through `rooms`, so that all pods agree on the order. Redis
may lose anything: `repair` finds it in PostgreSQL.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID, uuid4

from app import events, news, store, tracing
from app.bus import Bus
from app.canary import Canary
from app.errors import Unauthorized
from app.events import Change, Event
from app.gathering import CONNECT_PAUSE, Gathering
from app.invitations import Invitations
from app.news import Order
from app.repair import Repair
from app.rooms import Connecting, Frame, Invitation, Person, Room, Rooms, Subscriber

# What nobody is in is followed for so long at least, and twice as long at most.
LINGER = 2.5
MAX_REMEMBERED_PRESENCE = 100_000

# Of spans of what goes from pod to pod.
_ON_THE_BUS = {"messaging.system": "redis", "messaging.destination.template": news.CONVERSATION_CHANNEL}

_log = logging.getLogger(__name__)


class Fanout:
    """The sockets of this pod and the news for them; `encode` turns an event into the frame that they send."""

    # Invites the sockets here of a user who was added to a conversation.
    welcome: Callable[[UUID, str], Awaitable[None]]

    def __init__(self, bus: Bus, encode: Callable[[Event], Frame]) -> None:
        self._bus = bus
        self._pod = uuid4().hex.encode()
        self._rooms = Rooms(encode)
        self.repair = Repair(bus, self._rooms, self._on_notice)
        self.canary = Canary(bus)
        self.invitations = Invitations(self._rooms, self._follow)
        # Who was told of whom: the number of the latest change of presence.
        self._presence: dict[tuple[str, str], int] = {}
        # Users whose last socket may have gone since the last sweep, and between the two sweeps before.
        self._left: set[str] = set()
        self._lingering: set[str] = set()
        # Whoever connects at the same time asks together.
        self._admissions = Gathering(
            store.admissions, lambda _: tracing.statement(store.ADMISSIONS), pause=CONNECT_PAUSE
        )
        self._subscribe = Gathering(self._subscribe_all, lambda _: tracing.command("SUBSCRIBE"))
        self._last_seqs = Gathering(_last_seqs, lambda _: tracing.statement(store.LAST_SEQS))
        bus.attach(self._on_message, self.repair.doubt)

    # Sockets come and go.

    async def attach(
        self, subscriber: Subscriber, token_second: int, arrive: Callable[[], Awaitable[None]]
    ) -> None:
        """Put a socket into all its user's conversations; raises Unauthorized for a user who was deleted.

        `arrive` is awaited once the user is let in, before the socket hears anything. When this returns the socket
        is in: the caller must tell the client so before it awaits anything.
        """
        user_id = subscriber.user_id
        person = self._rooms.people.setdefault(user_id, Person())
        meanwhile = person.connecting[subscriber] = Connecting()
        pinned: list[Room] = []
        try:
            await self._listen([news.user_channel(user_id)])
            admitted = await self._admit_token(user_id, token_second)
            pinned = self._rooms.pin(admitted)
            await arrive()
            if await self._follow(pinned):
                # Whoever was removed while the rooms were not followed yet is seen here, and later as a departure.
                admitted = await self._admit_token(user_id, token_second)
            if meanwhile.refused_until >= token_second:
                raise Unauthorized("The user was deleted")
            still = set(admitted) - meanwhile.departures
            person.subscribers[subscriber] = set()
            for room in pinned:
                if room.conversation_id in still:
                    self._rooms.enter(subscriber, room)
        finally:
            del person.connecting[subscriber]
            self._rooms.unpin(pinned)
            self._left.add(user_id)
        for invitation in meanwhile.invitations:
            self.invitations.invite(invitation)

    async def _admit_token(self, user_id: str, token_second: int) -> list[UUID]:
        admitted = await self._admissions((user_id, token_second))
        if admitted is None:
            raise Unauthorized("The user was deleted")
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
            self._rooms.receive(change)
            self._publish(change, tracing.traceparent())

    def reveal(self, conversation_id: UUID) -> None:
        """Deliver a committed message that ended a hiding: all pods read it, and who is told of it before."""
        self.repair.read(conversation_id)
        self._publish(Change(conversation_id, news.UNNUMBERED, news.NOTHING))

    def tell_room(self, conversation_id: UUID, event: Event) -> None:
        """Send an event without a seq to everybody in a conversation; nobody hears themselves type."""
        self._tell_room(conversation_id, event)
        self._publish(Change(conversation_id, news.UNNUMBERED, event))

    def close_room(self, conversation_id: UUID, event: Event) -> None:
        """Tell everybody in a conversation that it is gone: `event` must be `conversation:deleted`."""
        self.tell_room(conversation_id, event)

    def invite(self, invitation: Invitation, *, here: bool) -> None:
        """Let a user's sockets into a conversation, wherever they are, or those of this pod alone."""
        self.invitations.invite(invitation)
        if not here:
            order = Order(news.INVITE, invitation.conversation_id.hex, invitation.seq, invitation.event)
            self._order(invitation.user_id, order)

    def tell(self, user_ids: Iterable[str], event: Event) -> None:
        """Send an event to all sockets of users, wherever they are."""
        for user_id in user_ids:
            self._tell(user_id, event)
            self._order(user_id, Order(news.TELL, event=event))

    def expel(self, user_id: str, until: int) -> None:
        """End all sockets of a user who was deleted at a second, wherever they are."""
        self._expel(user_id, until)
        self._order(user_id, Order(news.EXPEL, number=until))

    def evict(self, user_id: str, socket_id: str) -> None:
        """End one socket of a user, wherever it is: there are too many."""
        self._evict(user_id, socket_id)
        self._order(user_id, Order(news.EVICT, socket_id))

    def _publish(self, change: Change, traceparent: str | None = None) -> None:
        payload = news.write_change(self._pod, change, traceparent)
        self._bus.publish(news.conversation_channel(change.conversation_id), payload)

    def _order(self, user_id: str, order: Order) -> None:
        self._bus.publish(news.user_channel(user_id), news.write_order(self._pod, order))

    # News from other pods.

    def _on_message(self, channel: str, payload: bytes) -> None:
        if payload.startswith(self._pod):
            return
        if channel.startswith(news.CONVERSATION_CHANNEL):
            self._on_change(*news.read_change(channel, payload))
        elif channel.startswith(news.USER_CHANNEL):
            self._on_order(*news.read_order(channel, payload))
        elif channel == self.canary.channel:
            self.canary.returned(payload)

    def _on_change(self, change: Change, traceparent: str) -> None:
        if change.event == news.NOTHING:
            self.repair.read(change.conversation_id)
        elif change.seq == news.UNNUMBERED:
            self._tell_room(change.conversation_id, change.event)
        else:
            with tracing.follow("deliver", "consumer", (traceparent,), _ON_THE_BUS):
                self._rooms.receive(change)

    def _on_order(self, user_id: str, order: Order) -> None:
        if order.kind == news.INVITE:
            self.invitations.invite(Invitation(user_id, UUID(hex=order.subject), order.number, order.event))
        elif order.kind == news.TELL:
            self._tell(user_id, order.event)
        elif order.kind == news.EXPEL:
            self._expel(user_id, order.number)
        elif order.kind == news.EVICT:
            self._evict(user_id, order.subject)

    def _tell_room(self, conversation_id: UUID, event: Event) -> None:
        room = self._rooms.rooms.get(conversation_id)
        if room is not None:
            typist = events.typist(event)
            if typist is None:
                self._rooms.broadcast(room, event)
            else:
                self._rooms.send([one for one in room.subscribers if one.user_id != typist], event)
            if event.name == events.CONVERSATION_DELETED:
                self._rooms.close(room)

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

    def _expel(self, user_id: str, until: int) -> None:
        person = self._rooms.people.get(user_id)
        if person is None:
            return
        for connecting in person.connecting.values():
            connecting.refused_until = max(connecting.refused_until, until)
        for subscriber in list(person.subscribers):
            subscriber.expel(until)

    def _evict(self, user_id: str, socket_id: str) -> None:
        person = self._rooms.people.get(user_id)
        # Those on their way in count as well.
        for subscriber in (*person.subscribers, *person.connecting) if person else ():
            if subscriber.socket_id == socket_id:
                subscriber.evict()

    async def _on_notice(self, notice: store.Row) -> None:
        """Act on what Redis may have lost; most of it is done already."""
        if notice["kind"] == "joined":
            person = self._rooms.people.get(notice["user_id"])
            room = self._rooms.rooms.get(notice["conversation_id"])
            inside = room.subscribers if room else {}
            if person is not None and not inside.keys() >= person.subscribers.keys():
                await self.welcome(notice["conversation_id"], notice["user_id"])
        elif notice["kind"] == "revealed":
            await self._reveal(notice)
        elif notice["kind"] == "dissolved":
            self._tell_room(notice["conversation_id"], events.conversation_deleted(notice["conversation_id"]))
        elif notice["kind"] == "expelled":
            self._expel(notice["user_id"], notice["second"])

    async def _reveal(self, notice: store.Row) -> None:
        """Show a conversation to who had hidden it, unless what ended that was delivered: it was shown before."""
        room = self._rooms.rooms.get(notice["conversation_id"])
        if room is not None and room.delivered is not None and room.delivered < notice["seq"]:
            await self.welcome(notice["conversation_id"], notice["user_id"])

    # Rooms come and go.

    async def _follow(self, rooms: list[Room]) -> bool:
        """Make rooms LIVE: subscribed first, and only then is `last_seq` read, so that nothing falls between.

        Tells whether there was one that was not.
        """
        fresh = [room for room in rooms if room.delivered is None]
        if not fresh:
            return False
        await self._listen([news.conversation_channel(room.conversation_id) for room in fresh])
        last_seqs = await self._last_seqs([room.conversation_id for room in fresh])
        for room in fresh:
            # Another socket that waited for the same room may have been faster.
            if room.delivered is None:
                self._rooms.go_live(room, last_seqs.get(room.conversation_id, 0))
        return True

    async def _listen(self, channels: list[str]) -> None:
        if not all(map(self._bus.hears, channels)):
            await self._subscribe(channels)

    async def _subscribe_all(self, asked: list[list[str]]) -> list[None]:
        await self._bus.subscribe({channel: None for channels in asked for channel in channels})
        return [None] * len(asked)

    async def sweep_forever(self) -> None:
        """Stop following what nobody is in any more; a client that reloads its page is back before that."""
        while True:
            await asyncio.sleep(LINGER)
            await self._sweep()

    async def _sweep(self) -> None:
        channels = [news.conversation_channel(room.conversation_id) for room in self._rooms.drop_empty()]
        lingering, self._lingering, self._left = self._lingering - self._left, self._left, set()
        for user_id in lingering:
            person = self._rooms.people.get(user_id)
            if person is not None and person.is_gone:
                del self._rooms.people[user_id]
                channels.append(news.user_channel(user_id))
        if channels:
            # Nothing is awaited between the removal and this: whoever comes back subscribes after it.
            await self._bus.unsubscribe(channels)


async def _last_seqs(asked: list[list[UUID]]) -> list[dict[UUID, int]]:
    found = await store.last_seqs(list({one for conversation_ids in asked for one in conversation_ids}))
    return [found] * len(asked)
