"""Redis pub/sub between pods, over two connections of this process.

Whatever is published may be lost; PostgreSQL is the truth, and `delivery.repair` reads there what did not arrive.

    DOWN ── Redis takes what is published, has confirmed all channels ──▶ UP ── an error, or no answer ──▶ DOWN

While it is DOWN, in any part, the bus is suspect: nobody waits for it, and `repair` looks every second.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from app.config.types import Url
from app.observability import metrics
from app.observability.logs import LogLimiter
from app.redis import errors as redis_errors
from app.redis import resp
from app.redis.errors import AWAY
from app.redis.resp import Link

HEARTBEAT = 5.0
PUBLISH_TIMEOUT = 2.0
SUBSCRIBE_TIMEOUT = 2.0
# The pause before the next connection; it doubles while connections do not last.
RETRY_DELAY = 0.5
MAX_RETRY_DELAY = 2.0
LASTING = 10.0
# After a loss, until the buses of the other pods are back as well: what cut this one off will have cut off those.
STEADY_AFTER = MAX_RETRY_DELAY + 0.5
# What waits to be published while a batch is under way, in bytes; past it all of it is dropped.
MAX_OUTGOING = 16 * 2**20
# What a command weighs beside its bytes.
OVERHEAD = 64
CHANNELS_PER_COMMAND = 1000

# Shows that Redis still takes what is published; nobody listens to it.
_PROBE = resp.pack("PUBLISH", "chat:probe", b"")
_PING = resp.pack("PING")

_log = logging.getLogger(__name__)


def _ignore(*_: Any) -> None:
    """Stand in until `attach`."""


class Bus:
    """Publishes, and listens to the channels that are subscribed to; `url` names the Redis."""

    def __init__(self, url: Url) -> None:
        self._pool = resp.pool(url)
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0
        self._outgoing_ready = asyncio.Event()
        self._publisher_up = False
        self._listener: Link | None = None
        self._is_silent = False
        # Whether a connection was ever lost, and when the last one came back, by the clock of the event loop.
        self._was_lost = False
        self._back_at = -STEADY_AFTER
        # The channels that the pod wants; done where Redis has confirmed the subscription.
        self._channels: dict[str, asyncio.Future[None]] = {}
        # The first that was done, which stands for all that are: there may be very many.
        self._confirmed: asyncio.Future[None] | None = None
        # How many confirmations of a channel are under way on this connection: the last one counts.
        self._awaited: dict[str, int] = {}
        # Channels that should have been confirmed by now: without them the bus is suspect.
        self._overdue: set[str] = set()
        self._limiter = LogLimiter()
        self._on_message: Callable[[str, bytes], None] = _ignore
        self._on_doubt: Callable[[], None] = _ignore
        self._on_unreadable: Callable[[str], None] = _ignore

    def attach(
        self,
        on_message: Callable[[str, bytes], None],
        on_doubt: Callable[[], None],
        on_unreadable: Callable[[str], None] = _ignore,
    ) -> None:
        """Set the callbacks: a message came, messages may have been lost, a message could not be read."""
        self._on_message, self._on_doubt, self._on_unreadable = on_message, on_doubt, on_unreadable

    @property
    def is_up(self) -> bool:
        return self._publisher_up and self.is_listening

    @property
    def is_steady(self) -> bool:
        """Whether it is UP and, if it was not, has been for so long that those of the other pods are as well."""
        return self.is_up and asyncio.get_running_loop().time() - self._back_at >= STEADY_AFTER

    @property
    def is_listening(self) -> bool:
        return self._listener is not None and not self._overdue

    def publish(self, channel: str, payload: bytes) -> None:
        """Send a message to all that listen; all of one tick go together, none while Redis is away."""
        if not self._publisher_up:
            return
        packed = resp.pack("PUBLISH", channel, payload)
        self._outgoing_bytes += len(packed) + OVERHEAD
        if self._outgoing_bytes > MAX_OUTGOING:
            self._outgoing.clear()
            self._outgoing_bytes = len(packed) + OVERHEAD
            self._on_doubt()
        if not self._outgoing:
            self._outgoing_ready.set()
        self._outgoing.append(packed)

    def hears(self, channel: str) -> bool:
        """Whether Redis has confirmed the subscription to a channel."""
        confirmation = self._channels.get(channel)
        return confirmation is not None and confirmation.done()

    async def subscribe(self, channels: Collection[str]) -> None:
        """Listen to channels; returns when Redis has confirmed all, or at once while the bus is suspect.

        Whoever waits for a confirmation that does not come in time makes it suspect.
        """
        loop = asyncio.get_running_loop()
        fresh = [channel for channel in channels if channel not in self._channels]
        for channel in fresh:
            self._channels[channel] = loop.create_future()
        self._ask_for(fresh)
        waiting = {self._channels[channel]: channel for channel in channels if not self.hears(channel)}
        late = set(waiting)
        if waiting and self.is_listening:
            # Those that are wanted no longer, or were lost with their connection, are done.
            _, late = await asyncio.wait(waiting, timeout=SUBSCRIBE_TIMEOUT)
        # Nobody waits for these any more: as long as they are not confirmed, the bus is suspect.
        if late and self._listener is not None:
            was_listening = self.is_listening
            self._overdue.update(waiting[confirmation] for confirmation in late)
            if was_listening:
                self._on_doubt()

    async def unsubscribe(self, channels: Collection[str]) -> None:
        """Stop listening to channels."""
        gone = [channel for channel in channels if channel in self._channels]
        for channel in gone:
            self._channels.pop(channel).cancel()
            self._settle(channel)
        self._send_channels("UNSUBSCRIBE", gone)

    async def publish_forever(self) -> None:
        """Keep the publishing connection, and write to it what is published."""
        await _keep("publishing", self._publish)

    async def listen_forever(self) -> None:
        """Keep the listening connection, subscribed to all channels, and dispatch what comes."""
        await _keep("listening", self._listen)

    async def _publish(self) -> None:
        link = await resp.connect(self._pool)
        try:
            await _publish_all(link, [_PROBE])
            self._publisher_up = True
            self._note_return()
            # Noticed at once, and not by the next message, which would be lost with it.
            link.on_lost(self._outgoing_ready.set)
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT):
                        await self._outgoing_ready.wait()
                await _publish_all(link, self._take_outgoing() or [_PROBE])
        finally:
            link.close()
            if self._publisher_up:
                self._publisher_up = False
                self._was_lost = True
                self._take_outgoing()
                self._on_doubt()

    def _take_outgoing(self) -> list[bytes]:
        batch, self._outgoing, self._outgoing_bytes = self._outgoing, [], 0
        self._outgoing_ready.clear()
        return batch

    async def _listen(self) -> None:
        link = await resp.connect(self._pool, self._on_replies)
        self._listener = link
        self._is_silent = False
        self._overdue = set(self._channels)
        self._note_return()
        try:
            # Channels that are added from here on are sent by `subscribe` itself.
            self._ask_for(list(self._channels))
            if not self._overdue:
                self._on_doubt()
            await self._stay(link)
        finally:
            link.close()
            self._listener = None
            self._was_lost = True
            self._forget_confirmations()
            self._on_doubt()

    def _note_return(self) -> None:
        """Note that a connection is there; the first ones of a process were not lost before."""
        if self._was_lost:
            self._back_at = asyncio.get_running_loop().time()

    async def _stay(self, link: Link) -> None:
        """Wait while the connection lives; raises what ended it, or TimeoutError where it answers no more."""
        overdue: set[str] = set()
        while True:
            await link.stay(HEARTBEAT)
            if self._is_silent:
                raise TimeoutError("no answer to a heartbeat")
            if not overdue.isdisjoint(self._overdue):
                raise TimeoutError("a subscription was not confirmed")
            overdue = set(self._overdue)
            self._is_silent = True
            link.send([_PING])

    def _ask_for(self, channels: list[str]) -> None:
        if self._listener is not None:
            for channel in channels:
                self._awaited[channel] = self._awaited.get(channel, 0) + 1
        self._send_channels("SUBSCRIBE", channels)

    def _send_channels(self, command: str, channels: list[str]) -> None:
        if self._listener is not None and channels:
            parts = range(0, len(channels), CHANNELS_PER_COMMAND)
            self._listener.send(
                [resp.pack(command, *channels[start : start + CHANNELS_PER_COMMAND]) for start in parts]
            )

    def _on_replies(self, replies: list[Any]) -> None:
        self._is_silent = False
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
            # Without any channel the answer to a heartbeat is no list.
            if not isinstance(reply, list):
                continue
            kind, channel, payload = reply[0], reply[1].decode(), reply[-1]
            if kind == b"message":
                self._dispatch(channel, payload)
            elif kind == b"subscribe":
                self._confirm(channel)

    def _dispatch(self, channel: str, payload: bytes) -> None:
        """Hand a message on; one that cannot be read, garbage or of another release, must not end this."""
        try:
            self._on_message(channel, payload)
        except Exception as error:  # noqa: BLE001 - it is counted, and what was lost is found in PostgreSQL
            metrics.BUS_UNREADABLE.inc()
            if self._limiter.allows(type(error).__name__, time.monotonic()):
                # Not the text of the error: it may quote messages.
                _log.warning("a message of another pod could not be read: %s", _place(error))
            self._on_unreadable(channel)

    def _confirm(self, channel: str) -> None:
        more = self._awaited.pop(channel, 1) - 1
        if more:
            # It was unsubscribed and wanted again: until Redis has read all of that, it is not subscribed.
            self._awaited[channel] = more
            return
        confirmation = self._channels.get(channel)
        if confirmation is not None and not confirmation.done():
            confirmation.set_result(None)
            self._confirmed = self._confirmed or confirmation
            self._channels[channel] = self._confirmed
            self._settle(channel)

    def _settle(self, channel: str) -> None:
        """Note that a channel is not overdue any more; once none is, missed messages are looked for."""
        if channel in self._overdue:
            self._overdue.discard(channel)
            if not self._overdue:
                self._on_doubt()

    def _forget_confirmations(self) -> None:
        """Release all who wait for a confirmation, and wait anew when Redis is back."""
        loop = asyncio.get_running_loop()
        self._awaited.clear()
        self._overdue.clear()
        for channel, confirmation in self._channels.items():
            confirmation.cancel()
            self._channels[channel] = loop.create_future()


async def _keep(purpose: str, connected: Callable[[], Awaitable[None]]) -> None:
    """Keep one connection after the other; while they do not last, the pause between them grows."""
    loop = asyncio.get_running_loop()
    delay = RETRY_DELAY
    while True:
        started = loop.time()
        try:
            await connected()
        except AWAY as error:
            redis_errors.note(error, purpose)
        if loop.time() - started > LASTING:
            delay = RETRY_DELAY
        await asyncio.sleep(delay)
        delay = min(2 * delay, MAX_RETRY_DELAY)


async def _publish_all(link: Link, batch: list[bytes]) -> None:
    async with asyncio.timeout(PUBLISH_TIMEOUT):
        replies = await link.ask(batch)
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply


def _place(error: Exception) -> str:
    """Give the type of an error and where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}"
    return type(error).__name__ + where
