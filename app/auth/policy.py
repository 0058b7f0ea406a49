"""Who may do what: pure functions that raise, called by the use-cases and by nothing else."""

from app.auth.actor import Actor
from app.errors import Forbidden
from app.schemas import CreateConversation, SendMessage, encode, refuse_nul, reject
from app.settings import Settings


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
    if len(command.content) > settings.max_content_length:
        raise reject("content", f"must be {settings.max_content_length} characters at most")
    if not command.content.strip() and not command.attachments:
        raise reject("content", "must not be blank without an attachment")


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
    refuse_nul("metadata", metadata)
    text = encode(metadata)
    if len(text) > settings.max_metadata_bytes:
        raise reject("metadata", f"must be {settings.max_metadata_bytes} bytes of JSON at most")
    return text
