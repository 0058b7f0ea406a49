"""Cross-origin rules (https://fetch.spec.whatwg.org/#http-cors-protocol), the same on both listeners."""

from collections.abc import Collection

ALLOWED_METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key"
EXPOSED_HEADERS = "Retry-After"
PREFLIGHT_SECONDS = "600"


def is_allowed(origin: str | None, allowed: Collection[str]) -> bool:
    """Whether a request may be served: one without an origin comes from no browser page."""
    return origin is None or origin in allowed


def headers(origin: str | None, allowed: Collection[str], *, preflight: bool) -> dict[str, str]:
    """Give the headers of an answer; an origin that is not listed gets none that let a page read it."""
    found = {"Vary": "Origin"}
    if origin is None or origin not in allowed:
        return found
    found["Access-Control-Allow-Origin"] = origin
    found["Access-Control-Allow-Credentials"] = "true"
    if preflight:
        found["Access-Control-Allow-Methods"] = ALLOWED_METHODS
        found["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
        found["Access-Control-Max-Age"] = PREFLIGHT_SECONDS
    else:
        found["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
    return found
