"""Authentication of REST calls: a user by a bearer token, the master by `X-Internal-Secret`."""

import hmac

from sanic import Request

from app.contract.errors import Unauthorized
from app.identity.actor import Actor
from app.rest.parameters import deps_of
from app.usecases import sessions


async def actor_of(request: Request) -> Actor:
    """Authenticate a user by `Authorization: Bearer` (RFC 6750), and check revocation; raises Unauthorized."""
    return await sessions.authenticate(deps_of(request), _token(request))


def sender_of(request: Request) -> Actor:
    """Authenticate a sender; the statement that stores the message checks revocation. Raises Unauthorized."""
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
    # All are compared, each in constant time: the time that it takes reveals nothing.
    matches = [hmac.compare_digest(given, secret.reveal().encode()) for secret in known if secret is not None]
    if not any(matches) or "authorization" in request.headers:
        raise Unauthorized("The header `X-Internal-Secret` is missing or wrong, or beside a user's token")
