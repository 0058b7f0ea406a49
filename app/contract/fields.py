"""Field types of commands and views, with their limits."""

from typing import Annotated, Any

from msgspec import Meta, Raw

# PostgreSQL cannot store NUL in text.
Text = Annotated[str, Meta(pattern=r"^[^\x00]*$")]
Title = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00]*$")]
Label = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00]*$")]
UserId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
DisplayName = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
AvatarUrl = Annotated[str, Meta(max_length=2048, pattern=r"^[^\x00]*$")]
ClientMessageId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
# In the place of the id of a conversation: longer than any, so that a wrong one gets an answer of its own.
ConversationName = Annotated[str, Meta(max_length=64)]
FileId = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]

# These are checked elsewhere, or written by this service: here they are only described for /openapi.json.
Content = Annotated[
    Text, Meta(description="8,000 characters at most, kept as sent; blank only beside an attachment.")
]
Metadata = Annotated[dict[str, Any], Meta(description="4 KiB of JSON at most.")]
Emoji = Annotated[
    str,
    Meta(
        description="64 bytes at most, without `/` and control characters, and not `.` or `..`.",
        extra_json_schema={
            "minLength": 1,
            "maxLength": 64,
            "pattern": r"^(?!\.{1,2}$)[^/\x00-\x1f\x7f-\x9f]+$",
        },
    ),
]
Timestamp = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
JsonObject = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
RawAttachments = Annotated[
    Raw, Meta(extra_json_schema={"type": "array", "items": {"$ref": "#/components/schemas/Attachment"}})
]
RawReactions = Annotated[
    Raw, Meta(extra_json_schema={"type": "array", "items": {"$ref": "#/components/schemas/Reaction"}})
]
RawUser = Annotated[Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/SyncUser"})]
