"""Bodies in, errors out: `{ error, code }`, as the user's page of the chat service has it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

# Files are the largest; the chat service sets its own limit to what is passed on.
MAX_BODY = 4 * 1024 * 1024
BODY_TIMEOUT = 10.0

_B = TypeVar("_B", bound=msgspec.Struct)


def error(status: int, message: str, code: str | None) -> web.Response:
    body = {"error": message} if code is None else {"error": message, "code": code}
    return web.json_response(body, status=status)


def refusal(status: int, message: str, code: str) -> web.HTTPException:
    """Make what a handler raises, whatever calls it."""
    kind = {400: web.HTTPBadRequest, 401: web.HTTPUnauthorized, 404: web.HTTPNotFound}[status]
    return kind(
        text=msgspec.json.encode({"error": message, "code": code}).decode(), content_type="application/json"
    )


async def body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


async def read(request: web.Request, kind: type[_B]) -> _B:
    """Read a body; raises the refusal of one that is malformed."""
    try:
        return msgspec.json.decode(await body(request), type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
        raise refusal(400, str(problem), "VALIDATION_ERROR") from problem


@web.middleware
async def errors_as_json(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Give aiohttp's own refusals (404, 405, 408, 413) the shape that every other error here has."""
    try:
        return await handler(request)
    except web.HTTPError as problem:
        if problem.content_type == "application/json":
            raise
        code = "PAYLOAD_TOO_LARGE" if problem.status == 413 else problem.reason.upper().replace(" ", "_")
        answer = error(problem.status, problem.reason, code)
        if "Allow" in problem.headers:
            answer.headers["Allow"] = problem.headers["Allow"]
        return answer
