"""What happened, in the words of the wire: nowhere else is an event name spelled."""

from dataclasses import dataclass
from uuid import UUID

from msgspec import UNSET, structs

from app.schemas import ConversationView, ErrorEventView, ErrorView, MessageView, encode

# Client → server
MESSAGE_SEND = "message:send"

# Server → client
MESSAGE_NEW = "message:new"
CONVERSATION_NEW = "conversation:new"
ERROR = "error"


@dataclass(frozen=True, slots=True)
class Event:
    """An event and its payload as JSON, encoded once for all who get it."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """A durable change of a conversation: its event takes the place that `seq` gives it."""

    conversation_id: UUID
    seq: int
    event: Event


def message_new(conversation_id: UUID, message: MessageView) -> Change:
    return Change(conversation_id, message.seq, Event(MESSAGE_NEW, encode(message)))


def conversation_new(view: ConversationView) -> Event:
    """Tell people of a conversation that they are in; it is the same for all, so it counts nothing unread."""
    return Event(CONVERSATION_NEW, encode(structs.replace(view, unread_count=UNSET)))


def error(view: ErrorView, event: str) -> Event:
    """Tell one socket that something it did failed."""
    return Event(ERROR, encode(ErrorEventView(view.code, view.message, event, view.details)))
