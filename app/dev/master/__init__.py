"""A small host application for `chat-service dev`, and a pattern for your own: it owns the users.

    accounts.py   users, their tokens, and telling the chat service of them
    proxy.py      REST calls passed on with the user's token, answers enriched with what is known of the users
    webhooks.py   webhooks of the chat service, and the notifications that come of them
    files.py      what attachments refer to: files stay here, the chat service knows their ids only
    answers.py    bodies in, errors out
    config.py     where the chat service is, and what the two share

Its login asks for no password, so it belongs on the loopback interface of a developer's machine and nowhere else.
All that it knows is in memory, and bounded.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, web
from yarl import URL

from app.dev.master import accounts, files, proxy, webhooks
from app.dev.master.accounts import ACCOUNTS, Accounts
from app.dev.master.answers import MAX_BODY, errors_as_json
from app.dev.master.config import CONFIG, SESSION, MasterConfig
from app.dev.master.files import FILES, Files
from app.dev.master.webhooks import INBOX, Inbox

__all__ = ["MasterConfig", "create_master"]

PAGE = Path(__file__).parents[1] / "page"
CONTENT_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
CHAT_TIMEOUT = ClientTimeout(total=15.0, connect=3.0)


def create_master(config: MasterConfig) -> web.Application:
    """Build the master; the caller runs it, on a loopback address."""
    app = web.Application(client_max_size=MAX_BODY, middlewares=[errors_as_json])
    app[CONFIG] = config
    app[ACCOUNTS], app[INBOX], app[FILES] = Accounts(), Inbox(), Files()
    app.cleanup_ctx.append(_session)
    app.on_response_prepare.append(_headers_for(config))
    for routes in (accounts.routes, proxy.routes, webhooks.routes, files.routes):
        app.add_routes(routes)
    for file in sorted(PAGE.rglob("*")):
        if file.suffix in CONTENT_TYPES:
            app.router.add_get(f"/page/{file.relative_to(PAGE).as_posix()}", _serve(file))
    app.router.add_get("/", _serve(PAGE / "index.html"))
    return app


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
