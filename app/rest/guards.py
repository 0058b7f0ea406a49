"""What stands before every handler: who asks, how much they may ask for, and a bound on the wait."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from sanic import HTTPResponse, Request

from app import database
from app.auth.actor import Actor
from app.deps import Deps
from app.errors import Unauthorized
from app.schemas import decode, encode, reject
from app.usecases import sessions

_C = TypeVar("_C", bound=msgspec.Struct)
Handler = Callable[..., Awaitable[HTTPResponse]]


def endpoint(handler: Handler) -> Handler:
    """Bound what a handler waits for PostgreSQL."""

    @functools.wraps(handler)
    async def bounded(request: Request, *args: Any, **kwargs: Any) -> HTTPResponse:
        async with database.deadline():
            return await handler(request, *args, **kwargs)

    return bounded


def deps_of(request: Request) -> Deps:
    found: Deps = request.app.ctx.deps
    return found


def actor_of(request: Request) -> Actor:
    """Tell who asks, by `Authorization: Bearer` (RFC 6750); raises Unauthorized."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("The header `Authorization: Bearer <token>` is missing")
    return sessions.authenticate(deps_of(request), token.strip())


def body_of(request: Request, kind: type[_C]) -> _C:
    """Read the body as JSON whatever its content type; raises ValidationFailed that names the field."""
    if not request.body:
        raise reject("body", "is missing")
    return decode(kind, request.body)


def query_of(request: Request, name: str) -> str | None:
    """Read a query parameter; the first where it is repeated."""
    values = request.get_args(keep_blank_values=True).getlist(name)
    return values[0] if values else None


def limit_of(request: Request, default: int, most: int) -> int:
    """Read `limit`; raises ValidationFailed for what is no number from 1 up, and lowers what is above `most`."""
    text = query_of(request, "limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) < 1:
        raise reject("limit", "must be a whole number from 1 up")
    return min(int(text), most)


def answer(view: Any, status: int = 200) -> HTTPResponse:
    return HTTPResponse(encode(view), status=status, content_type="application/json")
