"""Engine.IO session ids that name the pod that holds the session, signed so that nobody makes one up."""

import hashlib
import hmac
import secrets

from app.config.types import Secret

_RANDOM_BYTES = 15
_SIGNATURE_BYTES = 8


class SessionIds:
    """Makes the ids of one pod, and reads those of all."""

    def __init__(self, pod: str, secret: Secret) -> None:
        self.pod = pod
        self._key = hashlib.sha256(b"chat-service session ids\x00" + secret.reveal().encode()).digest()

    def new(self) -> str:
        body = f"{self.pod}.{secrets.token_urlsafe(_RANDOM_BYTES)}"
        return f"{body}.{self._sign(body)}"

    def pod_of(self, session_id: str) -> str | None:
        """Tell which pod holds a session; None for an id that no pod has made."""
        body, _, signature = session_id.rpartition(".")
        pod, separator, _ = body.partition(".")
        if not separator or not hmac.compare_digest(self._sign(body).encode(), signature.encode()):
            return None
        return pod

    def _sign(self, body: str) -> str:
        # With a key, BLAKE2 is a MAC by itself (RFC 7693).
        return hashlib.blake2b(body.encode(), key=self._key, digest_size=_SIGNATURE_BYTES).hexdigest()
