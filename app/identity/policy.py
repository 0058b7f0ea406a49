"""Authorization and validation rules: pure functions that raise, called by the use-cases alone."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET

from app.config.settings import Settings
from app.contract.codec import bounded_numbers, encode, refuse_nul, reject
from app.contract.errors import Conflict, Forbidden
from app.contract.schemas import AddParticipants, CreateConversation, EditMessage, SendMessage
from app.identity.actor import Actor

MAX_EMOJI_BYTES = 64

# Anything but white space, control characters, and what a browser shows nothing for: Default_Ignorable_Code_Point
# of the Unicode Character Database, interlinear annotations, and the blank of Braille.
_VISIBLE = re.compile(
    r"[^\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff]"
)


def require_read(actor: Actor) -> None:
    """Raise Forbidden unless the token grants `chat:read`."""
    if not actor.can_read:
        raise Forbidden("The token does not grant chat:read")


def require_write(actor: Actor) -> None:
    """Raise Forbidden unless the token grants `chat:write`."""
    if not actor.can_write:
        raise Forbidden("The token does not grant chat:write")


def check_message(settings: Settings, command: SendMessage) -> None:
    """Raise ValidationFailed for a message that is empty or too big."""
    if len(command.attachments) > settings.max_attachments:
        raise reject("attachments", f"must be {settings.max_attachments} at most")
    _check_content(settings, command.content, has_attachments=bool(command.attachments))


def _check_content(settings: Settings, content: str, *, has_attachments: bool) -> None:
    if len(content) > settings.max_content_length:
        raise reject("content", f"must be {settings.max_content_length} characters at most")
    if not has_attachments and _VISIBLE.search(content) is None:
        raise reject("content", "must not be blank without an attachment")


def check_edit(settings: Settings, actor: Actor, message: Mapping[str, Any], command: EditMessage) -> None:
    """Raise Forbidden for anybody but the author, Conflict for a tombstone, ValidationFailed for bad content."""
    if message["sender_id"] != actor.user_id:
        raise Forbidden("Only its author may edit a message")
    if message["deleted_at"] is not None:
        raise Conflict("The message was deleted")
    _check_content(settings, command.content, has_attachments=message["attachments"] != "[]")


def check_delete(actor: Actor, message: Mapping[str, Any], owner_id: str | None) -> None:
    """Raise Forbidden for anybody but the author and the owner of the group."""
    if actor.user_id not in {message["sender_id"], owner_id}:
        raise Forbidden("Only its author or the owner of the group may delete a message")


def check_emoji(emoji: str) -> None:
    """Raise ValidationFailed for what could not stand in the path of a URL, or is too long."""
    if not 1 <= len(emoji.encode()) <= MAX_EMOJI_BYTES:
        raise reject("emoji", f"must be 1 to {MAX_EMOJI_BYTES} bytes")
    if "/" in emoji or emoji in {".", ".."} or any(unicodedata.category(sign) == "Cc" for sign in emoji):
        raise reject("emoji", "must not contain / or control characters, and not be . or ..")


def people_of(command: AddParticipants) -> list[str]:
    """List whom to add, each once; raises ValidationFailed unless one of the two fields names them."""
    if command.user_ids is UNSET and command.user_id is UNSET:
        raise reject("userId", "is missing, and so is userIds")
    named = [] if command.user_ids is UNSET else command.user_ids
    alone = [] if command.user_id is UNSET else [command.user_id]
    return list(dict.fromkeys([*alone, *named]))


def require_group(kind: str) -> None:
    """Raise Conflict for a direct conversation."""
    if kind != "group":
        raise Conflict("A direct conversation stays as it is")


def check_removal(actor: Actor, user_id: str, owner_id: str | None) -> None:
    """Raise Forbidden unless the actor goes or owns the group."""
    if actor.user_id not in {user_id, owner_id}:
        raise Forbidden("Only the owner of a group may remove others")


def others_of(settings: Settings, actor: Actor, command: CreateConversation) -> list[str]:
    """List whom the actor wants to talk to, each once; raises ValidationFailed where that cannot be."""
    others = list(dict.fromkeys(user for user in command.participant_ids if user != actor.user_id))
    if command.type == "direct" and len(others) != 1:
        raise reject("participantIds", "must name exactly one other person in a direct conversation")
    if len(others) + 1 > settings.max_participants:
        raise reject("participantIds", f"must be {settings.max_participants} people at most, with yourself")
    return others


def check_metadata(settings: Settings, metadata: dict[str, object]) -> bytes:
    """Write metadata as JSON; raises ValidationFailed where it is too big or cannot be stored."""
    try:
        refuse_nul("metadata", metadata)
        text = encode(bounded_numbers(metadata))
    except RecursionError as error:
        raise reject("metadata", "is nested too deeply") from error
    except OverflowError as error:
        raise reject("metadata", "has a number that is larger than any double") from error
    if len(text) > settings.max_metadata_bytes:
        raise reject("metadata", f"must be {settings.max_metadata_bytes} bytes of JSON at most")
    return text
