"""Signatures of webhooks: `X-Webhook-Signature` and Standard Webhooks.

The plain kind: `X-Webhook-Signature: sha256=<hex>` over the whole body, and the same over
`{ event, timestamp, data }` inside it. And that of Standard Webhooks 1.0.0 (https://www.standardwebhooks.com):
`v1,<base64>` over `<id>.<seconds>.<body>`.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.config.types import Secret

_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class Keys:
    """One secret in the forms in which it is used."""

    text: bytes
    standard: bytes

    def __repr__(self) -> str:
        return "Keys('********')"


@dataclass(frozen=True, slots=True)
class Signed:
    """A body and the headers that go with it."""

    body: bytes
    headers: Mapping[str, str]


def keys_of(secret: Secret) -> Keys:
    """Prepare a secret: the bytes of its text, and for Standard Webhooks what follows `whsec_`, decoded."""
    text = secret.reveal()
    standard = text.encode()
    if text.startswith(_PREFIX):
        try:
            standard = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            # No Standard Webhooks secret after all: it is a text like any other.
            standard = text.encode()
    return Keys(text.encode(), standard)


def sign(
    webhook_id: str,
    event: bytes,
    timestamp: bytes,
    data: bytes,
    second: int,
    first: Keys,
    all_keys: Sequence[Keys],
) -> Signed:
    """Put the body together and sign it: the plain way with the first keys, the standard way with all of them.

    `event` and `timestamp` are JSON strings, `data` is a JSON object; `second` is the time of the attempt.
    """
    plain = b'{"event":%b,"timestamp":%b,"data":%b}' % (event, timestamp, data)
    inner = _hex(first, plain)
    body = b'{"event":%b,"timestamp":%b,"signature":"%b","data":%b}' % (event, timestamp, inner.encode(), data)
    standard = b"%b.%d.%b" % (webhook_id.encode(), second, body)
    signatures = " ".join(_base64(keys, standard) for keys in all_keys)
    return Signed(
        body,
        {
            "X-Webhook-Signature": _hex(first, body),
            "webhook-id": webhook_id,
            "webhook-timestamp": str(second),
            "webhook-signature": signatures,
        },
    )


def _hex(keys: Keys, message: bytes) -> str:
    return "sha256=" + hmac.digest(keys.text, message, "sha256").hex()


def _base64(keys: Keys, message: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(keys.standard, message, "sha256")).decode()
