"""Socket.IO over Engine.IO: packets of a session become a connect, a disconnect or an event of the namespace.

open ── CONNECT ──▶ connecting ──▶ connected ── DISCONNECT ──▶ over
  │                     └── refused ──────────────────────────▶ │
  └── anything else ───────────────────────────────────────────▶ closed at once
"""

import logging

from app.realtime.engineio.engine import Engine
from app.realtime.engineio.session import Session
from app.realtime.http.session_ids import SessionIds
from app.realtime.socketio.namespace import ChatNamespace, Socket
from app.realtime.socketio.packets import (
    ROOT,
    Attachments,
    Connect,
    Disconnect,
    MalformedEvent,
    PacketError,
    acknowledgement,
    clip,
    read_event,
    read_packet,
    read_send,
    refusal_frame,
)
from app.runtime.supervisor import Supervisor
from app.usecases.deps import Deps

_log = logging.getLogger(__name__)


class SocketIO:
    """The Socket.IO protocol of all sessions; a client without a socket may only ask for one."""

    def __init__(self, deps: Deps, supervisor: Supervisor, session_ids: SessionIds, max_anonymous: int) -> None:
        self._max_packet_bytes = deps.settings.max_body_bytes
        self.namespace = ChatNamespace(deps, supervisor)
        self.eio = Engine(
            self,
            supervisor,
            session_ids,
            self.namespace.sockets,
            max_unsent_bytes=deps.settings.max_unsent_bytes,
            max_clients=deps.settings.max_sockets,
            max_anonymous=max_anonymous,
        )
        # Whose clients have asked for a socket and are not answered yet.
        self._connecting: set[Session] = set()

    acknowledgement = staticmethod(acknowledgement)

    async def on_end(self, session: Session) -> None:
        self.eio.anonymous.leave(session)
        if session.socket is not None:
            await self.namespace.leave(session.socket)

    def clip(self, message: str | bytes) -> str | bytes:
        return clip(message, self._max_packet_bytes) if isinstance(message, str) else message

    async def on_message(self, session: Session, message: str | bytes) -> None:
        if session.socket is not None:
            await self._take_of(session.socket, message)
        elif not session.has_asked and not session.closed:
            await self._take_first(session, message)
        # Else it was refused or has left, and its packets are dropped.

    async def _take_first(self, session: Session, message: str | bytes) -> None:
        """Let a client ask for a socket; any other packet ends its session."""
        try:
            packet = read_packet(message, self._max_packet_bytes) if isinstance(message, str) else None
        except PacketError:
            packet = None
        if not isinstance(packet, Connect):
            _log.debug("a session ends: its client does not speak Socket.IO")
            await session.close()
            return
        session.has_asked = True
        if packet.namespace == ROOT:
            await self._let_in(session, packet)
        else:
            session.push(refusal_frame("Invalid namespace", packet.namespace))
            self.namespace.close_later(session)

    async def _let_in(self, session: Session, packet: Connect) -> None:
        if not self.eio.anonymous.has_place_beside(len(self._connecting)):
            # Which it had when the session was opened. The client comes back by itself.
            await session.close()
            return
        self.eio.anonymous.leave(session)
        self._connecting.add(session)
        try:
            await self.namespace.connect(session, packet.auth)
        finally:
            self._connecting.discard(session)

    async def _take_of(self, socket: Socket, message: str | bytes) -> None:
        """Take what comes on a socket; what is no event fails like one."""
        pending, socket.attachments = socket.attachments, None
        if isinstance(message, bytes):
            if pending is None:
                await self._fail(socket)
            elif pending.add(message):
                await self.namespace.on_client_event(socket, pending.name, (), pending.number)
            else:
                socket.attachments = pending
            return
        if pending is not None:
            # What was to come with an event did not.
            await self.namespace.on_client_event(socket, pending.name, (), pending.number)
        event = read_event(message, self._max_packet_bytes)
        if event is not None:
            await self.namespace.on_client_event(socket, event.name, event.arguments, event.number)
        else:
            await self._take_other(socket, message)

    async def _take_other(self, socket: Socket, message: str) -> None:
        try:
            packet = read_packet(message, self._max_packet_bytes)
        except PacketError:
            await self._fail(socket)
            return
        if isinstance(packet, Attachments):
            socket.attachments = packet
        elif isinstance(packet, Disconnect):
            if packet.namespace == ROOT:
                await socket.inbox.settle()
                await self.namespace.leave(socket)
        elif isinstance(packet, Connect):
            if packet.namespace == ROOT:
                await self._fail(socket)
            else:
                socket.link.push(refusal_frame("Invalid namespace", packet.namespace))
                socket.count_failure()
        else:
            await self.namespace.on_client_event(socket, packet.name, packet.arguments, packet.number)

    async def _fail(self, socket: Socket) -> None:
        await self.namespace.on_client_event(socket, MalformedEvent(), (), "")

    def take_now(self, session: Session, packet: str | bytes) -> bool:
        """Submit a message to the send queue in this tick; False for other packets, or where it must wait."""
        socket, sending = session.socket, self.namespace.sending
        if socket is None or not sending.may_be_at_once:
            return False
        if isinstance(packet, bytes) or socket.attachments is not None:
            return False
        read = read_send(packet, self._max_packet_bytes)
        return read is not None and sending.send_now(socket, *read)
