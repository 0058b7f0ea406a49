"""The socket listener: Socket.IO and a health check, and nothing else.

aiohttp carries the bytes for now; only this module and `transport` know it.
"""

import asyncio
import logging
import socket as sockets
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import engineio.payload
import socketio
from aiohttp import web
from msgspec import UNSET

from app import cors
from app.deps import Deps
from app.health import Health
from app.realtime.foreign import ForeignSessions
from app.realtime.namespace import ChatNamespace, ConnectAbandonedError
from app.realtime.packets import packet_class
from app.realtime.session_ids import SessionIds
from app.realtime.transport import Engine, Transport
from app.schemas import ErrorView, encode
from app.supervisor import Supervisor

PATH = "/socket.io/"
# A packet past this ends the connection; one past MAX_BODY_BYTES is answered with an error.
MAX_MESSAGE_BYTES = 1 << 20
# A polling client may join a burst of small packets into one request.
MAX_PACKETS_PER_POST = 4096
# A connection on which nobody asks for a socket is closed after so many seconds.
CONNECT_PATIENCE = 10.0
# The last of the drain time is for what closing a connection takes.
DRAIN_SHARE = 0.8

_log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HEALTH = web.AppKey("health", Health)


class _SocketIO(socketio.AsyncServer):  # type: ignore[misc]
    """python-socketio's server; bytes that are no Socket.IO end the connection that they came on."""

    eio: Engine
    supervisor: Supervisor

    def _engineio_server_class(self) -> type[Engine]:
        return Engine

    def transport_of(self, sid: str) -> Transport:
        """Give what carries the bytes of a socket."""
        return self._transport(self.manager.eio_sid_from_sid(sid, "/"))

    def _transport(self, eio_sid: str) -> Transport:
        return Transport(self.eio, eio_sid, self.environ.get(eio_sid, {}).get("aiohttp.request"))

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, object]) -> None:
        await super()._handle_eio_connect(eio_sid, environ)
        asyncio.get_running_loop().call_later(CONNECT_PATIENCE, self._close_if_idle, eio_sid)

    def _close_if_idle(self, eio_sid: str) -> None:
        """Close a connection on which nobody has asked for a socket."""
        if eio_sid in self.eio.sockets and self.manager.sid_from_eio_sid(eio_sid, "/") is None:
            self.supervisor.once("close an idle connection", self._transport(eio_sid).close())

    async def _handle_eio_message(self, eio_sid: str, data: object) -> None:
        try:
            await super()._handle_eio_message(eio_sid, data)
        except ConnectAbandonedError:
            return
        except Exception as error:  # noqa: BLE001 - the namespace raises nothing, so the packet was no packet
            _log.info("a connection ends: its client does not speak Socket.IO (%s)", error)
            await self._transport(eio_sid).close()


class RealtimeServer:
    """Accepts sockets until it drains."""

    def __init__(
        self, deps: Deps, health: Health, supervisor: Supervisor, foreign: ForeignSessions, session_ids: SessionIds
    ) -> None:
        engineio.payload.Payload.max_decode_packets = MAX_PACKETS_PER_POST
        self._deps = deps
        self._health = health
        self._foreign = foreign
        self._namespace = ChatNamespace(deps, supervisor)
        self._io = _SocketIO(
            async_mode="aiohttp",
            # One socket's events one after the other: their order is a promise.
            async_handlers=False,
            # The middleware decides about origins, for health checks as well.
            cors_allowed_origins=[],
            serializer=packet_class(deps.settings.max_body_bytes),
            max_http_buffer_size=MAX_MESSAGE_BYTES,
            http_compression=False,
            logger=False,
            engineio_logger=False,
        )
        self._io.supervisor = supervisor
        self._io.eio.session_ids = session_ids
        self._io.eio.max_unsent_bytes = deps.settings.max_unsent_bytes
        self._io.register_namespace(self._namespace)
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)

    async def start(self, listening: sockets.socket) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, listening, backlog=4096).start()

    async def drain(self) -> None:
        """Close all transports, spread over the drain time, so that their clients move to other pods."""
        open_sockets = list(self._namespace.sockets.values())
        if not open_sockets:
            return
        _log.info("moving %d sockets to other pods", len(open_sockets))
        pause = self._deps.settings.drain_timeout * DRAIN_SHARE / len(open_sockets)
        await open_sockets[0].transport.close()
        for socket in open_sockets[1:]:
            await asyncio.sleep(pause)
            await socket.transport.close()

    async def stop(self) -> None:
        await self._io.shutdown()
        await self._runner.cleanup()
        await self._foreign.close()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=MAX_MESSAGE_BYTES)
        application[_HEALTH] = self._health
        application.router.add_route("GET", "/health/ready", _ready)
        application.router.add_route("*", PATH, self._io.eio.handle_request)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        allowed = self._deps.settings.allowed_origins
        try:
            if request.path != PATH:
                response = await handler(request)
            elif not cors.is_allowed(origin, allowed):
                response = _error(HTTPStatus.FORBIDDEN, "This origin is not allowed")
            elif "sid" not in request.query and (not self._health.takes_sockets or self._is_full()):
                response = _error(HTTPStatus.SERVICE_UNAVAILABLE, "This pod takes no new sockets, connect again")
            else:
                response = await self._serve(request, handler)
        except web.HTTPException as error:
            response = _error(HTTPStatus(error.status), "Only Socket.IO and GET /health/ready are served here")
        if not response.prepared:
            response.headers.update(cors.headers(origin, allowed, preflight=request.method == "OPTIONS"))
        return response

    def _is_full(self) -> bool:
        return len(self._io.eio.sockets) >= self._deps.settings.max_sockets

    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let Engine.IO answer, here or on the pod that holds the session."""
        owner = self._foreign.owner_of(request)
        if owner is not None:
            passed_on = await self._foreign.pass_on(request, owner)
            return passed_on or _error(HTTPStatus.BAD_REQUEST, "The session is gone, connect again")
        session_id = request.query.get("sid", "")
        is_upgrade = session_id in self._io.eio.sockets and "Upgrade" in request.headers
        if is_upgrade:
            self._io.eio.upgrades[session_id] = request
        try:
            response = await handler(request)
        finally:
            if is_upgrade:
                self._io.eio.upgrades.pop(session_id, None)
        if isinstance(response, web.Response) and response.status >= 400:
            return _error(HTTPStatus(response.status), "The request is not of an open session")
        return response


_CODES = {403: "FORBIDDEN", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "PAYLOAD_TOO_LARGE"}
_CODES |= {500: "INTERNAL_ERROR", 503: "SERVICE_UNAVAILABLE"}


def _error(status: HTTPStatus, message: str) -> web.Response:
    view = ErrorView(_CODES.get(status, "VALIDATION_ERROR"), message, UNSET)
    return web.Response(status=status, body=encode(view), content_type="application/json")


async def _ready(request: web.Request) -> web.Response:
    return web.Response(status=200 if await request.app[_HEALTH].is_ready() else 503)
