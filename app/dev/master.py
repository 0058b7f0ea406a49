"""A small host application for `chat-service dev`: a login by name, a chat page, and the REST proxy.

It stands where the product of whoever adopts the chat service will stand, and keeps to what such a master
does: it owns the users, signs their tokens, and passes their REST calls on. Its login asks for no password,
so it belongs on the loopback interface of a developer's machine and nowhere else.
"""

import argparse
import asyncio
import json
import os
import time
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import jwt
import msgspec
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, web
from yarl import URL

from app import settings

CONTENT_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

PAGE = Path(__file__).parent / "page"
PROXIED_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

MAX_BODY = 256 * 1024
MAX_ANSWER = 16 * 1024 * 1024
MAX_NAME = 64
TOKEN_LIFETIME = 3600
BODY_TIMEOUT = 10.0
CHAT_TIMEOUT = ClientTimeout(total=15.0, connect=3.0)


@dataclass(frozen=True)
class MasterConfig:
    """Where the chat service is, and what the two share."""

    chat_url: str
    socket_url: str
    jwt_secret: str = field(repr=False)
    jwt_issuer: str


class Login(msgspec.Struct):
    """The body of a login."""

    name: str


CONFIG = web.AppKey("config", MasterConfig)
SESSION = web.AppKey("session", ClientSession)


def create_master(config: MasterConfig) -> web.Application:
    """Build the master; the caller runs it, on a loopback address."""
    app = web.Application(client_max_size=MAX_BODY, middlewares=[errors_as_json])
    app[CONFIG] = config
    app.cleanup_ctx.append(_session)
    app.on_response_prepare.append(_headers_for(config))
    app.router.add_post("/login", login)
    for resource in ("conversations", "messages"):
        for method in PROXIED_METHODS:
            app.router.add_route(method, f"/api/{resource}{{rest:(/.*)?}}", proxy)
    for file in sorted(PAGE.iterdir()):
        if file.suffix in CONTENT_TYPES:
            app.router.add_get(f"/page/{file.name}", _serve(file))
    app.router.add_get("/", _serve(PAGE / "index.html"))
    return app


def user_id_of(name: str) -> str:
    """Derive the user's id from a name, so that the same name is the same user wherever it is typed.

    The page does the same when somebody is invited by name (`userIdOf` in people.js).
    """
    user_id = "-".join(unicodedata.normalize("NFC", name).lower().split())
    if not 1 <= len(user_id) <= MAX_NAME:
        raise ValueError(f"A name has 1 to {MAX_NAME} characters.")
    if not user_id[0].isalnum() or not all(_allowed(character) for character in user_id):
        raise ValueError("A name begins with a letter or a digit and has letters, digits, spaces and . _ - only.")
    return user_id


def _allowed(character: str) -> bool:
    return character in "._-" or unicodedata.category(character)[0] in "LMN"


async def login(request: web.Request) -> web.Response:
    config = request.app[CONFIG]
    try:
        user_id = user_id_of(msgspec.json.decode(await _body(request), type=Login).name)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        return _error(400, str(error), "VALIDATION_ERROR")
    now = int(time.time())
    claims = {
        "sub": user_id,
        "externalUserId": user_id,
        "permissions": ["chat:read", "chat:write"],
        "iat": now,
        "exp": now + TOKEN_LIFETIME,
        "iss": config.jwt_issuer,
    }
    token = jwt.encode(claims, config.jwt_secret, algorithm="HS256")
    return web.json_response({"token": token, "userId": user_id, "socketUrl": config.socket_url})


