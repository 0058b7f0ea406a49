"""The events of the default namespace: each becomes a command, an actor and one call of a use-case."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import socketio
from msgspec import Raw
from socketio.exceptions import ConnectionRefusedError as Refused

from app import database, events, ids
from app.auth.actor import Actor
from app.deps import Deps
from app.errors import Forbidden, PayloadTooLarge, Unauthorized, ValidationFailed
from app.events import Event
from app.realtime import acks
from app.realtime.packets import MALFORMED, TOO_LARGE, ClientEvent, event_packet
from app.realtime.transport import GRACE_AFTER_REFUSAL, Transport
from app.schemas import ConnectAuth, SocketSendMessage, decode
from app.supervisor import Supervisor
from app.usecases import messages, sessions

Answer = dict[str, Any]


class Socket:
    """One client's socket: a subscriber of `fanout`, and whom it speaks for."""

    __slots__ = ("actor", "expiry", "transport")

    def __init__(self, actor: Actor, transport: Transport) -> None:
        self.actor = actor
        self.transport = transport
        self.expiry: asyncio.TimerHandle | None = None

    @property
    def user_id(self) -> str:
        return self.actor.user_id

    def deliver(self, frame: str) -> None:
        self.transport.push(frame)

    def send(self, event: Event) -> None:
        self.transport.push(event_packet(event))


class ChatNamespace(socketio.AsyncNamespace):  # type: ignore[misc]
    """All sockets of this pod, and what they may say."""

    def __init__(self, deps: Deps, supervisor: Supervisor) -> None:
        super().__init__("/")
        self._deps = deps
        self._supervisor = supervisor
        self.sockets: dict[str, Socket] = {}
        self._handlers: dict[str, Callable[[Socket, Raw], Awaitable[Answer]]] = {
            events.MESSAGE_SEND: self._message_send,
        }

    async def trigger_event(self, event: str, sid: str, *args: Any) -> Any:
        """Take an event from python-socketio: a client's, or one about a client."""
        if isinstance(event, ClientEvent):
            return await self._on_client_event(event, sid, args)
        if event == "connect":
            return await self._on_connect(sid, args[1])
        return await self._on_disconnect(sid)

    # Connections

    async def _on_connect(self, sid: str, auth: object) -> None:
        server = self.server.eio
        transport = Transport(server, self.server.manager.eio_sid_from_sid(sid, "/"))
        try:
            actor = sessions.authenticate_socket(self._deps, _token(auth))
            socket = Socket(actor, transport)
            async with database.deadline():
                await sessions.connect(self._deps, socket)
        except (Unauthorized, Forbidden) as error:
            self._close_later(transport)
            raise Refused(error.code.lower()) from error
        except Exception as error:  # noqa: BLE001 - `acks.failure` logs it
            # Not a refusal: the client shall come back by itself, so it is told nothing.
            acks.failure(error, "connect")
            await transport.close()
            return
        # From here to the CONNECT packet nothing is awaited, so that no event comes before it.
        self.sockets[sid] = socket
        delay = max(0.0, actor.expires_at - time.time())
        socket.expiry = asyncio.get_running_loop().call_later(delay, self._expire, socket)

    async def _on_disconnect(self, sid: str) -> None:
        socket = self.sockets.pop(sid, None)
        if socket is None:
            return
        if socket.expiry is not None:
            socket.expiry.cancel()
        # A client may leave the namespace and keep its connection, or its poll, open.
        self._close_later(socket.transport)
        await sessions.disconnect(self._deps, socket)

    def _expire(self, socket: Socket) -> None:
        error = Unauthorized("The token has expired: connect again with a new one")
        socket.send(acks.error_event(error, "connect"))
        socket.transport.push_disconnect()
        self._close_later(socket.transport)

    def _close_later(self, transport: Transport) -> None:
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
            async with database.deadline():
                return await self._handle(socket, event, args)
        except Exception as error:  # noqa: BLE001 - `acks.failure` logs it; a socket outlives every error
            failure = acks.failure(error, event)
            socket.send(acks.error_event(failure, str(event)))
            return acks.acknowledgement(failure)

    async def _handle(self, socket: Socket, event: ClientEvent, args: tuple[Any, ...]) -> Answer:
        if event is TOO_LARGE:
            limit = self._deps.settings.max_body_bytes
            raise PayloadTooLarge(f"The packet is larger than {limit} bytes")
        if event is MALFORMED:
            raise ValidationFailed("The packet is not a JSON array that starts with the name of an event")
        handler = self._handlers.get(event)
        if handler is None:
            raise ValidationFailed(f"There is no event {event[:64]!r}")
        payload = args[0] if args else Raw(b"null")
        return await handler(socket, payload)

    async def _message_send(self, socket: Socket, payload: Raw) -> Answer:
        command = decode(SocketSendMessage, payload)
        conversation_id = ids.from_wire(ids.CONVERSATION, command.conversation_id)
        message, _ = await messages.send_message(self._deps, socket.actor, conversation_id, command)
        return {"ok": True, "message": message}


def _token(auth: object) -> str:
    try:
        return msgspec.convert(auth, ConnectAuth).token
    except msgspec.ValidationError as error:
        raise Unauthorized("The token is missing") from error
