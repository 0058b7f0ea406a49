"""The vocabulary of both wires: commands that come in, views that go out.

`decode` is the only way in, so that REST and sockets refuse the same things in the same words.
"""

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from app.errors import ValidationFailed
from app.fields import (
    AvatarUrl,
    ClientMessageId,
    Content,
    ConversationName,
    DisplayName,
    Emoji,
    FileId,
    JsonObject,
    Label,
    Metadata,
    RawAttachments,
    RawReactions,
    RawUser,
    Text,
    Timestamp,
    Title,
    UserId,
)

MAX_BATCH = 1000

_C = TypeVar("_C", bound=msgspec.Struct)


class Attachment(msgspec.Struct, rename="camel", frozen=True):
    """A file that the master keeps: the chat service knows its id and what to call it."""

    external_file_id: FileId
    label: Label | UnsetType = UNSET


class CreateConversation(msgspec.Struct, rename="camel", frozen=True):
    type: Literal["direct", "group"]
    participant_ids: list[UserId]
    title: Title | None = None
    metadata: Metadata | None = None


class SendMessage(msgspec.Struct, rename="camel", frozen=True):
    content: Content
    attachments: list[Attachment] = []
    client_message_id: ClientMessageId | None = None


class EditMessage(msgspec.Struct, frozen=True):
    content: Content


class AddReaction(msgspec.Struct, frozen=True):
    emoji: Emoji


class UpdateConversation(msgspec.Struct, frozen=True):
    title: Title | UnsetType | None = UNSET
    metadata: Metadata | UnsetType = UNSET


class AddParticipants(msgspec.Struct, rename="camel", frozen=True):
    """One of the two names the people."""

    user_id: UserId | UnsetType = UNSET
    user_ids: Annotated[list[UserId], Meta(min_length=1, max_length=100)] | UnsetType = UNSET


class SyncUser(msgspec.Struct, rename="camel", frozen=True):
    external_user_id: UserId
    display_name: DisplayName
    avatar_url: AvatarUrl | None = None
    metadata: Metadata | None = None


class SyncUsers(msgspec.Struct, frozen=True):
    """Each entry is read by itself, so that a bad one does not sink the others."""

    users: Annotated[list[RawUser], Meta(max_length=MAX_BATCH)]


class SocketSendMessage(SendMessage, rename="camel", frozen=True, kw_only=True):
    """`message:send`: the same as over REST, with the conversation beside it."""

    conversation_id: Text


class SocketEditMessage(EditMessage, rename="camel", frozen=True, kw_only=True):
    """`message:edit`."""

    message_id: Text


class SocketDeleteMessage(msgspec.Struct, rename="camel", frozen=True):
    """`message:delete`."""

    message_id: Text


class SocketTyping(msgspec.Struct, rename="camel", frozen=True):
    """`typing:start` and `typing:stop`."""

    conversation_id: Text


class SocketPresence(msgspec.Struct, rename="camel", frozen=True):
    """`presence:get`."""

    user_ids: Annotated[list[UserId], Meta(max_length=200)]


class SocketSync(msgspec.Struct, frozen=True):
    """`sync`: what the client holds of each conversation, and since when it was away."""

    conversations: Annotated[dict[ConversationName, Annotated[int, Meta(ge=0, le=2**53)]], Meta(max_length=200)]
    since: Annotated[datetime, Meta(tz=True)] | None = None


class ConnectAuth(msgspec.Struct, frozen=True):
    """What `io(url, { auth })` hands in."""

    token: Annotated[str, Meta(max_length=16_384)]


class ParticipantView(msgspec.Struct, rename="camel"):
    user_id: str
    role: Literal["owner", "member"]
    joined_at: Timestamp
    last_read_seq: int
    last_read_at: Timestamp | UnsetType = UNSET
    display_name: str | UnsetType = UNSET
    avatar_url: str | UnsetType = UNSET


class MessageView(msgspec.Struct, rename="camel"):
    """A message, placed by the `seq` of its creation; one with `deletedAt` is a tombstone that says nothing."""

    id: str
    conversation_id: str
    seq: int
    sender_id: str
    content: str
    attachments: RawAttachments
    reactions: RawReactions
    created_at: Timestamp
    updated_at: Timestamp
    client_message_id: str | UnsetType = UNSET
    deleted_at: Timestamp | UnsetType = UNSET


class ConversationView(msgspec.Struct, rename="camel"):
    """A conversation as one of its participants sees it; an `unreadCount` of 1000 means that or more."""

    id: str
    type: Literal["direct", "group"]
    metadata: JsonObject
    created_by: str
    created_at: Timestamp
    updated_at: Timestamp
    last_seq: int
    participant_count: int
    participants: list[ParticipantView]
    title: str | UnsetType = UNSET
    owner_id: str | UnsetType = UNSET
    last_message: MessageView | UnsetType = UNSET
    unread_count: int | UnsetType = UNSET


class EventView(msgspec.Struct):
    seq: int
    event: str
    data: Raw


