"""What handlers ask of a request: who asks, what for, and how much of it."""

import hmac
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from sanic import HTTPResponse, Request

from app.contract.codec import client_message_id, decode, encode, reject
from app.contract.errors import NotFound, Unauthorized
from app.identity.actor import Actor
from app.identity.tokens import MAX_USER_ID
from app.rest.operations import Limit
from app.usecases import sessions
from app.usecases.deps import Deps

_C = TypeVar("_C", bound=msgspec.Struct)


def deps_of(request: Request) -> Deps:
    found: Deps = request.app.ctx.deps
    return found


async def actor_of(request: Request) -> Actor:
    """Tell who asks, by `Authorization: Bearer` (RFC 6750); raises Unauthorized."""
    return await sessions.authenticate(deps_of(request), _token(request))


def sender_of(request: Request) -> Actor:
    """Tell who sends a message, without asking whether they were deleted: what stores it refuses that."""
    return deps_of(request).tokens.verify(_token(request))


def _token(request: Request) -> str:
    if "x-internal-secret" in request.headers:
        raise Unauthorized("The header `X-Internal-Secret` is not for a user's calls")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("The header `Authorization: Bearer <token>` is missing")
    return token.strip()


async def require_internal(request: Request) -> None:
    """Let only the master through, by `X-Internal-Secret`; raises Unauthorized, also beside a user's token."""
    settings = deps_of(request).settings
    given = request.headers.get("x-internal-secret", "").encode(errors="surrogateescape")
    known = [settings.internal_api_secret, settings.internal_api_secret_previous]
    # All are compared, each in constant time: how long it takes tells nothing.
    matches = [hmac.compare_digest(given, secret.reveal().encode()) for secret in known if secret is not None]
    if not any(matches) or "authorization" in request.headers:
        raise Unauthorized("The header `X-Internal-Secret` is missing or wrong, or beside a user's token")


def key_of(request: Request) -> str | None:
    """Read `Idempotency-Key`; raises ValidationFailed for one that is too long."""
    key = request.headers.get("idempotency-key")
    return None if key is None else client_message_id(key)


def user_id_of(text: str) -> str:
    """Read a user's id from a path; raises NotFound for what can be none."""
    user_id = unquote(text)
    if not 1 <= len(user_id) <= MAX_USER_ID or "\x00" in user_id or not _is_text(user_id):
        raise NotFound("There is no such user")
    return user_id


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def body_of(request: Request, kind: type[_C]) -> _C:
    """Read the body as JSON whatever its content type; raises ValidationFailed that names the field."""
    if not request.body:
        raise reject("body", "is missing")
    return decode(kind, request.body)


def query_of(request: Request, name: str) -> str | None:
    """Read a query parameter; the first where it is repeated."""
    values = request.get_args(keep_blank_values=True).getlist(name)
    return values[0] if values else None


def limit_of(request: Request, limit: Limit) -> int:
    """Read `limit`; raises ValidationFailed for what is no number from 1 up, and lowers what is above the most."""
    text = query_of(request, "limit")
    if text is None:
        return limit.usual
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) < 1:
        raise reject("limit", "must be a whole number from 1 up")
    return min(int(text), limit.most)


def answer(view: Any, status: int = 200) -> HTTPResponse:
    return HTTPResponse(encode(view), status=status, content_type="application/json")
