"""Event names and payloads of both wires: no other module spells an event name."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET, structs

from app.contract import ids
from app.contract.codec import encode
from app.contract.schemas import (
    ConversationView,
    ErrorEventView,
    ErrorView,
    MessageView,
    ParticipantView,
    timestamp,
)

# Client → server
MESSAGE_SEND = "message:send"
MESSAGE_EDIT = "message:edit"
MESSAGE_DELETE = "message:delete"
TYPING_START = "typing:start"
TYPING_STOP = "typing:stop"
PRESENCE_PING = "presence:ping"
PRESENCE_GET = "presence:get"
AUTH_REFRESH = "auth:refresh"
SYNC = "sync"

# Server → client, each with its place in the conversation
MESSAGE_NEW = "message:new"
MESSAGE_UPDATED = "message:updated"
MESSAGE_DELETED = "message:deleted"
REACTION_ADDED = "reaction:added"
REACTION_REMOVED = "reaction:removed"
PARTICIPANT_ADDED = "participant:added"
PARTICIPANT_REMOVED = "participant:removed"
CONVERSATION_UPDATED = "conversation:updated"

# Server → client, without one
CONVERSATION_NEW = "conversation:new"
CONVERSATION_DELETED = "conversation:deleted"
CONVERSATION_HIDDEN = "conversation:hidden"
MESSAGE_READ = "message:read"
USER_TYPING = "user:typing"
USER_ONLINE = "user:online"
USER_OFFLINE = "user:offline"
ERROR = "error"

# Chat service → master
MESSAGE_CREATED = "message.created"
MESSAGE_REMOVED = "message.deleted"
CONVERSATION_CREATED = "conversation.created"
REACTION_CREATED = "reaction.added"
USER_CAME = "user.online"
USER_WENT = "user.offline"

# Ephemeral events: the first to be dropped where a client cannot keep up.
FLEETING = frozenset({USER_TYPING, USER_ONLINE, USER_OFFLINE})


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event and its payload as JSON, encoded once for all who get it."""

    name: str
    data: bytes


class Change(msgspec.Struct):
    """A durable change of a conversation: its event takes the place that `seq` gives it.

    `committed` is when that was, in seconds since 1970, 0 where it is not known.
    """

    conversation_id: UUID
    seq: int
    event: Event
    committed: float = 0.0


def message_new(conversation_id: UUID, message: MessageView) -> Change:
    return Change(conversation_id, message.seq, Event(MESSAGE_NEW, encode(message)))


def message_updated(conversation_id: UUID, seq: int, message_id: UUID, content: str, at: datetime) -> Change:
    more = {"content": content, "updatedAt": timestamp(at)}
    return _about_message(MESSAGE_UPDATED, conversation_id, seq, message_id, more)


def message_deleted(conversation_id: UUID, seq: int, message_id: UUID, at: datetime) -> Change:
    return _about_message(MESSAGE_DELETED, conversation_id, seq, message_id, {"deletedAt": timestamp(at)})


def reaction(name: str, conversation_id: UUID, seq: int, message_id: UUID, emoji: str, user_id: str) -> Change:
    return _about_message(name, conversation_id, seq, message_id, {"emoji": emoji, "userId": user_id})


def participant_added(conversation_id: UUID, seq: int, participant: ParticipantView, added_by: str) -> Change:
    return _change(PARTICIPANT_ADDED, conversation_id, seq, {"participant": participant, "addedBy": added_by})


def participant_removed(conversation_id: UUID, seq: int, user_id: str, removed_by: str) -> Change:
    return _change(PARTICIPANT_REMOVED, conversation_id, seq, {"userId": user_id, "removedBy": removed_by})


def conversation_updated(conversation_id: UUID, seq: int, state: dict[str, Any]) -> Change:
    """Make the event with what `title`, `metadata`, `ownerId` and `updatedAt` are now."""
    return _change(CONVERSATION_UPDATED, conversation_id, seq, state)


def logged(name: str, conversation_id: UUID, seq: int, message_id: UUID | None, data: dict[str, Any]) -> Change:
    """Pass on what a newer release logged under a name that this one does not know: no seq may be missing."""
    if message_id is not None:
        return _about_message(name, conversation_id, seq, message_id, data)
    return _change(name, conversation_id, seq, data)


def removed_user(event: Event) -> str | None:
    """Give the user that an event removes from its conversation; None for other events."""
    if event.name != PARTICIPANT_REMOVED:
        return None
    return str(msgspec.json.decode(event.data)["userId"])


def typing(event: Event) -> tuple[str, bool] | None:
    """Give the user and whether they type; None for other events."""
    if event.name != USER_TYPING:
        return None
    data = msgspec.json.decode(event.data)
    return data["userId"], data["isTyping"]


def conversation_new(view: ConversationView) -> Event:
    """Make the event for new participants; it is the same for all, so it has no unread count."""
    return Event(CONVERSATION_NEW, encode(structs.replace(view, unread_count=UNSET)))


def conversation_deleted(conversation_id: UUID) -> Event:
    return Event(CONVERSATION_DELETED, encode({"conversationId": _wire(conversation_id)}))


def conversation_hidden(conversation_id: UUID) -> Event:
    return Event(CONVERSATION_HIDDEN, encode({"conversationId": _wire(conversation_id)}))


def message_read(conversation_id: UUID, message_id: UUID, user_id: str, seq: int, at: datetime) -> Event:
    data = {
        "conversationId": _wire(conversation_id),
        "messageId": ids.to_wire(ids.MESSAGE, message_id),
        "userId": user_id,
        "lastReadSeq": seq,
        "readAt": timestamp(at),
    }
    return Event(MESSAGE_READ, encode(data))


def user_typing(conversation_id: UUID, user_id: str, *, is_typing: bool) -> Event:
    data = {"conversationId": _wire(conversation_id), "userId": user_id, "isTyping": is_typing}
    return Event(USER_TYPING, encode(data))


def user_presence(user_id: str, number: int, *, is_online: bool) -> Event:
    """Make the event that a user came or went; `number` grows with each change of that user."""
    data = {"userId": user_id, "transition": number}
    return Event(USER_ONLINE if is_online else USER_OFFLINE, encode(data))


def presence_change(event: Event) -> tuple[str, int] | None:
    """Give the user whose presence changed and the number of the change; None for other events."""
    if event.name not in {USER_ONLINE, USER_OFFLINE}:
        return None
    data = msgspec.json.decode(event.data)
    return data["userId"], data["transition"]


def error(view: ErrorView, event: str) -> Event:
    """Make the event for one socket whose event failed."""
    return Event(ERROR, encode(ErrorEventView(view.code, view.message, event, view.details)))


def _about_message(name: str, conversation_id: UUID, seq: int, message_id: UUID, more: dict[str, Any]) -> Change:
    return _change(name, conversation_id, seq, {"messageId": ids.to_wire(ids.MESSAGE, message_id), **more})


def _change(name: str, conversation_id: UUID, seq: int, more: dict[str, Any]) -> Change:
    data = {"conversationId": _wire(conversation_id), "seq": seq, **more}
    return Change(conversation_id, seq, Event(name, encode(data)))


def _wire(conversation_id: UUID) -> str:
    return ids.to_wire(ids.CONVERSATION, conversation_id)
