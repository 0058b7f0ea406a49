"""Rows of conversations: one, lists of them, and where their event logs stand."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from app.postgres.statements import statement
from app.postgres.transactions import POOL, Row

LIST_CONVERSATIONS = statement("list_conversations")
GET_CONVERSATION = statement("get_conversation")
ALL_CONVERSATIONS = statement("all_conversations")
CONVERSATIONS_OF_TYPE = {"direct": statement("direct_conversations"), "group": statement("group_conversations")}
CONVERSATIONS_OF_USER = statement("conversations_of_user")
LAST_SEQS = statement("last_seqs")

# As far as `unread_count` counts.
UNREAD_CEILING = 1000


async def list_conversations(user_id: str, before: tuple[datetime, UUID] | None, limit: int) -> list[Row]:
    at, conversation_id = before or (None, None)
    return await POOL.rows(LIST_CONVERSATIONS, user_id, at, conversation_id, limit)


async def all_conversations(after: UUID | None, kind: str | None, user_id: str | None, limit: int) -> list[Row]:
    """Read conversations after an id: all, or those of a type, or a user's, or the user's of a type."""
    start = after or UUID(int=0)
    if user_id is not None:
        return await POOL.rows(CONVERSATIONS_OF_USER, start, limit, user_id, kind)
    if kind is not None:
        return await POOL.rows(CONVERSATIONS_OF_TYPE[kind], start, limit)
    return await POOL.rows(ALL_CONVERSATIONS, start, limit)


async def get_conversation(conversation_id: UUID, user_id: str) -> Row | None:
    """Read a conversation as one of its participants sees it; None for anybody else."""
    return await POOL.row(GET_CONVERSATION, conversation_id, user_id)


async def last_seqs(conversation_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Give the last seq of each conversation that is there."""
    found = await POOL.rows(LAST_SEQS, list(conversation_ids))
    return {head["conversation_id"]: head["last_seq"] for head in found}
