"""Types of payloads that are sent as ready-made JSON, for the OpenAPI and AsyncAPI documents."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from app.contract import events
from app.contract.fields import Timestamp
from app.contract.schemas import ErrorView, MessageView, ParticipantView


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


class ConversationGone(msgspec.Struct, rename="camel"):
    conversation_id: str


class MessageRead(msgspec.Struct, rename="camel"):
    """Somebody has read everything up to `lastReadSeq`, which is the place of this message."""

    conversation_id: str
    message_id: str
    user_id: str
    last_read_seq: int
    read_at: Timestamp


class UserTyping(msgspec.Struct, rename="camel"):
    conversation_id: str
    user_id: str
    is_typing: bool


class PresenceChanged(msgspec.Struct, rename="camel"):
    """`transition` grows with each change of one user."""

    user_id: str
    transition: int


Yes = Annotated[bool, Meta(extra_json_schema={"const": True})]
No = Annotated[bool, Meta(extra_json_schema={"const": False})]


class Done(msgspec.Struct):
    ok: Yes


class MessageDone(msgspec.Struct):
    ok: Yes
    message: MessageView


class PresenceDone(msgspec.Struct):
    """Those of the users asked for who are online, and of whom one may hear."""

    ok: Yes
    online: list[str]


class CatchUpFailure(msgspec.Struct):
    error: ErrorView


CaughtUp = Annotated[
    Raw,
    Meta(
        extra_json_schema={
            "anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("EventPage", "CatchUpFailure")]
        }
    ),
]


class SyncDone(msgspec.Struct):
    """By conversation what was missed; `joined` are those entered since `since` that were not named."""

    ok: Yes
    events: dict[str, CaughtUp]
    joined: list[str]


class Failed(msgspec.Struct):
    ok: No
    error: ErrorView


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


# The kinds of an `EventView`, by its name.
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
