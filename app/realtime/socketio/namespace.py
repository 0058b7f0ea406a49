"""The default namespace of Socket.IO: connect, disconnect, events, token expiry, sockets that are closed."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from app.contract import events
from app.contract.codec import encode
from app.contract.errors import (
    ChatError,
    Conflict,
    Forbidden,
    InternalError,
    PayloadTooLarge,
    ServiceUnavailable,
    Unauthorized,
    ValidationFailed,
)
from app.contract.events import Event
from app.contract.schemas import ConnectAuth
from app.identity import revocation
from app.identity.actor import Actor
from app.observability import metrics, tracing
from app.realtime.engineio.inbox import Inbox, Reply
from app.realtime.engineio.session import Session
from app.realtime.socketio import acks
from app.realtime.socketio.failures import Failures
from app.realtime.socketio.handlers import EVENTS, HANDLERS
from app.realtime.socketio.packets import (
    DISCONNECTED,
    Attachments,
    BinaryEvent,
    ClientEvent,
    MalformedEvent,
    TooLargeEvent,
    acknowledgement,
    connect_frame,
    event_frame,
    message_frame,
    refusal_frame,
)
from app.realtime.socketio.sending import Sending
from app.runtime.supervisor import Supervisor
from app.usecases import sessions
from app.usecases.deps import Deps
from app.usecases.typing import Typing

# A client that will not reconnect by itself has this long to read the reason.
GRACE_AFTER_REFUSAL = 0.5
# The name of a failed event is repeated up to this length.
MAX_NAME = 1024
RANDOM_BYTES = 15


class Socket:
    """One client's socket: a subscriber of `fanout`, and the actor that it acts for."""

    __slots__ = (
        "_authorized_at",
        "_expiry",
        "_namespace",
        "actor",
        "attachments",
        "deps",
        "ending",
        "last_sent_to",
        "link",
        "typing",
        "user_id",
    )

    def __init__(self, namespace: "ChatNamespace", deps: Deps, actor: Actor, session: Session) -> None:
        self._namespace = namespace
        self.deps = deps
        self.actor = actor
        self.user_id = actor.user_id
        self.link = session
        self.typing = Typing(deps, actor)
        self._authorized_at = time.time()
        self._expiry: asyncio.TimerHandle | None = None
        self.last_sent_to: UUID | None = None
        # An event whose binary attachments are still to come.
        self.attachments: Attachments | None = None
        # Why it must end, where that was decided before its client was let in.
        self.ending: ChatError | None = None

    @property
    def socket_id(self) -> str:
        return self.link.sid

    def expel(self, until: int, deleted_at: float) -> None:
        # A token that was shown before is no younger, though the clock of the master was ahead.
        if revocation.is_refused(self.actor.issued_second, until) or self._authorized_at < deleted_at:
            self.end(revocation.refused())

    def evict(self) -> None:
        self.end(Conflict("Another socket of yours was opened, and this is the oldest of too many"))

    def reconnect(self) -> None:
        self._namespace.close_later(self.link)

    def send(self, event: Event) -> None:
        self.link.push(event_frame(event))

    @property
    def inbox(self) -> Inbox:
        """Its received messages, and the acknowledgements that are to come."""
        if self.link.inbox is None:
            self.link.inbox = Inbox(self.link.push, acknowledgement)
        return self.link.inbox

    def succeed(self, event: str) -> None:
        """Count an event that came to its end."""
        _count(event)

    def fail(self, event: str, error: Exception) -> bytes:
        """Tell that an event failed; gives its acknowledgement, as JSON."""
        failure = acks.failure(error, event)
        _count(_known(event), failure.code)
        tracing.describe(is_failure=failure.code == InternalError.code, error__type=failure.code)
        self.send(acks.error_event(failure, event[:MAX_NAME]))
        if not isinstance(failure, ServiceUnavailable):
            self.count_failure()
        return acks.refusal(failure)

    def count_failure(self) -> None:
        """Count what the client did wrong: past a limit it is not read from for a while."""
        rest = self._namespace.failures.count(self.user_id)
        if rest > 0:
            self.link.rest(rest)

    def authorize(self, actor: Actor) -> None:
        """Speak for the user of a token until it expires."""
        if actor is not self.actor:
            self._authorized_at = time.time()
        self.actor = actor
        self.typing.actor = actor
        if self._expiry is not None:
            self._expiry.cancel()
        delay = max(0.0, actor.expires_at - time.time())
        self._expiry = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self.end(Unauthorized("The token has expired: connect again with a new one"))

    def end(self, error: ChatError) -> None:
        """End a socket whose client must act before it reconnects; nothing more is sent to it or read of it."""
        if self.link.socket is not self:
            # It is on its way in, or gone.
            self.ending = error
            return
        self.send(acks.error_event(error, "connect"))
        self.link.push(message_frame(DISCONNECTED))
        self._namespace.leave_soon(self)

    def over(self) -> None:
        """Forget what was to come: the socket is gone."""
        if self._expiry is not None:
            self._expiry.cancel()
        self.typing.stop_all()


