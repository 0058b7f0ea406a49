"""Payload schemas of both wires: commands that come in, views that go out."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from app.contract.codec import decode
from app.contract.errors import ValidationFailed
from app.contract.fields import (
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
    """One of the two fields names the users to add."""

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
    """The `auth` of `io(url, { auth })`."""

    token: Annotated[str, Meta(max_length=16_384)]


class ParticipantView(msgspec.Struct, rename="camel"):
    """A participant; one who was never synced has no `displayName` and no `avatarUrl`."""

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
