"""The fast path between pods: Redis pub/sub over two connections of this process's own.

Whatever is published may be lost; PostgreSQL is the truth, and `fanout` looks there for what did not arrive.

    DOWN ── connected, all channels subscribed again ──▶ UP ── error or 10 s of silence ──▶ DOWN
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any

from redis.asyncio.connection import ConnectionPool
from redis.exceptions import RedisError

from app import resp
from app.resp import Command, Link
from app.setting_types import Url

CONNECT_TIMEOUT = 2.0
HEARTBEAT = 5.0
RETRY_DELAY = 0.5
SUBSCRIBE_TIMEOUT = 2.0
# What waits to be published while a batch is under way; past it the oldest news is let go.
MAX_OUTGOING = 50_000
CHANNELS_PER_COMMAND = 1000

_AWAY = (RedisError, OSError, TimeoutError)
_log = logging.getLogger(__name__)


class Bus:
    """Publishes, and listens to the channels that are subscribed to; `url` names the Redis."""

    def __init__(self, url: Url) -> None:
        self._pool = ConnectionPool.from_url(
            url.reveal(),
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=HEARTBEAT,
            retry=None,
        )
        # As links need it, whatever the URL says.
        self._pool.connection_kwargs["protocol"] = 2
        self._outgoing: list[Command] = []
        self._outgoing_ready = asyncio.Event()
        self._publisher_up = False
        self._away: set[str] = set()
        self._listener: Link | None = None
        self._is_silent = False
        self._channels: dict[str, asyncio.Future[None]] = {}
        self._on_message: Callable[[str, bytes], None] = _ignore
        self._on_doubt: Callable[[], None] = _ignore

    def attach(self, on_message: Callable[[str, bytes], None], on_doubt: Callable[[], None]) -> None:
        """Say who gets the messages, and who is told when some may have been lost."""
        self._on_message, self._on_doubt = on_message, on_doubt

    @property
    def is_up(self) -> bool:
        return self._publisher_up and self.is_listening

    @property
    def is_listening(self) -> bool:
        return self._listener is not None

    def publish(self, channel: str, payload: bytes) -> None:
        """Send a message to all that listen; all of one tick go together, none while Redis is away."""
        if not self._publisher_up:
            return
        if len(self._outgoing) >= MAX_OUTGOING:
            self._outgoing.clear()
            self._on_doubt()
        if not self._outgoing:
            self._outgoing_ready.set()
        self._outgoing.append(("PUBLISH", channel, payload))

    def hears(self, channel: str) -> bool:
        """Tell whether Redis has confirmed a channel."""
        confirmation = self._channels.get(channel)
        return confirmation is not None and confirmation.done()

    async def subscribe(self, channels: Collection[str]) -> None:
        """Listen to channels; returns when Redis has confirmed all, or at once while it is away."""
        fresh = [channel for channel in channels if channel not in self._channels]
        loop = asyncio.get_running_loop()
        for channel in fresh:
            self._channels[channel] = loop.create_future()
        if self._listener is None:
            return
        _send_channels(self._listener, "SUBSCRIBE", fresh)
        waiting = [self._channels[channel] for channel in channels if not self._channels[channel].done()]
        if waiting:
            await asyncio.wait(waiting, timeout=SUBSCRIBE_TIMEOUT)

    async def unsubscribe(self, channels: Collection[str]) -> None:
        """Stop listening to channels."""
        for channel in channels:
            self._channels.pop(channel, None)
        if self._listener is not None:
            _send_channels(self._listener, "UNSUBSCRIBE", list(channels))

    async def publish_forever(self) -> None:
        """Keep the publishing connection, and write to it what is published."""
        while True:
            link = None
            try:
                link = await resp.connect(self._pool)
                self._publisher_up = True
                self._away.discard("publishing")
                await self._publish_over(link)
            except _AWAY as error:
                self._tell("publishing", error)
            finally:
                self._publisher_up = False
                self._outgoing.clear()
                self._outgoing_ready.clear()
                self._on_doubt()
                if link is not None:
                    link.close()
            await asyncio.sleep(RETRY_DELAY)

    async def listen_forever(self) -> None:
        """Keep the listening connection, subscribed to all channels, and hand on what comes."""
        while True:
            link = None
            try:
                link = await resp.connect(self._pool, self._hear)
                _send_channels(link, "SUBSCRIBE", list(self._channels))
                # Channels that are added from here on are sent by `subscribe` itself.
                self._listener = link
                self._away.discard("listening")
                self._on_doubt()
                await self._listen_to(link)
            except _AWAY as error:
                self._tell("listening", error)
            finally:
                self._listener = None
                self._forget_confirmations()
                self._on_doubt()
                if link is not None:
                    link.close()
            await asyncio.sleep(RETRY_DELAY)

    def _tell(self, purpose: str, error: Exception) -> None:
        """Say once that Redis is away, until it is back."""
        if purpose not in self._away:
            _log.warning("Redis is away for %s: %s", purpose, str(error) or type(error).__name__)
        self._away.add(purpose)

    async def _publish_over(self, link: Link) -> None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self._outgoing_ready.wait()
            except TimeoutError:
                self._outgoing.append(("PING",))
            self._outgoing_ready.clear()
            batch, self._outgoing = self._outgoing, []
            async with asyncio.timeout(HEARTBEAT):
                replies = await link.ask(batch)
            for reply in replies:
                if isinstance(reply, RedisError):
                    raise reply

    async def _listen_to(self, link: Link) -> None:
        self._is_silent = False
        while True:
            await link.stay(HEARTBEAT)
            if self._is_silent:
                raise TimeoutError("no answer to a heartbeat")
            self._is_silent = True
            link.send([("PING",)])

    def _hear(self, replies: list[Any]) -> None:
        self._is_silent = False
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
            # Without any channel a heartbeat is answered by a mere word.
            if not isinstance(reply, list):
                continue
            kind, channel, payload = reply[0], reply[1].decode(), reply[-1]
            if kind == b"message":
                self._on_message(channel, payload)
            elif kind == b"subscribe":
                confirmation = self._channels.get(channel)
                if confirmation is not None and not confirmation.done():
                    confirmation.set_result(None)

    def _forget_confirmations(self) -> None:
        """Let go whoever waits for a confirmation, and wait anew when Redis is back."""
        loop = asyncio.get_running_loop()
        for channel, confirmation in self._channels.items():
            if not confirmation.done():
                confirmation.set_result(None)
            self._channels[channel] = loop.create_future()


def _send_channels(link: Link, command: str, channels: list[str]) -> None:
    parts = range(0, len(channels), CHANNELS_PER_COMMAND)
    if channels:
        link.send([(command, *channels[start : start + CHANNELS_PER_COMMAND]) for start in parts])


def _ignore(*_: Any) -> None:
    """Stand in until `attach`."""
