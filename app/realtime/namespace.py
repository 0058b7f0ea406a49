"""The default namespace: sockets come and go, and each event of theirs becomes one call of a use-case."""

import asyncio
import time
from typing import Any

import msgspec
import socketio
from socketio.exceptions import ConnectionRefusedError as Refused

from app.auth.actor import Actor
from app.deps import Deps
from app.errors import ChatError, Conflict, Forbidden, PayloadTooLarge, Unauthorized, ValidationFailed
from app.events import Event
from app.realtime import acks
from app.realtime.handlers import HANDLERS, Answer
from app.realtime.packets import ClientEvent, MalformedEvent, TooLargeEvent, event_packet
from app.realtime.transport import GRACE_AFTER_REFUSAL, Transport
from app.schemas import ConnectAuth
from app.supervisor import Supervisor
from app.usecases import sessions
from app.usecases.typing import Typing


class ConnectAbandonedError(Exception):
    """A connect came to nothing and the transport is closed: the client comes back by itself."""


class Socket:
    """One client's socket: a subscriber of `fanout`, and whom it speaks for."""

    def __init__(self, namespace: "ChatNamespace", deps: Deps, actor: Actor, transport: Transport) -> None:
        self._namespace = namespace
        self.deps = deps
        self.actor = actor
        self.transport = transport
        self.typing = Typing(deps, actor)
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def user_id(self) -> str:
        return self.actor.user_id

    def deliver(self, frame: str) -> None:
        self.transport.push(frame)

    def deliver_if_idle(self, frame: str) -> None:
        self.transport.push_if_idle(frame)

    def expel(self, until: int) -> None:
        if self.actor.issued_second <= until:
            self.end(Unauthorized("The user was deleted"))

    @property
    def socket_id(self) -> str:
        return self.transport.session_id

    def evict(self) -> None:
        self.end(Conflict("Another socket of yours was opened, and this is the oldest of too many"))

    def reconnect(self) -> None:
        self._namespace.close_later(self.transport)

    def send(self, event: Event) -> None:
        self.transport.push(event_packet(event))

    def authorize(self, actor: Actor) -> None:
        """Speak for the user of a token until it expires."""
        self.actor = actor
        self.typing.actor = actor
        if self._expiry is not None:
            self._expiry.cancel()
        expired = Unauthorized("The token has expired: connect again with a new one")
        delay = max(0.0, actor.expires_at - time.time())
        self._expiry = asyncio.get_running_loop().call_later(delay, self.end, expired)

    def end(self, error: ChatError) -> None:
        """End a socket whose client must act before it comes back."""
        self.send(acks.error_event(error, "connect"))
        self.transport.push_disconnect()
        self._namespace.close_later(self.transport)

    def over(self) -> None:
        """Forget what was to come: the socket is gone."""
        if self._expiry is not None:
            self._expiry.cancel()
        self.typing.stop_all()


class ChatNamespace(socketio.AsyncNamespace):  # type: ignore[misc]
    """All sockets of this pod, and what they may say."""

    def __init__(self, deps: Deps, supervisor: Supervisor) -> None:
        super().__init__("/")
        self._deps = deps
        self._supervisor = supervisor
        self.sockets: dict[str, Socket] = {}

    async def trigger_event(self, event: str, sid: str, *args: Any) -> Any:
        """Take an event from python-socketio: a client's, or one about a client."""
        if isinstance(event, ClientEvent):
            return await self._on_client_event(event, sid, args)
        if event == "connect":
            return await self._on_connect(sid, args[1])
        return await self._on_disconnect(sid)

    # Connections

    async def _on_connect(self, sid: str, auth: object) -> None:
        transport = self.server.transport_of(sid)
        try:
            async with self._deps.database.deadline():
                actor = await sessions.authenticate_socket(self._deps, _token(auth))
                socket = Socket(self, self._deps, actor, transport)
                await sessions.connect(self._deps, actor, socket)
        except (Unauthorized, Forbidden) as error:
            self.close_later(transport)
            raise Refused(error.code.lower()) from error
        except Exception as error:
            # Not a refusal: the client shall come back by itself, so it is told nothing.
            acks.failure(error, "connect")
            await transport.close()
            raise ConnectAbandonedError from error
        if transport.is_closed:
            await sessions.disconnect(self._deps, socket)
            raise ConnectAbandonedError
        # From here to the CONNECT packet nothing is awaited, so that no event comes before it.
        self.sockets[sid] = socket
        socket.authorize(actor)
        self._supervisor.once("make room for a socket", sessions.make_room(self._deps, socket))

    async def _on_disconnect(self, sid: str) -> None:
        socket = self.sockets.pop(sid, None)
        if socket is None:
            return
        socket.over()
        # A client may leave the namespace and keep its connection, or its poll, open.
        self.close_later(socket.transport)
        try:
            await sessions.disconnect(self._deps, socket)
        except Exception as error:  # noqa: BLE001 - `acks.failure` logs it; engineio would as well, at length
            acks.failure(error, "disconnect")

    def close_later(self, transport: Transport) -> None:
        """Close a connection once its client has had the time to read why."""

        async def close() -> None:
            await asyncio.sleep(GRACE_AFTER_REFUSAL)
            await transport.close()

        self._supervisor.once("close a refused socket", close())

    # Events

    async def _on_client_event(self, event: ClientEvent, sid: str, args: tuple[Any, ...]) -> Answer | None:
        socket = self.sockets.get(sid)
        if socket is None:
            return None
        try:
            async with self._deps.database.deadline():
                return await self._handle(socket, event, args)
        except Exception as error:  # noqa: BLE001 - `acks.failure` logs it; a socket outlives every error
            failure = acks.failure(error, event)
            socket.send(acks.error_event(failure, str(event)))
            return acks.acknowledgement(failure)

    async def _handle(self, socket: Socket, event: ClientEvent, args: tuple[Any, ...]) -> Answer:
        if isinstance(event, TooLargeEvent):
            limit = self._deps.settings.max_body_bytes
            raise PayloadTooLarge(f"The packet is larger than {limit} bytes")
        if isinstance(event, MalformedEvent):
            raise ValidationFailed("The packet is not a JSON array that starts with the name of an event")
        handler = HANDLERS.get(event)
        if handler is None:
            raise ValidationFailed(f"There is no event {event[:64]!r}")
        return await handler(socket, args[0] if args else msgspec.Raw(b"null"))


def _token(auth: object) -> str:
    try:
        return msgspec.convert(auth, ConnectAuth).token
    except msgspec.ValidationError as error:
        raise Unauthorized("The token is missing") from error
