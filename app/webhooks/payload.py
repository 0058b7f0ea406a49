"""Payloads of webhooks: the JSON of a row of the outbox, with the message as it is now.

A JavaScript `JSON.stringify(JSON.parse(body))` gives the same bytes back, because that is what the master's
handler verifies: no spaces, names that are no numbers, no escapes but those that JSON.stringify makes.
"""

import json
import secrets
from typing import Any

from app.contract import events, ids
from app.contract.codec import encode
from app.contract.schemas import timestamp
from app.postgres.transactions import Row


def webhook_id(row: Row) -> str:
    """Give the id that is the same on every attempt."""
    return ids.to_wire(ids.WEBHOOK, row["id"])


def traceparent(row: Row) -> str:
    """Give the place in the trace that caused it (W3C Trace Context), or else one in a trace of its own."""
    return row["traceparent"] or f"00-{row['id'].hex}-{secrets.token_hex(8)}-00"


def event(row: Row) -> bytes:
    return encode(row["event"])


def time(row: Row) -> bytes:
    """Give when it happened, whenever it is sent."""
    return encode(timestamp(row["created_at"]))


def data(row: Row) -> bytes:
    """Give `data` as JSON."""
    return encode(_DATA[row["event"]](row))


def _message_created(row: Row) -> dict[str, Any]:
    # Without its row the message went with its whole conversation.
    is_gone = row["content"] is None or row["deleted_at"] is not None
    said: dict[str, Any] = {
        "messageId": ids.to_wire(ids.MESSAGE, row["message_id"]),
        "conversationId": ids.to_wire(ids.CONVERSATION, row["conversation_id"]),
        "senderId": row["user_id"],
        "content": "" if is_gone else row["content"],
        "createdAt": timestamp(row["created_at"]),
        "seq": row["seq"],
        "attachments": [] if is_gone else json.loads(row["attachments"]),
    }
    if row["client_message_id"] is not None:
        said["clientMessageId"] = row["client_message_id"]
    if row["deleted_at"] is not None:
        said["deletedAt"] = timestamp(row["deleted_at"])
    return said


def _message_deleted(row: Row) -> dict[str, Any]:
    return {
        "messageId": ids.to_wire(ids.MESSAGE, row["message_id"]),
        "conversationId": ids.to_wire(ids.CONVERSATION, row["conversation_id"]),
        "senderId": json.loads(row["data"])["senderId"],
        "deletedBy": row["user_id"],
        "deletedAt": timestamp(row["created_at"]),
        "seq": row["seq"],
    }


def _conversation_created(row: Row) -> dict[str, Any]:
    known = json.loads(row["data"])
    return {
        "conversationId": ids.to_wire(ids.CONVERSATION, row["conversation_id"]),
        "type": known["type"],
        "createdBy": row["user_id"],
        "participantIds": known["participantIds"],
        "createdAt": timestamp(row["created_at"]),
    }


def _reaction_added(row: Row) -> dict[str, Any]:
    return {
        "messageId": ids.to_wire(ids.MESSAGE, row["message_id"]),
        "conversationId": ids.to_wire(ids.CONVERSATION, row["conversation_id"]),
        "userId": row["user_id"],
        "emoji": json.loads(row["data"])["emoji"],
        "createdAt": timestamp(row["created_at"]),
        "seq": row["seq"],
    }


def _presence(row: Row) -> dict[str, Any]:
    return {"userId": row["user_id"], "at": timestamp(row["created_at"]), "transition": row["seq"]}


_DATA = {
    events.MESSAGE_CREATED: _message_created,
    events.MESSAGE_REMOVED: _message_deleted,
    events.CONVERSATION_CREATED: _conversation_created,
    events.REACTION_CREATED: _reaction_added,
    events.USER_CAME: _presence,
    events.USER_WENT: _presence,
}
