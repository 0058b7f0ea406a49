"""Socket.IO: python-socketio keeps the protocol; clients come and go, and send their events, by a shorter way.

All that is known of python-socketio's insides stands here and in `packets`; written for 5.18, and
`tests/unit/test_hooks.py` fails where that changes.
"""

import logging
from collections.abc import Container
from typing import Any

import socketio
from socketio.packet import CONNECT_ERROR

from app.deps import Deps
from app.realtime.engine import MAX_MESSAGE_BYTES, Engine
from app.realtime.namespace import ChatNamespace
from app.realtime.packets import MalformedEvent, packet_class, read_connect, read_event, read_send
from app.realtime.session import Session
from app.supervisor import Supervisor

# The one namespace that there is.
ROOT = "/"

_log = logging.getLogger(__name__)


class Clients(socketio.AsyncManager):  # type: ignore[misc]
    """Which sockets there are, by the ids of their sessions: python-socketio has tables and rooms of its own."""

    def __init__(self, sockets: Container[str]) -> None:
        super().__init__()
        self._sockets = sockets

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        return eio_sid if namespace == ROOT and eio_sid in self._sockets else None


class SocketIO(socketio.AsyncServer):  # type: ignore[misc]
    """python-socketio's server; what is no Socket.IO is refused like any event, and ends what is no socket yet."""

    eio: Engine

    def __init__(self, deps: Deps, supervisor: Supervisor) -> None:
        self._max_packet_bytes = deps.settings.max_body_bytes
        self.namespace = ChatNamespace(deps, supervisor)
        super().__init__(
            client_manager=Clients(self.namespace.sockets),
            # A driver that needs nothing else: `Engine` takes its place.
            async_mode="asgi",
            # One socket's events one after the other: their order is a promise.
            async_handlers=False,
            # The gate decides about origins, for health checks as well.
            cors_allowed_origins=[],
            serializer=packet_class(self._max_packet_bytes),
            max_http_buffer_size=MAX_MESSAGE_BYTES,
            http_compression=False,
            # The heartbeat does that.
            monitor_clients=False,
            logger=False,
            engineio_logger=False,
        )
        # Whose clients have asked for a socket and are not answered yet.
        self._connecting: set[Session] = set()
        self.eio.on_message = self._handle_eio_message
        self.eio.on_end = self._on_end
        self.eio.take_now = self._take_now

    def _engineio_server_class(self) -> type[Engine]:
        return Engine

    async def _on_end(self, session: Session) -> None:
        self._binary_packet.pop(session.sid, None)
        self.eio.anonymous.leave(session)
        if session.socket is not None:
            await self.namespace.leave(session.socket)

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        session = self.eio.sockets.get(eio_sid)
        if session is None:
            return
        if namespace not in {None, ROOT}:
            await self._refuse(eio_sid, namespace, {"message": "Invalid namespace"})
            if session.socket is None:
                self.namespace.close_later(session)
        elif session.socket is not None:
            raise ValueError("the socket is connected already")
        elif session in self._connecting:
            # One that polls may ask twice at the same time.
            await self._refuse(eio_sid, namespace, "Unable to connect")
        elif not self.eio.anonymous.has_place_beside(len(self._connecting)):
            # Which it had when the session was opened. The client comes back by itself.
            await session.close()
        else:
            session.has_asked = True
            self.eio.anonymous.leave(session)
            self._connecting.add(session)
            try:
                await self.namespace.connect(session, data)
            finally:
                self._connecting.discard(session)

    async def _refuse(self, eio_sid: str, namespace: str | None, why: Any) -> None:
        await self._send_packet(eio_sid, self.packet_class(CONNECT_ERROR, data=why, namespace=namespace))

    async def _handle_disconnect(self, eio_sid: str, namespace: str | None, reason: Any = None) -> None:  # noqa: ARG002 - python-socketio's
        session = self.eio.sockets.get(eio_sid)
        if session is not None and session.socket is not None and namespace in {None, ROOT}:
            self._binary_packet.pop(eio_sid, None)
            await self.namespace.leave(session.socket)

    async def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> None:
        session = self.eio.sockets.get(eio_sid)
        if session is None:
            return
        socket = session.socket
        event = None
        if socket is not None and isinstance(data, str):
            if self._binary_packet.pop(eio_sid, None) is not None:
                # What was to come with an event did not.
                await self.namespace.on_client_event(socket, MalformedEvent(), (), "")
            event = read_event(data, self._max_packet_bytes)
        if event is not None:
            number, name, arguments = event
            await self.namespace.on_client_event(socket, name, arguments, number)
            return
        if session.inbox is not None:
            await session.inbox.settle()
        try:
            auth = read_connect(data) if socket is None else None
            if auth is not None:
                await self._handle_connect(eio_sid, None, auth)
            else:
                await super()._handle_eio_message(eio_sid, data)
        except Exception as error:  # noqa: BLE001 - the namespace raises nothing, so the packet was no packet
            if socket is not None:
                await self.namespace.on_client_event(socket, MalformedEvent(), (), "")
                return
            _log.info("a connection ends: its client does not speak Socket.IO (%s)", error)
            await session.close()

    async def _handle_event(self, eio_sid: str, namespace: str | None, id: str | None, data: Any) -> None:  # noqa: A002 - python-socketio's
        """Take an event that python-socketio has read."""
        session = self.eio.sockets.get(eio_sid)
        if session is not None and session.socket is not None and namespace in {None, ROOT}:
            number = "" if id is None else str(id)
            await self.namespace.on_client_event(session.socket, data[0], data[1:], number)

    def _take_now(self, session: Session, packet: str | bytes) -> bool:
        """Hand what a client says to the writer in this tick, where it is that and nothing must be waited for."""
        socket, sending = session.socket, self.namespace.sending
        if socket is None or not sending.may_be_at_once:
            return False
        if isinstance(packet, bytes) or session.sid in self._binary_packet:
            return False
        read = read_send(packet, self._max_packet_bytes)
        return read is not None and sending.send_now(socket, *read)
