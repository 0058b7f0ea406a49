"""Socket.IO: python-socketio keeps the protocol, the events of clients take a shorter way into the namespace.

All that is known of python-socketio's insides stands here and in `packets`; written for 5.18, and
`tests/unit/test_hooks.py` fails where that changes.
"""

import logging
import secrets
from typing import Any

import socketio
from socketio.packet import CONNECT_ERROR

from app.deps import Deps
from app.realtime.engine import MAX_MESSAGE_BYTES, Engine
from app.realtime.namespace import ChatNamespace, ConnectAbandonedError
from app.realtime.packets import MalformedEvent, packet_class, read_event, read_send
from app.realtime.session import Session
from app.supervisor import Supervisor

# The one namespace that there is.
ROOT = "/"
RANDOM_BYTES = 15
# What the first request of a connection carried is of no use to anybody.
_ENVIRON: dict[str, Any] = {}

_log = logging.getLogger(__name__)


class Clients(socketio.AsyncManager):  # type: ignore[misc]
    """Which socket stands on which session: two tables, where python-socketio has rooms for each socket."""

    def __init__(self) -> None:
        super().__init__()
        self._sockets: dict[str, str] = {}
        self._sessions: dict[str, str] = {}
        # Those that are on their way in or out.
        self._pending: set[str] = set()

    def get_namespaces(self) -> list[str]:
        return [ROOT]

    async def pre_connect(self, eio_sid: str, _: str) -> str | None:
        if eio_sid in self._sockets:
            return None
        sid = secrets.token_urlsafe(RANDOM_BYTES)
        self._sockets[eio_sid] = sid
        self._sessions[sid] = eio_sid
        self._pending.add(sid)
        return sid

    async def connect(self, sid: str, _: str) -> str:
        self._pending.discard(sid)
        return sid

    def is_connected(self, sid: str | None, _: str) -> bool:
        return sid in self._sessions and sid not in self._pending

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        return self._sockets.get(eio_sid) if namespace == ROOT else None

    def eio_sid_from_sid(self, sid: str, _: str) -> str | None:
        return self._sessions.get(sid)

    def pre_disconnect(self, sid: str, namespace: str) -> str | None:  # noqa: ARG002 - passed by its name
        self._pending.add(sid)
        return self._sessions.get(sid)

    def basic_disconnect(self, sid: str, _: str, **__: Any) -> None:
        eio_sid = self._sessions.pop(sid, None)
        if eio_sid is not None:
            del self._sockets[eio_sid]
        self._pending.discard(sid)


class SocketIO(socketio.AsyncServer):  # type: ignore[misc]
    """python-socketio's server; what is no Socket.IO is refused like any event, and ends what is no socket yet."""

    eio: Engine

    def __init__(self, deps: Deps, supervisor: Supervisor) -> None:
        self._max_packet_bytes = deps.settings.max_body_bytes
        super().__init__(
            client_manager=Clients(),
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
        self.eio.on_open = self._on_open
        self.eio.take_now = self._take_now
        self.namespace = ChatNamespace(deps, supervisor)
        self.register_namespace(self.namespace)

    def _engineio_server_class(self) -> type[Engine]:
        return Engine

    def session_of(self, sid: str) -> Session:
        """Give what carries a socket."""
        return self.eio.sockets[self.manager.eio_sid_from_sid(sid, ROOT)]

    def _on_open(self, eio_sid: str) -> None:
        self.environ[eio_sid] = _ENVIRON

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        session = self.eio.sockets.get(eio_sid)
        if session is not None and namespace in {None, ROOT}:
            if session.socket is not None:
                raise ValueError("the socket is connected already")
            session.has_asked = True
            await super()._handle_connect(eio_sid, namespace, data)
        elif session is not None:
            refusal = {"message": "Invalid namespace"}
            await self._send_packet(eio_sid, self.packet_class(CONNECT_ERROR, data=refusal, namespace=namespace))
            if session.socket is None:
                self.namespace.close_later(session)

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
            await super()._handle_eio_message(eio_sid, data)
        except ConnectAbandonedError:
            return
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
