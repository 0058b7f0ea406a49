"""Error responses of REST: each error becomes a status, a code and a message, here only."""

import logging
from asyncio import CancelledError
from contextlib import suppress

from msgspec import UNSET
from sanic import HTTPResponse, Request
from sanic.exceptions import SanicException
from sanic.handlers import ErrorHandler

from app.contract.codec import encode
from app.contract.errors import (
    ChatError,
    Conflict,
    Forbidden,
    InternalError,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    ServiceUnavailable,
    Unauthorized,
    ValidationFailed,
)
from app.contract.schemas import ErrorView
from app.rest.endpoint import METHODS

STATUS = {
    ValidationFailed.code: 400,
    Unauthorized.code: 401,
    Forbidden.code: 403,
    NotFound.code: 404,
    MethodNotAllowed.code: 405,
    Conflict.code: 409,
    PayloadTooLarge.code: 413,
    RateLimited.code: 429,
    InternalError.code: 500,
    ServiceUnavailable.code: 503,
}

_log = logging.getLogger(__name__)


class ErrorAnswers(ErrorHandler):
    """Answers every error, ours and Sanic's, in the one shape of the contract."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        error = _chat_error(request, exception)
        headers = {"Retry-After": str(error.retry_after_seconds)} if isinstance(error, RateLimited) else {}
        if isinstance(exception, SanicException):
            headers |= exception.headers
        if isinstance(error, MethodNotAllowed):
            headers["Allow"] = ", ".join(_served(request))
        # Sanic repeats what a client sent, which need not be text.
        message = error.message.encode(errors="replace").decode()
        view = ErrorView(error.code, message, UNSET if error.details is None else error.details)
        return HTTPResponse(
            encode(view), status=STATUS[error.code], headers=headers, content_type="application/json"
        )


def _served(request: Request) -> list[str]:
    """List the methods that a path takes: Sanic lists them only where no part of the path is a parameter."""
    found = []
    for method in METHODS:
        with suppress(SanicException):
            request.app.router.get(request.path, method, request.headers.get("host"))
            found.append(method)
    return found


def _chat_error(request: Request, exception: Exception) -> ChatError:
    if isinstance(exception, ChatError):
        return exception
    if isinstance(exception, SanicException) and (known := _of_sanic(request, exception)):
        return known
    if isinstance(exception, CancelledError):
        # The client has gone, and nobody reads this; or the process ends before PostgreSQL has answered.
        return ServiceUnavailable()
    _log.error("%s %s failed", request.method, request.path, exc_info=exception)
    return InternalError()


def _of_sanic(request: Request, exception: SanicException) -> ChatError | None:
    match exception.status_code:
        case 404:
            return NotFound("There is no such route")
        case 405:
            return MethodNotAllowed(f"{request.method} is not served here")
        case 413:
            return PayloadTooLarge("The request is too large")
        case 503:
            return ServiceUnavailable()
        case status if 400 <= status < 500:
            return ValidationFailed(f"request: {exception}")
    return None