class ChatNamespace:
    """All sockets of this pod, and what they may say."""

    def __init__(self, deps: Deps, supervisor: Supervisor) -> None:
        self._deps = deps
        self._supervisor = supervisor
        # By the ids of their sessions.
        self.sockets: dict[str, Socket] = {}
        self.sending = Sending(deps, supervisor)
        self.failures = Failures()
        metrics.SOCKETS.set_function(lambda: len(self.sockets))

    # Connections

    async def connect(self, session: Session, auth: object) -> None:
        """Let a client in, or refuse it by a word; where neither can be it is cut, and comes back by itself."""
        with tracing.entry("connect", _traceparent(auth)):
            try:
                async with self._deps.database.deadline():
                    actor = await sessions.authenticate_socket(self._deps, _token(auth))
                    socket = Socket(self, self._deps, actor, session)
                    too_many = await sessions.connect(self._deps, actor, socket)
            except Exception as error:  # noqa: BLE001 - `_not_let_in` logs it
                await self._not_let_in(session, error)
                return
            if too_many:
                # After the CONNECT of this one: it may be among them.
                asyncio.get_running_loop().call_soon(sessions.make_room, self._deps, socket.user_id, too_many)
            if session.closed or session.closing:
                await self._take_out(socket)
                return
            # Since `sessions.connect` nothing was awaited, so that no event comes before its CONNECT.
            self.sockets[session.sid] = session.socket = socket
            _count("connect")
            socket.authorize(actor)
            # Whoever knows the id of a session speaks for its client: a client is called by another one.
            session.push(connect_frame(secrets.token_urlsafe(RANDOM_BYTES)))
            if socket.ending is not None:
                socket.end(socket.ending)

    async def _not_let_in(self, session: Session, error: Exception) -> None:
        failure = acks.failure(error, "connect")
        _count("connect", failure.code)
        tracing.describe(is_failure=True, error__type=failure.code)
        if isinstance(failure, Unauthorized | Forbidden):
            session.push(refusal_frame(failure.code.lower()))
            self.close_later(session)
        else:
            # Not a refusal: the client shall reconnect by itself, so nothing is sent to it.
            await session.close()

    async def leave(self, socket: Socket) -> None:
        """Take out a socket whose client has left, or whose connection is over."""
        if self._let_go(socket):
            await self._take_out(socket)

    def leave_soon(self, socket: Socket) -> None:
        """Take out a socket whose client was sent a DISCONNECT; nothing more is sent to it or read of it."""
        if self._let_go(socket):
            self._deps.fanout.detach(socket)
            self._supervisor.once("take out a socket", self._take_out(socket))

    def _let_go(self, socket: Socket) -> bool:
        """Forget a socket; False where that was done."""
        if self.sockets.pop(socket.socket_id, None) is None:
            return False
        socket.over()
        socket.link.socket = None
        if not socket.link.closed:
            # A client may leave the namespace and keep its connection, or its poll, open.
            self.close_later(socket.link)
        return True

    async def _take_out(self, socket: Socket) -> None:
        try:
            await sessions.disconnect(self._deps, socket)
        except Exception as error:  # noqa: BLE001 - `acks.failure` logs it; engineio would as well, at length
            acks.failure(error, "disconnect")

    def close_later(self, session: Session) -> None:
        """Close a connection once its client has had the time to read why."""
        if not session.closing:
            session.closing = True
            asyncio.get_running_loop().call_later(GRACE_AFTER_REFUSAL, self._close, session)

    def _close(self, session: Session) -> None:
        if not session.closed:
            self._supervisor.once("close a refused socket", session.close())

    # Events

    async def on_client_event(self, socket: Socket, event: ClientEvent, args: Sequence[Any], number: str) -> None:
        """Handle an event and acknowledge it under its number; a failure is sent as an `error` event too."""
        with tracing.entry(_known(event)):
            try:
                answer = await self._deps.database.serve(lambda: self._handle(socket, event, args, number))
            except Exception as error:  # noqa: BLE001 - `fail` logs it; a socket outlives every error
                answer = socket.fail(event, error)
            else:
                if answer is None:
                    return
                socket.succeed(event)
        reply = Reply(number)
        socket.inbox.expect(reply)
        socket.inbox.answer(reply, answer)

    async def _handle(self, socket: Socket, event: ClientEvent, args: Sequence[Any], number: str) -> bytes | None:
        """Give the answer to an event; None for what is with the writer, and answered from there."""
        if isinstance(event, TooLargeEvent):
            limit = self._deps.settings.max_body_bytes
            raise PayloadTooLarge(f"The packet is larger than {limit} bytes")
        if isinstance(event, MalformedEvent):
            raise ValidationFailed("The packet is not a JSON array that starts with the name of an event")
        if isinstance(event, BinaryEvent):
            raise ValidationFailed("No event takes binary attachments, and all that are announced must come")
        payload = args[0] if args else msgspec.Raw(b"null")
        if event == events.MESSAGE_SEND:
            await self.sending.send(socket, number, payload)
            return None
        handler = HANDLERS.get(event)
        if handler is None:
            raise ValidationFailed(f"There is no event {event[:64]!r}")
        return encode(await handler(socket, payload))


def _count(event: str, outcome: str = "ok") -> None:
    metrics.of(metrics.SOCKET_EVENTS, event, outcome).inc()


def _known(event: str) -> str:
    """Give the name of an event, where it is one of ours."""
    return event if event in EVENTS else "unknown"


def _traceparent(auth: object) -> str | None:
    """Read the place in a trace that a client may send along with its token."""
    found = auth.get("traceparent") if isinstance(auth, dict) else None
    return found if isinstance(found, str) else None


def _token(auth: object) -> str:
    try:
        return msgspec.convert(auth, ConnectAuth).token
    except msgspec.ValidationError as error:
        raise Unauthorized("The token is missing") from error
