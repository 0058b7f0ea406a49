"""A change of a conversation in one transaction: lock, seq, event log, webhooks, commit, announce.

    locked ── entries ──▶ written with the new last_seq ── commit ──▶ announced

Every change of a conversation is made through `changing` (a send does the same in one statement). A transaction
locks one head; a change of several conversations is one transaction after the other.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from app.contract import events, ids
from app.contract.errors import Forbidden, NotFound
from app.contract.events import Change
from app.identity import revocation
from app.identity.actor import Actor
from app.messages import event_log
from app.messages.event_log import Entry
from app.observability import tracing
from app.postgres.statements import statement
from app.postgres.transactions import Row, Transaction, transaction
from app.usecases.deps import Deps
from app.webhooks.outbox import Webhook

LOCK = statement("lock_conversation")
STATE = statement("locked_conversation")


class Changing:
    """A conversation whose head a transaction has locked, and what changes in it."""

    def __init__(self, conversation_id: UUID, head: Row, state: Row) -> None:
        self.conversation_id = conversation_id
        self.last_seq: int = head["last_seq"]
        self.last_message_seq: int = head["last_message_seq"]
        self.type: str = state["type"]
        self.title: str | None = state["title"]
        self.metadata: str = state["metadata"]
        self.owner_id: str | None = state["owner_id"]
        self.entries: list[Entry] = []
        self.changes: list[Change] = []
        self.webhooks: list[Webhook] = []
        # Its rows are gone: there is no head any more that entries could move on.
        self.dissolved = False

    @property
    def next_seq(self) -> int:
        return self.last_seq + 1

    def add(self, change: Change, *, message_id: UUID | None = None, data: dict[str, Any] | None = None) -> None:
        """Take the next seq for a change; the content of a message must not stand in `data`."""
        self.last_seq = change.seq
        self.entries.append(Entry(change.seq, change.event.name, message_id, data))
        self.changes.append(change)

    def add_webhook(
        self, event: str, user_id: str, at: datetime, *, message_id: UUID | None, data: dict[str, Any]
    ) -> None:
        """Add a webhook about the change that was added last, which `user_id` made."""
        self.webhooks.append(Webhook(event, self.last_seq, user_id, at, message_id, data))


@asynccontextmanager
async def changing(
    deps: Deps, conversation_id: UUID, actor: Actor | None
) -> AsyncIterator[tuple[Transaction, Changing]]:
    """Lock a conversation for a change by one of its participants, or by the service itself.

    Gives the transaction, which is committed at the end of the block, and the conversation.

    Raises NotFound, Forbidden for a stranger, Unauthorized for a user who was deleted, and
    RolledBackError where others had PostgreSQL roll it back: nothing was announced, and all may be done again.
    """
    with tracing.span("transaction"):
        async with transaction() as tx:
            conversation = await _locked(tx, conversation_id, actor)
            yield tx, conversation
            if conversation.entries and not conversation.dissolved:
                await event_log.append(tx, conversation_id, conversation.entries)
                await deps.outbox.append(tx, conversation_id, conversation.webhooks)
    if conversation.dissolved:
        deps.fanout.close_room(conversation_id, events.conversation_deleted(conversation_id))
        return
    for change in conversation.changes:
        deps.fanout.announce(change, tracing.traceparent())
    if conversation.webhooks:
        deps.outbox.wake()


async def _locked(tx: Transaction, conversation_id: UUID, actor: Actor | None) -> Changing:
    """Lock a conversation in a transaction, and check whether the actor may change it."""
    head = await tx.row(LOCK, conversation_id)
    user_id, second = ("", 0) if actor is None else (actor.user_id, actor.issued_second)
    state = await tx.row(STATE, conversation_id, user_id, second) if head else None
    if head is None or state is None:
        raise NotFound(f"There is no conversation {ids.to_wire(ids.CONVERSATION, conversation_id)!r}")
    if state["is_refused"]:
        raise revocation.refused()
    if actor is not None and state["role"] is None:
        raise Forbidden("You are not a participant of this conversation")
    return Changing(conversation_id, head, state)
