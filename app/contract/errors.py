"""Errors that clients see, by their code: those that they cause, and two that they do not.

    ChatError
    ├── ValidationFailed     the request is malformed; names the field
    │   └── PayloadTooLarge  … or too big
    ├── Unauthorized         who are you?
    ├── Forbidden            you may not
    ├── NotFound             there is no such thing
    ├── MethodNotAllowed     not that way
    ├── Conflict             not in this state
    ├── RateLimited          not so fast
    ├── ServiceUnavailable   PostgreSQL is away
    └── InternalError        a defect of ours

What each becomes on a wire is decided in `rest/errors.py` and `realtime/acks.py`.
"""

import math
from typing import Any, ClassVar

UNAVAILABLE_MESSAGE = "The chat service cannot reach its database, try again soon"


class ChatError(Exception):
    """An error that a client sees: `code` is one of the contract's, `message` is for people."""

    code: ClassVar[str]

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class ValidationFailed(ChatError):
    code = "VALIDATION_ERROR"


class PayloadTooLarge(ValidationFailed):
    code = "PAYLOAD_TOO_LARGE"


class Unauthorized(ChatError):
    code = "UNAUTHORIZED"


class Forbidden(ChatError):
    code = "FORBIDDEN"


class NotFound(ChatError):
    code = "NOT_FOUND"


class MethodNotAllowed(ChatError):
    code = "METHOD_NOT_ALLOWED"


class Conflict(ChatError):
    code = "CONFLICT"


class RateLimited(ChatError):
    """The user did too much of one thing; `retry_after` in seconds."""

    code = "RATE_LIMITED"

    def __init__(self, retry_after: float) -> None:
        seconds = max(1, math.ceil(retry_after))
        super().__init__(f"Too many requests, try again in {seconds} s", {"retryAfterMs": int(retry_after * 1000)})
        self.retry_after_seconds = seconds


class ServiceUnavailable(ChatError):
    code = "SERVICE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__(UNAVAILABLE_MESSAGE)


class InternalError(ChatError):
    code = "INTERNAL_ERROR"

    def __init__(self) -> None:
        super().__init__("Something went wrong on our side")
