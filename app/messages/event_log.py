"""The event log: rows become the changes that sockets were sent, and changes become rows."""

from typing import Any
from uuid import UUID

import msgspec

from app.contract import events
from app.contract.codec import read_json
from app.contract.events import Change
from app.messages import views
from app.postgres import message_rows
from app.postgres.statements import statement
from app.postgres.transactions import POOL, Row, Transaction

APPEND = statement("append_events")
PLACES = statement("log_positions")


class Entry:
    """An entry of the log that is about to be written; `data` never holds the content of a message."""

    __slots__ = ("data", "event", "message_id", "seq")

    def __init__(self, seq: int, event: str, message_id: UUID | None, data: dict[str, Any] | None) -> None:
        self.seq, self.event, self.message_id, self.data = seq, event, message_id, data


async def append(tx: Transaction, conversation_id: UUID, entries: list[Entry]) -> None:
    """Write entries in a transaction that has locked the conversation's head."""
    await tx.execute(
        APPEND,
        conversation_id,
        [entry.seq for entry in entries],
        [entry.event for entry in entries],
        [entry.message_id for entry in entries],
        [None if entry.data is None else msgspec.json.encode(entry.data).decode() for entry in entries],
        entries[-1].seq,
    )


def change_of(row: Row) -> Change:
    """Turn a row of `message_rows.CHANGES_AFTER` into the change that sockets were sent, in its present form."""
    conversation_id, seq, name, message_id = row["conversation_id"], row["seq"], row["event"], row["message_id"]
    if name == events.MESSAGE_NEW:
        # The reactions follow as events of their own.
        message = {**row, "id": message_id, "reactions": "[]"}
        change = events.message_new(conversation_id, views.message(message))
        change.committed = row["created_at"].timestamp()
        return change
    if name == events.MESSAGE_UPDATED:
        return events.message_updated(conversation_id, seq, message_id, row["content"], row["updated_at"])
    if name == events.MESSAGE_DELETED:
        return events.message_deleted(conversation_id, seq, message_id, row["deleted_at"])
    return _change_in_data(conversation_id, seq, name, row)


def _change_in_data(conversation_id: UUID, seq: int, name: str, row: Row) -> Change:
    data = {} if row["data"] is None else read_json(row["data"])
    if name in {events.REACTION_ADDED, events.REACTION_REMOVED}:
        return events.reaction(name, conversation_id, seq, row["message_id"], data["emoji"], data["userId"])
    if name == events.PARTICIPANT_ADDED:
        person = views.logged_participant(data, row)
        return events.participant_added(conversation_id, seq, person, data["addedBy"])
    if name == events.PARTICIPANT_REMOVED:
        return events.participant_removed(conversation_id, seq, data["userId"], data["removedBy"])
    if name == events.CONVERSATION_UPDATED:
        return events.conversation_updated(conversation_id, seq, data)
    return events.logged(name, conversation_id, seq, row["message_id"], data)


async def places(positions: dict[UUID, int]) -> dict[UUID, tuple[int, bool]]:
    """Give where each conversation stands and whether the entry after a seq is kept; deleted ones are left out."""
    seqs = [min(seq, message_rows.NEWEST - 1) for seq in positions.values()]
    found = await POOL.rows(PLACES, list(positions), seqs)
    return {place["conversation_id"]: (place["last_seq"], place["is_kept"]) for place in found}


async def changes_after(positions: dict[UUID, int], most: int) -> list[Change]:
    """Read what each conversation has after a seq, without a gap, at most so many of each.

    What follows a gap is left out: the entry that is missing was dropped as too old, or its message is gone, with
    the whole conversation.
    """
    found: list[Change] = []
    expected = {conversation_id: seq + 1 for conversation_id, seq in positions.items()}
    for row in await message_rows.changes_after(positions, most):
        is_whole = row["message_id"] is None or row["sender_id"] is not None
        if row["seq"] == expected[row["conversation_id"]] and is_whole:
            found.append(change_of(row))
            expected[row["conversation_id"]] += 1
    return found
