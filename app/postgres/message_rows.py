"""Rows of messages: the values of a send, the history, and what a conversation has after a seq."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from app.postgres.statements import statement
from app.postgres.transactions import POOL, Executor, Row

SEND = statement("send_messages")
SEND_WAITING = statement("send_messages_waiting")
CHANGES_AFTER = statement("changes_after")
HISTORY_BACKWARD = statement("history_backward")
HISTORY_FORWARD = statement("history_forward")
GET_MESSAGE = statement("get_message")
MESSAGE_SENT_AS = statement("message_sent_as")
SEQ_OF = statement("seq_of_message")

# Those that `shown_conversations` gives of the last message.
MESSAGE_COLUMNS = (
    "id",
    "conversation_id",
    "seq",
    "sender_id",
    "content",
    "attachments",
    "client_message_id",
    "fingerprint",
    "created_at",
    "updated_at",
    "deleted_at",
)

NEWEST = 2**63 - 1


class NewMessage(NamedTuple):
    """A message that is about to be stored: the values of SEND, in their order.

    `attachments` is JSON, `token_second` when the token was issued, `traceparent` where in a trace it was sent.
    """

    id: UUID
    conversation_id: UUID
    sender_id: str
    content: str
    attachments: str
    client_message_id: str | None
    fingerprint: bytes | None
    token_second: int
    traceparent: str | None = None


def send_values(messages: Sequence[NewMessage], *, webhooks_enabled: bool) -> tuple[Any, ...]:
    """Give the values of SEND and SEND_WAITING."""
    return (*map(list, zip(*messages, strict=True)), webhooks_enabled)


async def changes_after(positions: dict[UUID, int], most: int) -> list[Row]:
    """Read what each conversation has after a seq, at most so many of each, in order."""
    return await POOL.rows(CHANGES_AFTER, list(positions), list(positions.values()), most)


async def history(
    reader: str, conversation_id: UUID, *, before: int | None, after: int | None, limit: int
) -> list[Row]:
    """Read messages next to a seq: newest first, or oldest first where `after` is given."""
    if after is not None:
        return await POOL.rows(HISTORY_FORWARD, reader, conversation_id, after, limit)
    return await POOL.rows(HISTORY_BACKWARD, reader, conversation_id, NEWEST if before is None else before, limit)


async def get_message(executor: Executor, reader: str, message_id: UUID) -> Row | None:
    return await executor.row(GET_MESSAGE, reader, message_id)


async def message_sent_as(conversation_id: UUID, sender_id: str, client_message_id: str) -> Row | None:
    return await POOL.row(MESSAGE_SENT_AS, sender_id, conversation_id, client_message_id)


async def seq_of(conversation_id: UUID, message_id: UUID) -> int | None:
    found = await POOL.row(SEQ_OF, conversation_id, message_id)
    return found["seq"] if found else None
