"""The frontend's REST calls, passed on to the chat service with the user's own token."""

import json
from typing import Any

from aiohttp import ClientError, ClientResponse, web
from yarl import URL

from app.dev.master.accounts import ACCOUNTS, Accounts
from app.dev.master.answers import body, error
from app.dev.master.config import CONFIG, SESSION

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MAX_ANSWER = 16 * 1024 * 1024


async def proxy(request: web.Request) -> web.Response:
    """Pass method, path, query, token and body to the chat service, and its status and JSON back.

    A business rule of your own ("may these two talk?") stands before the call, what you add to answers after it.
    """
    try:
        status, answer = await _call(request, await body(request))
    except (ClientError, TimeoutError, OSError):
        return error(503, "Chat service unavailable", "CHAT_SERVICE_UNAVAILABLE")
    if status >= 400:
        return _chat_error(status, answer)
    if not answer:
        return web.Response(status=status)
    return web.json_response(enriched(json.loads(answer), request.app[ACCOUNTS]), status=status)


async def _call(request: web.Request, content: bytes) -> tuple[int, bytes]:
    # As it came, percent-encoding included: an emoji in a path must arrive as it was sent.
    target = request.app[CONFIG].chat_url.rstrip("/") + request.rel_url.raw_path
    if request.rel_url.raw_query_string:
        target += "?" + request.rel_url.raw_query_string
    headers = {"Content-Type": "application/json"}
    for name in ("Authorization", "Idempotency-Key"):
        if name in request.headers:
            headers[name] = request.headers[name]
    async with request.app[SESSION].request(
        request.method,
        URL(target, encoded=True),
        headers=headers,
        data=content or None,
        allow_redirects=False,
    ) as response:
        return response.status, await _read(response)


async def _read(response: ClientResponse) -> bytes:
    answer = bytearray()
    async for chunk in response.content.iter_any():
        answer += chunk
        if len(answer) > MAX_ANSWER:
            raise ClientError("The answer of the chat service is too large.")
    return bytes(answer)


def enriched(answer: dict[str, Any], accounts: Accounts) -> dict[str, Any]:
    """Add to the participants of a conversation, or of each in a list, what the master itself knows of them."""
    for conversation in answer.get("items", [answer]):
        for participant in conversation.get("participants", []):
            profile = accounts.public(participant["userId"])
            if profile is not None:
                participant["profile"] = profile
    return answer


def _chat_error(status: int, answer: bytes) -> web.Response:
    """Turn the error of the chat service into the master's own shape, as the user's Express proxy does."""
    try:
        answered = json.loads(answer)
    except ValueError:
        answered = None
    if not isinstance(answered, dict):
        answered = {}
    return error(status, answered.get("message") or "Chat service error", answered.get("code"))


routes = [
    web.route(method, f"/api/{resource}{{rest:(/.*)?}}", proxy)
    for resource in ("conversations", "messages")
    for method in METHODS
]
