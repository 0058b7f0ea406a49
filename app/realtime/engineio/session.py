"""One client's Engine.IO session, over long polling or a WebSocket.

    polling ── 2probe ──▶ upgrading ── 5 ──▶ on WebSocket ──▶ closed
       └── the WebSocket ends before: polling ──┘

On WebSocket all frames of one tick of the loop go to the transport together; a session that polls has a queue.
Neither has a task of its own.
"""

from collections.abc import Callable, Iterable

from app.delivery.rooms import Frame
from app.observability import metrics
from app.realtime.engineio.incoming import Incoming, Wire
from app.realtime.engineio.library import CLOSE, MESSAGE, NOOP, PING, Packet, QueueEmpty
from app.realtime.engineio.polling import ByteQueue
from app.realtime.engineio.receiver import Host
from app.realtime.websocket.frames import text_frame

# Above this a client is behind: what is of use only now is not queued for it.
BEHIND_BYTES = 65_536
# A connection that was closed has so many seconds to take what was written.
CLOSE_TIMEOUT = 5


def _discard(_: bytes) -> None:
    """Stand in for the transport of a connection that is over."""


class Session(Incoming):
    """One client's Engine.IO session."""

    __slots__ = (
        "closing",
        "connected",
        "due",
        "has_asked",
        "last_ping",
        "queue",
        "sid",
        "transmit",
        "unsent",
        "upgraded",
        "upgrading",
        "write",
    )

    def __init__(self, server: Host, sid: str) -> None:
        super().__init__(server)
        self.sid = sid
        self.connected = self.upgrading = self.upgraded = self.closing = False
        # Whether a ping waits for its answer.
        self.last_ping = False
        # Whether the client has asked for a socket.
        self.has_asked = False
        self.due = 0
        # On WebSocket, what takes frames; a session that polls has a queue instead.
        self.write: Callable[[bytes], None] | None = None
        # Frames of this tick: none, one, or several.
        self.unsent: bytes | list[bytes] | None = None
        # What takes bytes to the client.
        self.transmit: Callable[[bytes], None] = _discard
        self.queue: ByteQueue | None = None

    # What goes out

    def push(self, sent: Frame) -> None:
        if self.write is None:
            self.enqueue([sent])
        else:
            self.write(sent.wire)

    def enqueue(self, frames: Iterable[Frame]) -> None:
        """Queue frames for the next poll; a client that cannot keep up is cut."""
        if self.closed or self.queue is None:
            return
        for one in frames:
            if self.queue.bytes + len(one.packet) > self.server.max_unsent_bytes:
                self.cut()
                return
            self.queue.put_nowait(Packet(MESSAGE, one.packet.decode()))

    @property
    def is_behind(self) -> bool:
        if self.queue is not None:
            return self.queue.bytes >= BEHIND_BYTES
        return self.wire is not None and self.wire.transport.get_write_buffer_size() >= BEHIND_BYTES

    async def send(self, packet: Packet) -> None:
        """Send a packet: python-engineio awaits it."""
        self.send_now(packet)

    def send_now(self, packet: Packet) -> None:
        """Send a packet of Engine.IO's or Socket.IO's."""
        if self.write is not None:
            self.write(text_frame(packet.encode().encode()))
        elif self.queue is not None:
            self.queue.put_nowait(packet)

    def _write_soon(self, frames: bytes) -> None:
        unsent = self.unsent
        if unsent is None:
            self.unsent = frames
            self.server.flush_soon(self)
        elif isinstance(unsent, list):
            unsent.append(frames)
        else:
            self.unsent = [unsent, frames]

    def cut(self) -> None:
        """End the connection of a client that reads too slowly, and forget what it has not read."""
        metrics.SLOW_CONSUMERS.inc()
        if self.queue is None:
            self._stop_writing()
        else:
            self.queue.discard()
        self._abort()
        self.server.supervisor.once("cut a slow client", self.close(abort=True))

    def _abort(self) -> None:
        if self.wire is not None:
            self.wire.abort()

    async def poll(self) -> list[Packet]:
        """Wait for what a poll is answered with; raises QueueEmpty where it comes to nothing."""
        if self.queue is None:
            raise QueueEmpty
        return await self.queue.take(self.server.ping_interval + self.server.ping_timeout)

    # How it is carried

    def begin_polling(self) -> None:
        self.queue = ByteQueue()
        self.connected = True

    @property
    def may_upgrade(self) -> bool:
        return self.wire is None and not self.closed

    def release_poll(self) -> None:
        """End the poll that waits: its client stops polling before it goes on."""
        if self.queue is not None and self.queue.empty():
            self.send_now(Packet(NOOP))

    def upgrade_to(self, wire: Wire) -> None:
        """Wait for the client to say over a WebSocket that it goes on there."""
        self.wire = wire
        self.upgrading = True

    def attach(self, wire: Wire) -> None:
        """Go on over a WebSocket, with what waited for a poll first."""
        self.wire = wire
        self.write = self._write_soon
        self.transmit = wire.transport.write
        self.connected = self.upgraded = True
        self.upgrading = False
        queue, self.queue = self.queue, None
        while queue is not None and not queue.empty():
            packet = queue.get_nowait()
            if packet is not None and packet.packet_type != NOOP:
                self.send_now(packet)

    def mute(self, wire: Wire) -> None:
        """Know that nothing can be written to a WebSocket any more; what was read of it is still to come."""
        if self.wire is wire and not self.upgrading:
            self._stop_writing()
            if self.inbox is not None and self.inbox.rests_until:
                self.end_now()

    def detach(self, wire: Wire) -> None:
        """Know that a WebSocket is gone; a session that it did not carry yet goes on polling."""
        if self.wire is not wire:
            return
        self.wire = None
        self.due = self.due if not self.closed else 0
        if self.upgrading:
            self.upgrading = False
            return
        self._stop_writing()
        self.end()

    def part(self, wire: Wire) -> None:
        """Know that a WebSocket is about to say goodbye: write what waits, and end with it."""
        if self.wire is wire and not self.upgrading and not self.closed:
            self.server.flush((self,))
            self._stop_writing()
            self.end()

    def _stop_writing(self) -> None:
        self.write = self.transmit = _discard
        self.unsent = None

    @property
    def is_gone(self) -> bool:
        return self.write is _discard or (self.inbox is not None and self.inbox.is_last)

    def end(self) -> None:
        """End a session whose client has gone, once all that it sent before is carried out, or with the writer."""
        if self.inbox is not None and self.inbox.is_busy and not self.inbox.rests_until:
            self.inbox.is_last = True
        else:
            self.end_now()

    def end_now(self) -> None:
        if not self.closing:
            self.closing = True
            self.server.supervisor.once("end a session", self.close(abort=True))

    # Its heartbeat

    def schedule_ping(self) -> None:
        """Ping when it is time: the client has answered."""
        if self.last_ping and not self.closed:
            self.last_ping = False
            self.server.heartbeat.wait(self, self.server.ping_interval)

    async def check_ping_timeout(self) -> bool:
        """Leave it to the heartbeat."""
        return True

    def on_due(self) -> None:
        if self.closed:
            self._abort()
        elif not self.has_asked:
            self.server.supervisor.once("close an idle connection", self.close())
        elif self.is_held:
            # Clients end a connection that is not pinged, whatever else comes on it. The answer may be among what
            # is not read yet.
            self.send_now(Packet(PING))
            self.server.heartbeat.wait(self, self.server.ping_interval)
        elif self.last_ping:
            self.server.supervisor.once("close a silent connection", self.close())
        else:
            self.last_ping = True
            self.send_now(Packet(PING))
            self.server.heartbeat.wait(self, self.server.ping_timeout)

    # Its end

    async def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:  # noqa: ARG002, FBT001, FBT002 - engineio's
        """End the connection, once what was written is out; socket.io-client connects again by itself.

        With `abort` the client is gone, or has asked for it, and no packet is sent to it. The reason is not used.
        """
        if self.closed:
            return
        if not abort:
            self.send_now(Packet(CLOSE))
        self.closed = self.closing = True
        self.server.sockets.pop(self.sid, None)
        if self.queue is not None:
            # Answers a poll that waits.
            self.queue.put_nowait(None)
        self.server.flush((self,))
        self._stop_writing()
        if self.room is not None and not self.room.done():
            self.room.set_result(None)
        if self.inbox is not None:
            self.inbox.discard()
            if self.inbox.is_empty and not self.inbox.is_busy:
                # It knows this session: without it both go at once.
                self.inbox = None
        if self.wire is not None:
            self.wire.close()
            self.server.heartbeat.wait(self, CLOSE_TIMEOUT)
        await self.server.receiver.on_end(self)
