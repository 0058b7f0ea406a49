"""Pagination cursors: opaque to clients, and valid only in the list that gave them out."""

import base64
import binascii
import hashlib
import struct
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from app.contract.errors import ValidationFailed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SEQ = struct.Struct(">8sq")
_ID = struct.Struct(">8s16s")
_ACTIVITY = struct.Struct(">8sq16s")


def seq_cursor(conversation_id: UUID, seq: int) -> str:
    """Point at a message in the history of one conversation."""
    return _encode(_SEQ.pack(_mark("history", conversation_id.hex), seq))


def read_seq_cursor(conversation_id: UUID, text: str, field: str) -> int:
    """Read a `seq_cursor` of this conversation; raises ValidationFailed for any other text."""
    mark, seq = _decode(_SEQ, text, field)
    _check(mark, _mark("history", conversation_id.hex), field)
    return int(seq)


def activity_cursor(user_id: str, at: datetime, conversation_id: UUID) -> str:
    """Point at a conversation in one user's list, which is ordered by activity."""
    microseconds = (at - _EPOCH) // timedelta(microseconds=1)
    return _encode(_ACTIVITY.pack(_mark("activity", user_id), microseconds, conversation_id.bytes))


def read_activity_cursor(user_id: str, text: str, field: str) -> tuple[datetime, UUID]:
    """Read an `activity_cursor` of this user; raises ValidationFailed for any other text."""
    mark, microseconds, conversation_id = _decode(_ACTIVITY, text, field)
    _check(mark, _mark("activity", user_id), field)
    try:
        return _EPOCH + timedelta(microseconds=microseconds), UUID(bytes=conversation_id)
    except OverflowError as error:
        raise _unknown(field) from error


def id_cursor(kind: str, last_id: UUID) -> str:
    """Point at a place in the list of all of a kind, which is ordered by id."""
    return _encode(_ID.pack(_mark("all", kind), last_id.bytes))


def read_id_cursor(kind: str, text: str, field: str) -> UUID:
    """Read an `id_cursor` of this kind; raises ValidationFailed for any other text."""
    mark, last_id = _decode(_ID, text, field)
    _check(mark, _mark("all", kind), field)
    return UUID(bytes=last_id)


def _mark(purpose: str, owner: str) -> bytes:
    return hashlib.blake2b(owner.encode(), digest_size=8, person=purpose.encode()).digest()


def _encode(packed: bytes) -> str:
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _decode(layout: struct.Struct, text: str, field: str) -> tuple[Any, ...]:
    try:
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return layout.unpack(packed)
    except (struct.error, binascii.Error, ValueError) as error:
        raise _unknown(field) from error


def _check(mark: bytes, expected: bytes, field: str) -> None:
    if mark != expected:
        raise _unknown(field)


def _unknown(field: str) -> ValidationFailed:
    return ValidationFailed(f"{field}: is not a cursor of this list", {"field": field})
