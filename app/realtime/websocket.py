"""WebSockets (RFC 6455): picows reads their frames, a session takes what they say.

Written for picows 2.3: its protocol object is handed a connection on which the request was read already.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from app.realtime.engine import MAX_MESSAGE_BYTES, Engine
from app.realtime.listener import Request
from app.realtime.session import Session

_READ_BUFFER = 2048
# Of what a fragmented message may consist.
MAX_PARTS = 1024


class _Log(logging.LoggerAdapter[logging.Logger]):
    """Where picows tells what is wrong; given a Logger it would make one for each connection."""

    def info(self, *_: object, **__: object) -> None:
        """Pass over what is told of every connection."""


class WebSocket(WSListener):
    """One WebSocket, and the session that it carries or is about to carry."""

    __slots__ = ("_answer", "_engine", "_is_text", "_parts", "_session", "_ws", "transport")

    def __init__(self, engine: Engine, session: Session | None, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._engine = engine
        self._session = session
        # What the upgrade is answered with.
        self._answer = b""
        # The parts of a fragmented message.
        self._parts: list[bytes] | None = None
        self._is_text = False

    # What picows calls

    def answer(self, answer: bytes) -> None:
        """Keep the answer to the upgrade for a moment, so that it goes with what follows it."""
        self._answer = bytes(answer)

    def on_ws_connected(self, ws: WSTransport) -> None:
        self._ws = ws
        self.transport.set_write_buffer_limits(high=self._engine.max_unsent_bytes)
        answer, self._answer = self._answer, b""
        if self._session is None:
            self._session = self._engine.open_over(self, answer)
        else:
            self.transport.write(answer)
            self._session.upgrade_to(self)

    def on_ws_frame(self, _: WSTransport, frame: WSFrame) -> None:
        if self._session is None:
            return
        kind = frame.msg_type
        try:
            if kind == WSMsgType.TEXT and frame.fin and self._parts is None:
                self._session.take(self, frame.get_payload_as_utf8_text())
            elif kind == WSMsgType.CLOSE:
                self.close()
            elif kind != WSMsgType.PONG:
                self._take_part(self._session, kind, frame)
        except ValueError:
            # What is not UTF-8, a part of no message, or too much of one.
            self.close()

    def _take_part(self, session: Session, kind: WSMsgType, frame: WSFrame) -> None:
        """Put a fragmented message together; raises ValueError where that cannot be."""
        if (kind == WSMsgType.CONTINUATION) is (self._parts is None):
            raise ValueError("this is no part of a message, or one within another")
        if self._parts is None:
            self._parts, self._is_text = [], kind == WSMsgType.TEXT
        self._parts.append(frame.get_payload_as_bytes())
        if sum(map(len, self._parts)) > MAX_MESSAGE_BYTES or len(self._parts) > MAX_PARTS:
            raise ValueError("the message is too large")
        if frame.fin:
            message, self._parts = b"".join(self._parts), None
            if self._is_text:
                session.take(self, message.decode())
            else:
                session.take_message(message)

    def on_ws_disconnected(self, _: WSTransport) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.detach(self)

    def pause_writing(self) -> None:
        """Cut a client that cannot keep up: more waits for it than MAX_UNSENT_BYTES."""
        if self._session is not None:
            self._session.cut()

    def resume_writing(self) -> None:
        """Leave a client that was cut alone."""

    # What its session calls

    def close(self) -> None:
        """Send what was written, say goodbye and close."""
        self._ws.send_close(WSCloseCode.OK)
        self.transport.close()


def take_over(transport: asyncio.Transport, request: Request, websocket: WebSocket, ahead: bytes) -> None:
    """Make a connection a WebSocket; `ahead` was read of it already."""
    protocol = WSProtocol(
        None,  # of clients: host, path
        None,
        False,
        lambda _: WSUpgradeResponseWithListener(_SWITCHING, websocket),
        _LOG,
        True,  # end the connection where the listener fails
        None,  # no deadline: the request is here
        False,  # no pings of its own
        0,
        0,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        True,  # answer pings
        MAX_MESSAGE_BYTES,
        None,
        _READ_BUFFER,
    )
    introduced = _Introduced(transport)
    protocol.connection_made(introduced)
    introduced.write = websocket.answer
    # uvloop keeps the last protocol that took bytes in place of a buffer: not the one with the request in it.
    transport.set_protocol(_NOBODY)
    transport.set_protocol(protocol)
    # Of the request picows is told what it needs: it keeps the headers for as long as the connection lasts.
    unread = _HEAD % request.headers["sec-websocket-key"].encode("latin-1") + ahead
    while unread:
        buffer = protocol.get_buffer(-1)
        part, unread = unread[: len(buffer)], unread[len(buffer) :]
        buffer[: len(part)] = part
        protocol.buffer_updated(len(part))


_NOBODY = asyncio.Protocol()
_LOG = _Log(logging.getLogger("picows"), {})


class _NoSocket:
    """In the place of a socket, which picows asks for a line in a log; uvloop has set what it would set."""

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *_: int) -> None:
        """Leave the socket as it is."""

    def getsockopt(self, *_: int) -> int:
        return 0


class _Introduced:
    """A transport for picows, which shall write to that and not to the socket, as it does where there is TLS."""

    __slots__ = ("_transport", "get_write_buffer_size", "write")

    get_extra_info = {"socket": _NoSocket(), "ssl_object": True}.get

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # picows looks this up once for frames, and anew for its answer.
        self.write: Callable[[bytes], None] = transport.write
        self.get_write_buffer_size = transport.get_write_buffer_size

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


class _Switching(WSUpgradeResponse):
    """The answer to an upgrade; picows sets the header that is different each time."""

    def __init__(self) -> None:
        self.status = HTTPStatus.SWITCHING_PROTOCOLS
        self.headers = self.create_101_response().headers

    def to_bytes(self) -> bytearray:
        return bytearray(_ANSWER % self.headers["Sec-WebSocket-Accept"].encode())


# One for all: what is different in it is written anew before each use.
_SWITCHING = _Switching()
_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nVary: Origin\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)
_HEAD = (
    b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
)
