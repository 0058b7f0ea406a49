"""Messages that come in on a session, over polling or a WebSocket: read no faster than they are handled.

    taken ──▶ handled in this tick
      └──▶ waiting in the inbox ── too much of it ──▶ held: nothing more is read ── all is handled ──▶ taken

A WebSocket that is held is not read from; of a client that polls the request waits. Failures hold it as well.
"""

import asyncio
import binascii
from base64 import b64decode
from collections.abc import Iterator
from typing import Any, Protocol

from app.delivery.rooms import Frame
from app.realtime.engineio.inbox import Inbox
from app.realtime.engineio.library import AsyncSocket, EngineIOError
from app.realtime.engineio.receiver import Host

# What one client sent is handled for so many seconds before all others have a turn.
MAX_TURN = 0.001
# So many packets of one client are taken before anybody else has a turn.
MAX_PACKETS = 64
# A client that asks for a socket needs no more bytes for it: nothing larger is read before it has one.
MAX_FIRST_BYTES = 65_536
# What stands between the packets of a payload.
_SEPARATOR = "\x1e"


class Wire(Protocol):
    """A WebSocket, as far as a session knows it."""

    transport: asyncio.Transport

    def abort(self) -> None:
        """End the connection at once, and take nothing more of it."""

    def hold(self) -> None:
        """Take nothing more of the client for now."""

    def go_on(self) -> None:
        """Take what the client sends again, where it was held."""

    def close(self) -> None:
        """Send what was written, say goodbye and close."""


class NotEngineIOError(EngineIOError):  # type: ignore[misc]
    """What a client posted is no payload of Engine.IO, or more than it may send."""


class Incoming(AsyncSocket):  # type: ignore[misc]
    """The part of a session that takes what its client sends."""

    __slots__ = ("closed", "inbox", "is_held", "room", "server", "socket", "wire")

    server: Host

    def __init__(self, server: Host) -> None:
        self.server = server
        self.closed = False
        # What the client became: a socket of the chat. Engine.IO knows nothing of it.
        self.socket: Any = None
        # On WebSocket, or on the way there, what carries it.
        self.wire: Wire | None = None
        self.inbox: Inbox | None = None
        # Whether too much of it waits, so that nothing more is taken, and what a request waits for meanwhile.
        self.is_held = False
        self.room: asyncio.Future[None] | None = None

    def push(self, sent: Frame) -> None:
        """Send a frame."""
        raise NotImplementedError

    def end(self) -> None:
        """End a session whose client has gone, once all that it sent before is carried out."""
        raise NotImplementedError

    def end_now(self) -> None:
        """End a session whose client has gone."""
        raise NotImplementedError

    @property
    def is_gone(self) -> bool:
        """Whether the client has gone, and hears nothing any more."""
        raise NotImplementedError

    @property
    def max_packet_bytes(self) -> int:
        """The size of the largest packet that is read."""
        return self.server.max_http_buffer_size if self.socket is not None else MAX_FIRST_BYTES

    async def handle_post_request(self, environ: dict[str, Any]) -> None:
        """Take the packets of a payload, as fast as they are handled; raises NotEngineIOError.

        The request is the queue of what has no room yet: no other may come meanwhile.
        """
        body = await environ["wsgi.input"].read(0)
        if self.room is not None:
            raise NotEngineIOError("a client posts one payload after the other")
        self.room = asyncio.get_running_loop().create_future()
        try:
            await self._take_payload(body.decode())
        except UnicodeDecodeError as error:
            raise NotEngineIOError("it is not UTF-8") from error
        finally:
            self.room = None

    async def _take_payload(self, payload: str) -> None:
        for number, packet in enumerate(_packets(payload)):
            if len(packet) > MAX_FIRST_BYTES and self.socket is None:
                raise NotEngineIOError("it is larger than what asks for a socket may be")
            if self.take_packet(packet):
                break
            if self.is_held:
                assert self.room is not None
                await self.room
                self.room = asyncio.get_running_loop().create_future()
            elif number % MAX_PACKETS == MAX_PACKETS - 1:
                # Others have their turn.
                await asyncio.sleep(0)
            if self.closed:
                break

    def take_packet(self, packet: str) -> bool:
        """Take a packet of Engine.IO that came with a payload; True for the last. Raises NotEngineIOError."""
        kind = packet[:1]
        if kind == "4":
            self.take_message(packet[1:])
        elif kind == "b":
            try:
                message = b64decode(packet[1:], validate=True)
            except binascii.Error as error:
                raise NotEngineIOError("it is not base64") from error
            self.take_message(message)
        elif kind == "3":
            self.schedule_ping()
        elif kind == "1":
            self.end()
        else:
            raise NotEngineIOError("it is no packet that a client sends")
        return kind == "1"

    def take_message(self, message: str | bytes) -> None:
        """Take in a message; one is handled after the other."""
        if self.inbox is None:
            self.inbox = Inbox(self.push, self.server.receiver.acknowledgement)
        if not self.inbox.is_busy and self.server.receiver.take_now(self, message):
            return
        if self.inbox.put(self.server.receiver.clip(message)):
            self._hold()
        self._begin(self.inbox)

    def rest(self, seconds: float) -> None:
        """Handle nothing more of this client for so long: too much of what it sent failed."""
        if self.closed:
            return
        if self.is_gone:
            # A client that comes back must not find itself there for as long as that.
            self.end_now()
            return
        if self.inbox is None:
            self.inbox = Inbox(self.push, self.server.receiver.acknowledgement)
        self.inbox.rests_until = asyncio.get_running_loop().time() + seconds
        self._begin(self.inbox)

    def _begin(self, inbox: Inbox) -> None:
        if not inbox.is_busy:
            inbox.is_busy = True
            self.server.supervisor.once("handle what a client sent", self._handle(inbox))

    def _hold(self) -> None:
        """Take nothing more of the client until what it sent is handled: that it is there is known."""
        self.is_held = True
        self.schedule_ping()
        if self.wire is not None:
            self.wire.hold()

    def _go_on(self) -> None:
        self.is_held = False
        if self.room is not None and not self.room.done():
            self.room.set_result(None)
        if self.wire is not None:
            self.wire.go_on()

    async def _handle(self, inbox: Inbox) -> None:
        clock = asyncio.get_running_loop().time
        turn = clock() + MAX_TURN
        while (message := await inbox.next()) is not None:
            await self.server.receiver.on_message(self, message)
            if clock() > turn:
                # Others have their turn.
                await asyncio.sleep(0)
                turn = clock() + MAX_TURN
        inbox.is_busy = False
        self._go_on()
        if inbox.is_busy:
            # With what was held; whoever handles that ends what there is to end.
            return
        if inbox.is_empty:
            self.inbox = None
        if inbox.is_last:
            await self.close(abort=True)


def _packets(payload: str) -> Iterator[str]:
    """Take a payload apart, one packet after the other: there may be very many."""
    begin, end = 0, payload.find(_SEPARATOR)
    while end >= 0:
        yield payload[begin:end]
        begin, end = end + 1, payload.find(_SEPARATOR, end + 1)
    if payload:
        yield payload[begin:]
