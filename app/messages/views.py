"""Rows become views: the only place where a column meets its name on the wire."""

from typing import Any
from uuid import UUID

from msgspec import UNSET, Raw

from app.contract import ids
from app.contract.codec import compact
from app.contract.schemas import ConversationView, MessageView, ParticipantView, UserView, timestamp
from app.messages.writer import Stored
from app.postgres.message_rows import MESSAGE_COLUMNS, NewMessage
from app.postgres.transactions import Row

LISTED_PARTICIPANTS = 20


def message(row: Row) -> MessageView:
    """Show a message."""
    return MessageView(
        id=ids.to_wire(ids.MESSAGE, row["id"]),
        conversation_id=ids.to_wire(ids.CONVERSATION, row["conversation_id"]),
        seq=row["seq"],
        sender_id=row["sender_id"],
        content=row["content"],
        attachments=Raw(row["attachments"].encode()),
        reactions=Raw(row["reactions"].encode()),
        created_at=timestamp(row["created_at"]),
        updated_at=timestamp(row["updated_at"]),
        client_message_id=row["client_message_id"] or UNSET,
        deleted_at=timestamp(row["deleted_at"]) if row["deleted_at"] else UNSET,
    )


def sent_message(new: NewMessage, stored: Stored) -> MessageView:
    """Show a message that was stored just now."""
    at = timestamp(stored.created_at)
    return MessageView(
        id=ids.to_wire(ids.MESSAGE, new.id),
        conversation_id=ids.to_wire(ids.CONVERSATION, new.conversation_id),
        seq=stored.seq,
        sender_id=new.sender_id,
        content=new.content,
        attachments=Raw(new.attachments.encode()),
        reactions=Raw(b"[]"),
        created_at=at,
        updated_at=at,
        client_message_id=new.client_message_id or UNSET,
    )


def participant(row: Row) -> ParticipantView:
    """Show that somebody is in a conversation."""
    return ParticipantView(
        user_id=row["user_id"],
        role=row["role"],
        joined_at=timestamp(row["joined_at"]),
        last_read_seq=row["last_read_seq"],
        last_read_at=timestamp(row["last_read_at"]) if row["last_read_at"] else UNSET,
        display_name=row["display_name"] or UNSET,
        avatar_url=row["avatar_url"] or UNSET,
    )


def logged_participant(data: dict[str, Any], profile: Row) -> ParticipantView:
    """Show somebody as they were when they were added, with the profile of now."""
    return ParticipantView(
        user_id=data["userId"],
        role=data["role"],
        joined_at=data["joinedAt"],
        last_read_seq=data["lastReadSeq"],
        display_name=profile["display_name"] or UNSET,
        avatar_url=profile["avatar_url"] or UNSET,
    )


def conversation(row: Row, participants: list[Row]) -> ConversationView:
    """Show a conversation as the user sees it for whom the row was read."""
    last = {column: row[f"last_message_{column}"] for column in (*MESSAGE_COLUMNS, "reactions")}
    return ConversationView(
        id=ids.to_wire(ids.CONVERSATION, row["id"]),
        type=row["type"],
        metadata=Raw(compact(row["metadata"])),
        created_by=row["created_by"],
        created_at=timestamp(row["created_at"]),
        updated_at=timestamp(row["updated_at"]),
        last_seq=row["last_seq"],
        participant_count=row["participant_count"],
        participants=[participant(person) for person in participants],
        title=UNSET if row["title"] is None else row["title"],
        owner_id=UNSET if row["owner_id"] is None else row["owner_id"],
        last_message=message(last) if last["id"] is not None else UNSET,
        unread_count=row["unread_count"],
    )


def user(row: Row) -> UserView:
    """Show a profile."""
    return UserView(
        external_user_id=row["id"],
        display_name=row["display_name"],
        metadata=Raw(compact(row["metadata"])),
        created_at=timestamp(row["created_at"]),
        updated_at=timestamp(row["updated_at"]),
        avatar_url=row["avatar_url"] or UNSET,
    )


def by_conversation(rows: list[Row]) -> dict[UUID, list[Row]]:
    """Group participant rows by their conversation, in the order given."""
    grouped: dict[UUID, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row["conversation_id"], []).append(row)
    return grouped
