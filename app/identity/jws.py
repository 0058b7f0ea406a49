"""PyJWT's reading of tokens and its HS256, where it does again what is known, or does in Python what C does.

All that is known of PyJWT's insides stands here; written for 2.15, and `tests/unit/test_hooks.py` fails where that
changes.
"""

import functools
import hmac

import jwt
from jwt.algorithms import HMACAlgorithm
from jwt.utils import base64url_decode, base64url_encode

ALGORITHM = "HS256"


class _HS256(HMACAlgorithm):
    """HS256 that looks once whether a secret could be a key of another kind: PyJWT does so with every token."""

    def __init__(self) -> None:
        super().__init__(self.SHA256)
        self._prepared = functools.cache(super().prepare_key)

    def prepare_key(self, key: str | bytes) -> bytes:
        return self._prepared(key)

    def sign(self, msg: bytes, key: bytes) -> bytes:
        return hmac.digest(key, msg, "sha256")


class _JWS(jwt.PyJWS):
    """Takes a part of a token as it is where nothing is wrong with it; PyJWT looks at each letter."""

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        try:
            decoded = base64url_decode(segment)
            if base64url_encode(decoded) == segment:
                return decoded
        except ValueError:
            pass
        return jwt.PyJWS._decode_base64url_segment(segment, name)  # noqa: SLF001 - says what is wrong, or lets padding be


def key(secret: str) -> jwt.PyJWK:
    """Make the key that HS256 takes of a secret."""
    made = jwt.PyJWK({"kty": "oct", "k": base64url_encode(secret.encode()).decode()}, ALGORITHM)
    made.Algorithm = _HS256()
    return made


def reader() -> jwt.PyJWT:
    """Make a reader of tokens."""
    made = jwt.PyJWT()
    made._jws = _JWS()  # noqa: SLF001 - PyJWT takes none
    return made
