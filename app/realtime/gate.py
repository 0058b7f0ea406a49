"""The gate of the socket listener: path, origin and capacity checks; then a session here, or on another pod."""

import asyncio
import logging
import re
from http import HTTPStatus

from app.config.settings import Settings
from app.contract import cors
from app.realtime.engineio.engine import Engine
from app.realtime.engineio.websocket import WebSocket
from app.realtime.http.forwarding import SessionForwarding
from app.realtime.http.requests import MAX_BODY_BYTES, Request, Response, error
from app.runtime.health import Health

PATH = "/socket.io/"
METHODS = ("GET", "POST", "OPTIONS")
HEALTH_PATH = "/health/ready"
WEBSOCKET_VERSION = "13"
# Before its client is let in nothing but a token comes on a session.
MAX_ANONYMOUS_BYTES = 65_536
# 16 bytes in base64.
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")

_log = logging.getLogger(__name__)


class SocketGate:
    """Decides about each request and upgrade of the socket listener."""

    def __init__(self, settings: Settings, health: Health, engine: Engine, foreign: SessionForwarding) -> None:
        self._settings = settings
        self._health = health
        self._engine = engine
        self._foreign = foreign
        # The sessions that have a poll.
        self._polling: set[str] = set()

    def body_limit(self, request: Request) -> int:
        """Tell how many bytes the body of a request may have: none unless it is of a session that there is."""
        session_id = request.arguments.get("sid", "")
        if request.method != "POST" or self._refusal(request) is not None:
            return 0
        session = self._engine.sockets.get(session_id)
        if session is not None:
            return MAX_ANONYMOUS_BYTES if session.socket is None else MAX_BODY_BYTES
        return 0 if self._foreign.owner_of(request) is None else MAX_BODY_BYTES

    async def answer(self, request: Request) -> Response:
        """Answer a request; nothing is raised."""
        try:
            response = await self._answer(request)
        except Exception:  # noqa: BLE001 - it is logged, and a connection outlives it
            _log.exception("the request %s %s failed", request.method, request.path)
            response = error(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong on our side")
        return self._with_cors(request, response)

    async def _answer(self, request: Request) -> Response:
        if request.path == HEALTH_PATH and request.method == "GET":
            is_ready = await self._health.is_ready()
            return Response(HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)
        refusal = self._refusal(request) or self._no_room(request)
        if refusal is not None:
            return refusal
        session_id = request.arguments.get("sid")
        if request.method != "GET" or session_id is None:
            return await self._handle(request)
        if session_id in self._polling:
            return error(HTTPStatus.BAD_REQUEST, "A session has one poll at a time")
        self._polling.add(session_id)
        try:
            return await self._handle(request)
        finally:
            self._polling.discard(session_id)

    async def _handle(self, request: Request) -> Response:
        """Answer a request of a session that may be anybody's."""
        owner = self._foreign.owner_of(request)
        if owner is not None:
            return await self._foreign.pass_on(request, owner)
        if "j" in request.arguments or request.body.startswith(b"d="):
            # Which python-engineio still takes, and takes long for.
            return error(HTTPStatus.BAD_REQUEST, "There is no JSONP in Engine.IO 4")
        response: Response = await self._engine.handle_request(request)
        if response.status >= HTTPStatus.BAD_REQUEST:
            return error(HTTPStatus(response.status), "The request is not of an open session")
        return response

    def upgrade(self, request: Request, transport: asyncio.Transport, ahead: bytes) -> Response | None:
        """Take over a connection that becomes a WebSocket; gives the answer where it is none."""
        refusal = self._refusal(request) or _mistake(request) or self._no_room(request)
        if refusal is None:
            owner = self._foreign.owner_of(request)
            if owner is not None:
                self._foreign.pipe(request, owner, transport, ahead)
                return None
            session_id = request.arguments.get("sid")
            session = None if session_id is None else self._engine.sockets.get(session_id)
            if session_id is None or (session is not None and session.may_upgrade):
                WebSocket(self._engine, session, transport).take_over(request, ahead)
                return None
            refusal = error(HTTPStatus.BAD_REQUEST, "The request is not of an open session")
        return self._with_cors(request, refusal)

    def _refusal(self, request: Request) -> Response | None:
        """Tell why a request is not Engine.IO's, or not now."""
        if request.path == HEALTH_PATH:
            return _not_allowed(request, "GET")
        if request.path != PATH:
            return error(HTTPStatus.NOT_FOUND, "Only Socket.IO and GET /health/ready are served here")
        if request.method not in METHODS:
            return _not_allowed(request, ", ".join(METHODS))
        if not cors.is_allowed(request.headers.get("origin"), self._settings.allowed_origins):
            return error(HTTPStatus.FORBIDDEN, "This origin is not allowed")
        return None

    def _no_room(self, request: Request) -> Response | None:
        """Tell why a client may open no session now."""
        if request.method != "GET" or "sid" in request.arguments:
            return None
        if self._health.takes_sockets and self._engine.anonymous.make_room():
            return None
        return error(HTTPStatus.SERVICE_UNAVAILABLE, "This pod takes no new sockets, connect again")

    def _with_cors(self, request: Request, response: Response) -> Response:
        origin, allowed = request.headers.get("origin"), self._settings.allowed_origins
        response.headers |= cors.headers(origin, allowed, preflight=request.method == "OPTIONS")
        return response


def _not_allowed(request: Request, allowed: str) -> Response:
    refusal = error(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is not served here")
    refusal.headers["Allow"] = allowed
    return refusal


def _mistake(request: Request) -> Response | None:
    """Tell what is wrong with an upgrade (RFC 6455, section 4.2.1; Engine.IO 4)."""
    headers, arguments = request.headers, request.arguments
    if headers.get("upgrade", "").lower() != "websocket" or request.method != "GET":
        return error(HTTPStatus.BAD_REQUEST, "Only a GET may upgrade, and only to a WebSocket")
    if headers.get("sec-websocket-version") != WEBSOCKET_VERSION or not _KEY.fullmatch(
        headers.get("sec-websocket-key", "")
    ):
        return error(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Version must be 13 and Sec-WebSocket-Key 16 bytes")
    if arguments.get("transport") != "websocket" or ("sid" not in arguments and arguments.get("EIO") != "4"):
        return error(HTTPStatus.BAD_REQUEST, "The query of an upgrade is EIO=4&transport=websocket")
    return None
