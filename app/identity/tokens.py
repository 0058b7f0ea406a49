"""User tokens: JWTs (RFC 7519) that the master signs with a secret that it shares with this service.

A verified token is cached until it expires; whether its user was deleted since is checked elsewhere, each time.
"""

import functools
import hashlib
import hmac
import logging
import math
import time
import warnings
from collections import OrderedDict
from typing import Any

import jwt
from jwt.algorithms import HMACAlgorithm
from jwt.utils import base64url_encode

from app.config.settings import Settings
from app.config.types import Secret
from app.contract.errors import Unauthorized
from app.identity.actor import Actor

ALGORITHM = "HS256"
LEEWAY = 1.0
# How far the clock of the master may be ahead.
MAX_AHEAD = 60.0
PERMISSION_READ = "chat:read"
PERMISSION_WRITE = "chat:write"
MAX_USER_ID = 128
# Verified tokens that a process caches; past it the oldest are verified again.
MAX_REMEMBERED = 20_000
# Refusals of one kind are logged so many seconds apart: whoever is refused may try very often.
LOG_INTERVAL = 1.0

_log = logging.getLogger(__name__)

# Short secrets are warned of once, at start; not again with every token.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)


class _HS256(HMACAlgorithm):
    """HS256 with one-shot HMAC, which checks once whether the secret could be a key of another kind."""

    def __init__(self) -> None:
        super().__init__(self.SHA256)
        self._prepared = functools.cache(super().prepare_key)

    def prepare_key(self, key: str | bytes) -> bytes:
        return self._prepared(key)

    def sign(self, msg: bytes, key: bytes) -> bytes:
        return hmac.digest(key, msg, "sha256")


def _key(secret: str) -> jwt.PyJWK:
    made = jwt.PyJWK({"kty": "oct", "k": base64url_encode(secret.encode()).decode()}, ALGORITHM)
    made.Algorithm = _HS256()
    return made


class TokenVerifier:
    """Turns a token into an Actor; the reason of a refusal is logged and never sent to the client."""

    def __init__(self, settings: Settings) -> None:
        self._keys = [_key(settings.auth_jwt_secret.reveal())]
        if settings.auth_jwt_secret_previous is not None:
            self._keys.append(_key(settings.auth_jwt_secret_previous.reveal()))
        self._issuer = settings.auth_jwt_issuer
        self._audience = settings.auth_jwt_audience
        self._jwt = jwt.PyJWT()
        # Not a dict, where the oldest takes long to find once many older ones were taken out.
        self._verified: OrderedDict[bytes, Actor] = OrderedDict()
        # When a refusal was last logged, by its kind.
        self._logged: dict[type[Exception], float] = {}
        self._options: Any = {
            "require": ["exp", "iss"] + (["aud"] if self._audience else []),
            "verify_aud": self._audience is not None,
            "verify_iat": False,
            # The user's id may stand in a claim of its own: it is checked below.
            "verify_sub": False,
        }

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
            self._verified.popitem(last=False)
        return actor

    def _verify(self, token: str) -> Actor:
        try:
            return _actor(self._claims(token))
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError) as error:
            self._log(error)
            raise Unauthorized("The token is missing, wrong or expired") from error

    def _log(self, error: Exception) -> None:
        kind, now = type(error), time.monotonic()
        if now - self._logged.get(kind, -LOG_INTERVAL) >= LOG_INTERVAL:
            self._logged[kind] = now
            _log.info("token refused: %s", error)

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            return self._decode(token, self._keys[0])
        except jwt.InvalidSignatureError:
            if len(self._keys) == 1:
                raise
            return self._decode(token, self._keys[1])

    def _decode(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        return self._jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY,
            options=self._options,
        )


def _actor(claims: dict[str, Any]) -> Actor:
    user_id = claims["externalUserId"] if "externalUserId" in claims else claims.get("sub")
    if not isinstance(user_id, str) or not 1 <= len(user_id) <= MAX_USER_ID or "\x00" in user_id:
        raise ValueError("the user id is no string of 1 to 128 characters without NUL")
    user_id.encode()  # raises UnicodeEncodeError, a ValueError, for unpaired surrogates
    permissions = claims.get("permissions")
    granted = permissions if isinstance(permissions, list) else []
    expires_at = _number(claims["exp"])
    if expires_at is None:
        raise ValueError("exp is no number")
    issued_at = _number(claims.get("iat"))
    if issued_at is not None and issued_at - time.time() > MAX_AHEAD:
        raise ValueError(f"iat is more than {MAX_AHEAD:g} s ahead of this clock")
    return Actor(
        user_id=user_id,
        can_read=PERMISSION_READ in granted,
        can_write=PERMISSION_WRITE in granted,
        expires_at=expires_at,
        issued_at=issued_at,
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
