"""Reading of REST requests: path, body, query, `limit`, `Idempotency-Key`; and the JSON of an answer."""

from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from sanic import HTTPResponse, Request

from app.contract.codec import client_message_id, decode, encode, reject
from app.contract.errors import NotFound
from app.identity.tokens import MAX_USER_ID
from app.rest.endpoint import Limit
from app.usecases.deps import Deps

_C = TypeVar("_C", bound=msgspec.Struct)


def deps_of(request: Request) -> Deps:
    found: Deps = request.app.ctx.deps
    return found


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
