"""The Sanic application of the REST listener: routes, body limits, CORS preflight, start and stop."""

import asyncio
import logging
import re
import socket
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from sanic import HTTPResponse, Request, Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.config import Config
from sanic.exceptions import BadRequest, SanicException
from sanic.http import Http
from sanic.http.constants import HTTP
from sanic.response import BaseHTTPResponse
from sanic.server import AsyncioServer

from app.contract import cors
from app.observability import tracing
from app.rest import conversations, health, messages, metrics
from app.rest.admin import conversations as all_conversations
from app.rest.admin import stats, users, webhooks
from app.rest.connection import HEADER_TIMEOUT, KEEP_ALIVE, Connection, Exchange, Send, ServiceRequest
from app.rest.docs import asyncapi, openapi, pages
from app.rest.errors import ErrorAnswers
from app.runtime.connections import Connections
from app.runtime.health import Health
from app.runtime.ports import MAX_REST
from app.usecases.deps import Deps

# What is read and thrown away of a body that was refused, and for how long.
MAX_REFUSED_BYTES = 16 << 20
REFUSED_TIMEOUT = 5.0
MAX_HEADER_BYTES = 16_384
POLL_INTERVAL = 0.05
# Whoever calls within so many seconds of the last answer is told that the connection ends, before it does.
LAST_CALLS = 0.2

# Probes and scrapes come every few seconds: they make no trace.
UNTRACED = ("/health/", "/metrics")

# What Sanic does not look at: methods and names of headers are tokens, and nothing has NUL (RFC 9110, section 5).
_HEAD = re.compile(
    rb"(?x: [!#$%&'*+.^_`|~0-9A-Za-z-]++ \ [^\0\r\n]*+ (?: \r\n [!#$%&'*+.^_`|~0-9A-Za-z-]++ : [^\0\r\n]*+ )*+ )"
)

_log = logging.getLogger(__name__)


_Sanic = Sanic[Config, SimpleNamespace]


class App(_Sanic):
    """The application; each call goes on with the trace of its caller."""

    async def handle_request(self, request: Request[Any, Any]) -> None:
        if isinstance(request, Send):
            await self._answer(request)
        elif not _is_plain(request.head) and not _HEAD.fullmatch(request.head):
            # It would be said again in answers and logs.
            if isinstance(request.stream, Http):
                request.stream.keep_alive = False
            await self.handle_exception(request, BadRequest("This is no HTTP/1.1 request"))
        elif request.path.startswith(UNTRACED):
            await super().handle_request(request)
        else:
            with tracing.entry("HTTP", request.headers.get("traceparent")):
                await super().handle_request(request)

    async def _answer(self, request: Send) -> None:
        """Answer what was read whole; errors are answered as those of other requests."""
        exchange, headers = request.stream, request.headers
        assert isinstance(exchange, Exchange)
        with tracing.entry("HTTP", headers.get("traceparent")):
            try:
                response = await self.ctx.send_route.handler(request, request.conversation_id)
                metrics.count(request, request.started, response)
                await exchange.write(response, headers.get("origin"), self.ctx.deps.settings.allowed_origins)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
                await self.handle_exception(request, error, run_middleware=False)


def _is_plain(head: bytes) -> bool:
    return head.isascii() and b"\0" not in head


def create_app(deps: Deps, state: Health, max_connections: int = MAX_REST) -> App:
    """Make the application; everything it needs is built by the caller, and nothing at its start."""
    # One name for each instance: Sanic keeps a registry of them for the process.
    app = App(f"chat-service-{uuid4().hex[:8]}", request_class=ServiceRequest, configure_logging=False)
    app.config.update(
        ACCESS_LOG=False,
        REQUEST_MAX_SIZE=deps.settings.max_body_bytes,
        REQUEST_MAX_HEADER_SIZE=MAX_HEADER_BYTES,
        REQUEST_TIMEOUT=HEADER_TIMEOUT,
        KEEP_ALIVE_TIMEOUT=KEEP_ALIVE,
        # Without listeners Sanic compiles the dispatch of its signals away: a third of the time of a request.
        TOUCHUP=True,
    )
    # Sanic sends an empty `alt-svc` unless it knows that HTTP/1.1 is all that there is.
    app.state.server_info.append(ApplicationServerInfo(settings={"version": HTTP.VERSION_1}))
    app.error_handler = ErrorAnswers()
    app.ctx.deps = deps
    app.ctx.health = state
    app.ctx.connections = Connections(lambda: max_connections, "rest_connection")
    app.ctx.large_bodies = asyncio.Semaphore(users.BATCHES_AT_ONCE)
    for blueprint in (
        conversations.blueprint,
        messages.blueprint,
        users.blueprint,
        all_conversations.blueprint,
        stats.blueprint,
        webhooks.blueprint,
        health.blueprint,
        pages.blueprint,
    ):
        app.blueprint(blueprint)
    if deps.settings.metrics_port is None:
        app.blueprint(metrics.blueprint)
    app.ctx.send_route = next(route for route in app.router.routes if route.handler is messages.send_message)
    app.ctx.openapi = openapi.document(app.router.routes)
    app.ctx.asyncapi = asyncapi.document()
    app.register_middleware(_preflight, "request")
    app.register_middleware(_answered, "response")
    return app


async def _preflight(request: Request) -> HTTPResponse | None:
    if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
        return HTTPResponse(status=204)
    return None


async def _answered(request: ServiceRequest, response: BaseHTTPResponse) -> HTTPResponse | None:
    """Say which origins may read an answer, and count it."""
    await _read_rest(request)
    if response.content_type is None:
        # Sanic would write the word `None`.
        response.content_type = "text/plain"
    allowed = request.app.ctx.deps.settings.allowed_origins
    origin = request.headers.get("origin")
    response.headers.update(cors.headers(origin, allowed, preflight=request.method == "OPTIONS"))
    metrics.count(request, request.started, response)
    return None


async def _read_rest(request: ServiceRequest) -> None:
    """Read what is left of a body that was refused: many a client sends it all before it reads the answer."""
    stream = request.stream
    if not isinstance(stream, Http) or not stream.request_body or stream.expecting_continue:
        return
    stream.request_max_size = MAX_REFUSED_BYTES
    try:
        async with asyncio.timeout(REFUSED_TIMEOUT):
            while await stream.read() is not None:
                # It is thrown away, and must cost nobody the room for a body that is kept.
                request.app.ctx.connections.release(stream.protocol)
    except (SanicException, TimeoutError):
        stream.keep_alive = False


class RestServer:
    """Serves the application on a socket until it is stopped."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._server: AsyncioServer | None = None

    async def start(self, listening: socket.socket) -> None:
        self._server = await self.app.create_server(
            sock=listening, backlog=4096, return_asyncio_server=True, access_log=False, protocol=Connection
        )
        assert self._server is not None
        await self._server.startup()
        await self._server.start_serving()

    async def stop(self, end: float) -> None:
        """Accept nothing more, let the requests in flight finish, and cut what is left at a time of the loop."""
        if self._server is None:
            return
        self._server.close()
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, min(LAST_CALLS, (end - loop.time()) / 4)))
        while busy := [one for one in list(self._server.connections) if not one.retire()]:
            if loop.time() >= end:
                for connection in busy:
                    _log.warning("a request was cut: it did not finish in the time of the drain")
                    connection.abort()
                # For what was cut to end.
                await asyncio.sleep(POLL_INTERVAL)
                break
            await asyncio.sleep(POLL_INTERVAL)
