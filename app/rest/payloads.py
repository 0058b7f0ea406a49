"""What views carry as JSON that is ready written, as types: nothing but `/openapi.json` is made from them."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app import events
from app.fields import Timestamp
from app.schemas import MessageView, ParticipantView


class ReactionView(msgspec.Struct, rename="camel"):
    """One emoji on a message; `userIds` holds the first 50 people and the reader, `count` is of all."""

    emoji: str
    user_ids: list[str]
    count: Annotated[int, Meta(ge=1)]


class _Change(msgspec.Struct, rename="camel"):
    conversation_id: str
    seq: int


class MessageUpdated(_Change, rename="camel"):
    message_id: str
    content: str
    updated_at: Timestamp


class MessageDeleted(_Change, rename="camel"):
    message_id: str
    deleted_at: Timestamp


class ReactionChanged(_Change, rename="camel"):
    message_id: str
    emoji: str
    user_id: str


class ParticipantAdded(_Change, rename="camel"):
    participant: ParticipantView
    added_by: str


class ParticipantRemoved(_Change, rename="camel"):
    user_id: str
    removed_by: str


class ConversationUpdated(_Change, rename="camel"):
    title: str | None
    metadata: dict[str, Any]
    owner_id: str | None
    updated_at: Timestamp


class _Event(msgspec.Struct, tag_field="event"):
    seq: int


class MessageNewEvent(_Event, tag=events.MESSAGE_NEW):
    data: MessageView


class MessageUpdatedEvent(_Event, tag=events.MESSAGE_UPDATED):
    data: MessageUpdated


class MessageDeletedEvent(_Event, tag=events.MESSAGE_DELETED):
    data: MessageDeleted


class ReactionAddedEvent(_Event, tag=events.REACTION_ADDED):
    data: ReactionChanged


class ReactionRemovedEvent(_Event, tag=events.REACTION_REMOVED):
    data: ReactionChanged


class ParticipantAddedEvent(_Event, tag=events.PARTICIPANT_ADDED):
    data: ParticipantAdded


class ParticipantRemovedEvent(_Event, tag=events.PARTICIPANT_REMOVED):
    data: ParticipantRemoved


class ConversationUpdatedEvent(_Event, tag=events.CONVERSATION_UPDATED):
    data: ConversationUpdated


# What an `EventView` is: its name tells which.
LoggedEvent = (
    MessageNewEvent
    | MessageUpdatedEvent
    | MessageDeletedEvent
    | ReactionAddedEvent
    | ReactionRemovedEvent
    | ParticipantAddedEvent
    | ParticipantRemovedEvent
    | ConversationUpdatedEvent
)
