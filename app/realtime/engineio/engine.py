"""The Engine.IO server: all sessions of this pod, opened, pinged and written to once a tick."""

import asyncio
import logging
from collections.abc import Iterable, Sized
from typing import Any

from app.contract.codec import encode
from app.realtime.engineio.anonymous import Anonymous
from app.realtime.engineio.heartbeat import Heartbeat
from app.realtime.engineio.incoming import Wire
from app.realtime.engineio.library import OPEN, AsyncServer, Packet
from app.realtime.engineio.receiver import Receiver
from app.realtime.engineio.session import Session
from app.realtime.http.requests import Request, Response
from app.realtime.http.session_ids import SessionIds
from app.realtime.websocket.frames import text_frame
from app.runtime.supervisor import Supervisor

_log = logging.getLogger(__name__)

# A packet past this ends the connection; one past MAX_BODY_BYTES is answered with an error.
MAX_MESSAGE_BYTES = 1 << 20
# So many sockets are written to in one tick of the loop, so that a large room does not hold up all others.
MAX_WRITES = 128
# A session that does not ask for a socket is closed after so many seconds.
CONNECT_TIMEOUT = 10


class Engine(AsyncServer):  # type: ignore[misc]
    """All Engine.IO sessions of this pod; their ids name it."""

    sockets: dict[str, Session]
    max_http_buffer_size: int
    ping_interval: int
    ping_timeout: int

    def __init__(
        self,
        receiver: Receiver[Session],
        supervisor: Supervisor,
        session_ids: SessionIds,
        clients: Sized,
        *,
        max_unsent_bytes: int,
        max_clients: int,
        max_anonymous: int,
    ) -> None:
        """Make an engine for the `clients` that `receiver` has let in, and for anonymous sessions beside them."""
        super().__init__(
            # A driver that needs nothing else: `_async` takes its place.
            async_mode="asgi",
            # The gate decides about origins, for health checks as well.
            cors_allowed_origins=[],
            max_http_buffer_size=MAX_MESSAGE_BYTES,
            http_compression=False,
            # The heartbeat does that.
            monitor_clients=False,
            logger=False,
        )
        self.receiver = receiver
        self.supervisor = supervisor
        self.max_unsent_bytes = max_unsent_bytes
        self.heartbeat = Heartbeat()
        self.anonymous = Anonymous(self.sockets, clients, max_clients, max_anonymous, supervisor)
        self._session_ids = session_ids
        # The sessions that write at the end of this tick, in order.
        self._unsent: list[Session] = []
        # What python-engineio's drivers give it; of the WebSocket it asks only that there is one.
        self._async = {
            "asyncio": True,
            "translate_request": _environ,
            "make_response": _response,
            "websocket": True,
        }
        opening = {
            "pingTimeout": self.ping_timeout * 1000,
            "pingInterval": self.ping_interval * 1000,
            "maxPayload": self.max_http_buffer_size,
        }
        # The part of the OPEN packet that is the same for all sessions.
        self._opening = encode(opening).decode().removeprefix("{")

    def generate_id(self) -> str:
        return self._session_ids.new()

    async def _handle_connect(self, _: dict[str, Any], __: str, jsonp_index: int | None = None) -> Any:
        """Open a session that begins with polling."""
        session = Session(self, self.generate_id())
        session.begin_polling()
        session.send_now(Packet(OPEN, self._open(session, '["websocket"]')))
        return self._ok(await session.poll(), jsonp_index=jsonp_index)

    def open_over(self, wire: Wire, answer: bytes) -> Session:
        """Open a session that begins with a WebSocket; what that begins with goes ahead, in one write."""
        session = Session(self, self.generate_id())
        session.attach(wire)
        wire.transport.write(answer + text_frame(b"0" + self._open(session, "[]").encode()))
        return session

    def _open(self, session: Session, upgrades: str) -> str:
        """Register a session; gives its OPEN packet."""
        self.sockets[session.sid] = session
        self.anonymous.enter(session)
        self.heartbeat.wait(session, CONNECT_TIMEOUT)
        return f'{{"sid":"{session.sid}","upgrades":{upgrades},{self._opening}'

    def flush_soon(self, session: Session) -> None:
        """Write what a session has to send at the end of this tick, together with what it gets until then."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(session)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent[:MAX_WRITES], self._unsent[MAX_WRITES:]
        if self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self.flush(unsent)

    @staticmethod
    def flush(sessions: Iterable[Session]) -> None:
        """Write what each has to send, all at once: a write costs more than what is written."""
        for session in sessions:
            unsent = session.unsent
            if unsent is None:
                continue
            session.unsent = None
            try:
                session.transmit(b"".join(unsent) if isinstance(unsent, list) else unsent)
            except Exception:  # noqa: BLE001 - it is logged, and the others are written to
                _log.exception("a connection cannot be written to")
                session.cut()


class _Body:
    """The body of a request, as engineio reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self, _: int) -> bytes:
        return self._body


def _environ(request: Request) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": request.query,
        "CONTENT_LENGTH": str(len(request.body)),
        "wsgi.input": _Body(request.body),
    }


def _response(status: str, headers: list[tuple[str, str]], body: bytes, _: dict[str, Any]) -> Response:
    return Response(int(status.split(" ", 1)[0]), dict(headers), body)
