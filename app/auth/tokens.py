"""User tokens: JWTs (RFC 7519) that the master signs with a secret that it shares with this service.

One that was verified is known until it expires: whether its user was deleted since is asked elsewhere, each time.
"""

import base64
import hashlib
import hmac
import logging
import math
import time
import warnings
from typing import Any

import jwt
import msgspec

from app.auth.actor import Actor
from app.errors import Unauthorized
from app.settings import Secret, Settings

ALGORITHM = "HS256"
LEEWAY = 1.0
PERMISSION_READ = "chat:read"
PERMISSION_WRITE = "chat:write"
MAX_USER_ID = 128
# Verified tokens that a process remembers; past it the oldest are verified again.
MAX_REMEMBERED = 20_000

_log = logging.getLogger(__name__)

# Short secrets are named once, at start; not again with every token.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)


class TokenVerifier:
    """Turns a token into an Actor; why one is refused is logged and never told to the client."""

    def __init__(self, settings: Settings) -> None:
        secrets = (settings.auth_jwt_secret, settings.auth_jwt_secret_previous)
        self._secrets = [secret.reveal().encode() for secret in secrets if secret is not None]
        self._issuer = settings.auth_jwt_issuer
        self._audience = settings.auth_jwt_audience
        self._verified: dict[bytes, Actor] = {}

    def verify(self, token: str) -> Actor:
        """Verify a token; raises Unauthorized without a reason."""
        # Neither the token nor anything that it could be guessed from stays in memory.
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        actor = self._verified.get(digest)
        if actor is not None and int(actor.expires_at) > time.time() - LEEWAY:
            return actor
        actor = self._verify(token)
        self._verified[digest] = actor
        if len(self._verified) > MAX_REMEMBERED:
            del self._verified[next(iter(self._verified))]
        return actor

    def _verify(self, token: str) -> Actor:
        try:
            claims = self._claims(token)
            self._check(claims)
            return _actor(claims)
        except (ValueError, TypeError, OverflowError, RecursionError, msgspec.DecodeError) as error:
            _log.info("token refused: %s", error)
            raise Unauthorized("The token is missing, wrong or expired") from error

    def _claims(self, token: str) -> dict[str, Any]:
        """Read a token (RFC 7515, section 5.2), and nothing in it before its signature is known to be right."""
        signed, _, signature = token.encode("ascii").rpartition(b".")
        if not any(hmac.compare_digest(signature, _sign(signed, secret)) for secret in self._secrets):
            raise ValueError("the signature is wrong")
        header, payload = map(_read_part, signed.split(b"."))
        if header.get("alg") != ALGORITHM or "crit" in header:
            raise ValueError(f"the algorithm is not {ALGORITHM}, or more must be understood")
        return payload

    def _check(self, claims: dict[str, Any]) -> None:
        """Raise ValueError where a token is not for us, or not now (RFC 7519, section 4.1)."""
        now, expires_at, not_before = time.time(), _number(claims.get("exp")), _number(claims.get("nbf", 0))
        if expires_at is None or not_before is None:
            raise ValueError("exp is missing, or exp or nbf is no number")
        if int(expires_at) <= now - LEEWAY or int(not_before) > now + LEEWAY:
            raise ValueError("the token has expired, or is not valid yet")
        if claims.get("iss") != self._issuer:
            raise ValueError("it is of another issuer")
        audience = claims.get("aud")
        meant_for = audience if isinstance(audience, list) else [audience]
        if self._audience is not None and self._audience not in meant_for:
            raise ValueError("it is meant for somebody else")


def _sign(signed: bytes, secret: bytes) -> bytes:
    return base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=")


def _read_part(part: bytes) -> dict[str, Any]:
    return msgspec.json.decode(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)), type=dict[str, Any])


def _actor(claims: dict[str, Any]) -> Actor:
    user_id = claims["externalUserId"] if "externalUserId" in claims else claims.get("sub")
    if not isinstance(user_id, str) or not 1 <= len(user_id) <= MAX_USER_ID or "\x00" in user_id:
        raise ValueError("the user id is no string of 1 to 128 characters without NUL")
    user_id.encode()  # raises UnicodeEncodeError, a ValueError, for unpaired surrogates
    permissions = claims.get("permissions")
    granted = permissions if isinstance(permissions, list) else []
    return Actor(
        user_id=user_id,
        can_read=PERMISSION_READ in granted,
        can_write=PERMISSION_WRITE in granted,
        expires_at=float(claims["exp"]),
        issued_at=_number(claims.get("iat")),
    )


def _number(claim: Any) -> float | None:
    if isinstance(claim, int | float) and not isinstance(claim, bool) and math.isfinite(claim):
        return float(claim)
    return None


def issue(secret: Secret, issuer: str, audience: str | None, user_id: str, lifetime: float) -> str:
    """Sign a token as the master would; `lifetime` in seconds."""
    now = int(time.time())
    claims = {
        "sub": user_id,
        "externalUserId": user_id,
        "permissions": [PERMISSION_READ, PERMISSION_WRITE],
        "iat": now,
        "exp": now + int(lifetime),
        "iss": issuer,
    }
    if audience:
        claims["aud"] = audience
    return jwt.encode(claims, secret.reveal(), algorithm=ALGORITHM)