async def proxy(request: web.Request) -> web.Response:
    """Pass method, path, query, token and body to the chat service, and its status and JSON back."""
    body = await _body(request)
    # As it came, percent-encoding included: an emoji in a path must arrive as it was sent.
    target = request.app[CONFIG].chat_url.rstrip("/") + request.rel_url.raw_path
    if request.rel_url.raw_query_string:
        target += "?" + request.rel_url.raw_query_string
    headers = {"Content-Type": "application/json"}
    if "Authorization" in request.headers:
        headers["Authorization"] = request.headers["Authorization"]
    try:
        async with request.app[SESSION].request(
            request.method,
            URL(target, encoded=True),
            headers=headers,
            data=body or None,
            allow_redirects=False,
        ) as response:
            answer = await _read(response)
    except (ClientError, TimeoutError, OSError):
        return _error(503, "Chat service unavailable", "CHAT_SERVICE_UNAVAILABLE")
    if response.status >= 400:
        return _chat_error(response.status, answer)
    return web.Response(
        status=response.status,
        body=answer or None,
        content_type="application/json" if answer else None,
    )


async def _read(response: ClientResponse) -> bytes:
    answer = bytearray()
    async for chunk in response.content.iter_any():
        answer += chunk
        if len(answer) > MAX_ANSWER:
            raise ClientError("The answer of the chat service is too large.")
    return bytes(answer)


def _chat_error(status: int, answer: bytes) -> web.Response:
    """Turn the error of the chat service into the master's own shape, as the user's Express proxy does."""
    try:
        error = json.loads(answer)
    except ValueError:
        error = None
    if not isinstance(error, dict):
        error = {}
    return _error(status, error.get("message") or "Chat service error", error.get("code"))


def _error(status: int, message: str, code: str | None) -> web.Response:
    body = {"error": message} if code is None else {"error": message, "code": code}
    return web.json_response(body, status=status)


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


@web.middleware
async def errors_as_json(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Give aiohttp's own refusals (404, 405, 408, 413) the shape that every other error here has."""
    try:
        return await handler(request)
    except web.HTTPError as error:
        code = "PAYLOAD_TOO_LARGE" if error.status == 413 else error.reason.upper().replace(" ", "_")
        answer = _error(error.status, error.reason, code)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer


async def _session(app: web.Application) -> AsyncIterator[None]:
    # One cookie jar would be shared by all users; the chat service sets no cookies anyway.
    async with ClientSession(timeout=CHAT_TIMEOUT, cookie_jar=DummyCookieJar()) as session:
        app[SESSION] = session
        yield


def _serve(file: Path) -> Callable[[web.Request], Awaitable[web.Response]]:
    content_type = CONTENT_TYPES[file.suffix]

    async def serve(_: web.Request) -> web.Response:
        # Read on every request: whoever edits the page sees it on the next reload.
        body = await asyncio.to_thread(file.read_bytes)
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    return serve


def _headers_for(config: MasterConfig) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    socket = URL(config.socket_url)
    socket_origin = socket.with_scheme("wss" if socket.scheme == "https" else "ws").origin()
    policy = (
        f"default-src 'self'; connect-src 'self' {socket_origin}; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )

    async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["Cache-Control"] = "no-store"
        response.headers["Content-Security-Policy"] = policy
        # The page's own address may carry a name.
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"

    return add_headers


def main() -> None:
    """Run the master alone, beside a chat service in containers."""
    parser = argparse.ArgumentParser(prog="python -m app.dev.master", description="The demo master alone.")
    parser.add_argument("--chat-url", required=True, help="where REST is, as this process reaches it")
    parser.add_argument("--socket-url", required=True, help="where Socket.IO is, as the browser reaches it")
    parser.add_argument("--port", type=int, default=3000)
    arguments = parser.parse_args()
    found = settings.read_some(os.environ, "AUTH_JWT_SECRET", "AUTH_JWT_ISSUER")
    config = MasterConfig(
        chat_url=arguments.chat_url,
        socket_url=arguments.socket_url,
        jwt_secret=found["auth_jwt_secret"].reveal(),
        jwt_issuer=found["auth_jwt_issuer"],
    )
    web.run_app(create_master(config), port=arguments.port, access_log=None)


if __name__ == "__main__":
    main()