class EventPage(msgspec.Struct, rename="camel"):
    """Changes in the order of their `seq`; after a `gap` only loading afresh helps."""

    items: list[EventView]
    last_seq: int
    has_more: bool
    gap: bool


class ReadView(msgspec.Struct, rename="camel"):
    """How far somebody has read: everything up to `lastReadSeq`."""

    conversation_id: str
    last_read_seq: int
    read_at: Timestamp


class UserView(msgspec.Struct, rename="camel"):
    external_user_id: str
    display_name: str
    metadata: JsonObject
    created_at: Timestamp
    updated_at: Timestamp
    avatar_url: str | UnsetType = UNSET


class ConversationPage(msgspec.Struct, rename="camel"):
    items: list[ConversationView]
    next_cursor: str | UnsetType = UNSET


class MessagePage(msgspec.Struct, rename="camel"):
    items: list[MessageView]
    has_more: bool
    next_cursor: str | UnsetType = UNSET


class ErrorView(msgspec.Struct):
    """The one shape of every error, on both wires."""

    code: str
    message: str
    details: dict[str, Any] | UnsetType = UNSET


class ErrorEventView(msgspec.Struct):
    """The error event of a socket: the same, and which event failed."""

    code: str
    message: str
    event: str
    details: dict[str, Any] | UnsetType = UNSET


def timestamp(at: datetime) -> str:
    """Write a UTC time as ISO 8601 with milliseconds and `Z`."""
    return at.isoformat(timespec="milliseconds")[:23] + "Z"


_encoder = msgspec.json.Encoder()
_MISSING = re.compile(r"Object missing required field `([^`]+)`(?: - at `\$\.?([^`]*)`)?")
_ANYWHERE = re.compile(r"(.*) - at (?:`key` in )?`\$\.?([^`]*)`", re.DOTALL)


def encode(view: Any) -> bytes:
    """Write a view as JSON."""
    return _encoder.encode(view)


def decode(kind: type[_C], raw: bytes | Raw) -> _C:
    """Read a command from JSON; raises ValidationFailed that names the field."""
    try:
        command = msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(bytes(raw)) from error
    return command


def decode_users(raw: bytes) -> SyncUsers:
    """Read a batch of profiles; half a character in one of them, which breaks the JSON, is its own alone."""
    try:
        return decode(SyncUsers, raw)
    except ValidationFailed:
        try:
            users = json.loads(raw)["users"]
            entries = [Raw(json.dumps(user).encode()) for user in users]
        except (ValueError, TypeError, LookupError, RecursionError):
            entries = None
        if entries is None or not isinstance(users, list) or len(entries) > MAX_BATCH:
            raise
        return SyncUsers(entries)


def reject(field: str, problem: str) -> ValidationFailed:
    """Make the error that names a field, in the words that `decode` uses."""
    return ValidationFailed(f"{field}: {problem}", {"field": field})


def refuse_nul(field: str, value: Any) -> None:
    """Refuse NUL in free-form JSON, which typed fields refuse by themselves; raises ValidationFailed."""
    path = _find(value, lambda text: "\x00" in text, field)
    if path is not None:
        raise reject(path, "must not contain NUL characters")


def _invalid(text: str) -> ValidationFailed:
    if missing := _MISSING.fullmatch(text):
        name, parent = missing[1], missing[2]
        return reject(f"{parent}.{name}" if parent else name, "is missing")
    if located := _ANYWHERE.fullmatch(text):
        problem = "must not contain NUL characters" if "matching regex" in located[1] else located[1]
        return reject(located[2] or "body", problem)
    return reject("body", text)


def _broken(raw: bytes) -> ValidationFailed:
    """Say what is wrong with text that is no JSON to a strict reader; the lenient one finds the field."""
    try:
        lenient = json.loads(raw)
    except (ValueError, RecursionError):
        return reject("body", "is not valid JSON")
    path = _find(lenient, _has_surrogate, "")
    return reject(path or "body", "must not contain unpaired surrogates" if path else "is not valid JSON")


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _find(value: Any, wrong: Callable[[str], bool], path: str) -> str | None:
    """Find the path to the first text, key or value, that is wrong."""
    if isinstance(value, str):
        return path if wrong(value) else None
    if isinstance(value, dict):
        for key, inner in value.items():
            if wrong(key):
                return path or "body"
            if found := _find(inner, wrong, f"{path}.{key}" if path else key):
                return found
    if isinstance(value, list):
        for index, inner in enumerate(value):
            if found := _find(inner, wrong, f"{path}[{index}]"):
                return found
    return None


def client_message_id(text: str) -> str:
    """Check an id that came in a header; raises ValidationFailed."""
    if _has_surrogate(text):
        raise reject("Idempotency-Key", "is not UTF-8")
    try:
        return msgspec.convert(text, ClientMessageId)
    except msgspec.ValidationError as error:
        raise reject("Idempotency-Key", str(error)) from error
