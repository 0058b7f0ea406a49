"""Subscriptions of this pod: the channels of the conversations and users that have sockets here.

    (absent) ── a socket comes ──▶ subscribed ── nobody for 2.5 to 5 s ──▶ unsubscribed

A room becomes LIVE only after its channel is subscribed and `last_seq` is read, so that nothing falls between.
"""

import asyncio
from collections.abc import Iterable, Mapping
from uuid import UUID

from app.delivery import wire_format
from app.delivery.rooms import Room, Rooms
from app.delivery.streams import Streams
from app.observability import tracing
from app.postgres import conversation_rows
from app.redis.pubsub import PubSub
from app.runtime.batching import Batcher

# An empty room or user stays subscribed for so many seconds at least, and twice as long at most.
LINGER = 2.5


class Subscriptions:
    """Subscribes to channels when they are needed, and unsubscribes a while after they are not."""

    def __init__(self, pubsub: PubSub, rooms: Rooms, streams: Streams) -> None:
        self._pubsub = pubsub
        self._rooms = rooms
        self._streams = streams
        # Users whose last socket may have gone since the last sweep, and between the two sweeps before.
        self._left: set[str] = set()
        self._lingering: set[str] = set()
        self._subscribe = Batcher(self._subscribe_all, lambda _: tracing.command("SUBSCRIBE"))
        self._last_seqs = Batcher(_last_seqs, lambda _: tracing.statement(conversation_rows.LAST_SEQS))

    async def follow_user(self, user_id: str) -> None:
        """Subscribe to the channel of a user."""
        await self._need({wire_format.user_channel(user_id): None})

    async def follow(self, rooms: Iterable[Room]) -> None:
        """Make rooms LIVE; those of conversations that were deleted stay as they are."""
        fresh = [room for room in rooms if room.delivered is None]
        if not fresh:
            return
        await self._need({wire_format.conversation_channel(room.conversation_id): room for room in fresh})
        last_seqs = await self._last_seqs([room.conversation_id for room in fresh])
        for room in fresh:
            last_seq = last_seqs.get(room.conversation_id)
            # Another socket that waited for the same room may have been faster.
            if room.delivered is None and last_seq is not None:
                self._streams.go_live(room, last_seq)

    async def _need(self, channels: Mapping[str, Room | None]) -> None:
        """Subscribe to the channels of rooms, and of users, which have none."""
        if not all(map(self._pubsub.is_subscribed, channels)):
            await self._subscribe(channels)

    async def _subscribe_all(self, wanted: list[Mapping[str, Room | None]]) -> list[None]:
        # Callers may have gone meanwhile: what nobody needs must not be subscribed to after it was swept.
        needed = {
            channel: None
            for channels in wanted
            for channel, room in channels.items()
            if (
                channel.removeprefix(wire_format.USER_CHANNEL) in self._rooms.people
                if room is None
                else not room.is_empty
            )
        }
        if needed:
            await self._pubsub.subscribe(needed)
        return [None] * len(wanted)

    def note_departure(self, user_id: str) -> None:
        """Note that a user's last socket may have gone."""
        self._left.add(user_id)

    async def sweep_forever(self) -> None:
        """Unsubscribe from what nobody needs any more; a client that reloads its page is back before that."""
        while True:
            await asyncio.sleep(LINGER)
            await self.sweep()

    async def sweep(self) -> None:
        """Unsubscribe from what was not needed since the sweep before the last."""
        dropped = self._rooms.drop_empty()
        for room in dropped:
            self._streams.forget_buffered(room)
        channels = [wire_format.conversation_channel(room.conversation_id) for room in dropped]
        lingering, self._lingering, self._left = self._lingering - self._left, self._left, set()
        for user_id in lingering:
            person = self._rooms.people.get(user_id)
            if person is not None and person.is_gone:
                del self._rooms.people[user_id]
                channels.append(wire_format.user_channel(user_id))
        if channels:
            # Nothing is awaited between the removal and this: whoever comes back subscribes after it.
            await self._pubsub.unsubscribe(channels)


async def _last_seqs(wanted: list[list[UUID]]) -> list[dict[UUID, int]]:
    found = await conversation_rows.last_seqs(
        list({one for conversation_ids in wanted for one in conversation_ids})
    )
    return [found] * len(wanted)
