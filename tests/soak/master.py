"""The master: takes webhooks, remembers each attempt shortly, and has its own troubles."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from receiver import WEBHOOK_SECRET, Received, Receiver

from soak.journal import Journal

# The service's timeout is 3 s.
HANGS_FOR = 4.0
SLOWLY = 0.3

# What an event is about, in a form in which it happens only once.
Subject = tuple[Any, ...]


@dataclass
class Attempt:
    """One attempt, as it came."""

    id: str
    event: str
    subject: Subject
    conversation_id: str | None
    seq: int
    at: float
    is_signed: bool
    answered_at: float | None = None
    # In whole seconds, by the clock of the worker, which may be seconds before it is noted here.
    signed_at: float | None = None


def subject(event: str, data: dict[str, Any]) -> Subject:
    """Tell what an event is about."""
    match event:
        case "conversation.created":
            return event, data["conversationId"]
        case "reaction.added":
            return event, data["messageId"], data["userId"], data["emoji"], data["seq"]
        case "user.online" | "user.offline":
            return event, data["userId"], data["transition"]
        case _:
            return event, data["messageId"]


@dataclass
class Master:
    """What was attempted, in the order in which it came; `trouble` is what is wrong with the master now."""

    receiver: Receiver
    journal: Journal
    trouble: str = ""
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.receiver.hears_presence = True
        self.receiver.behaviour = self._take

    async def _take(self, one: Received) -> int:
        data = one.data
        seq = data.get("transition", data.get("seq", 0))
        attempt = Attempt(
            one.id,
            one.event,
            subject(one.event, data),
            data.get("conversationId"),
            seq,
            time.time(),
            one.is_signed_with(WEBHOOK_SECRET),
            signed_at=float(one.headers["webhook-timestamp"]),
        )
        self.attempts.append(attempt)
        self.journal.trace("webhook", id=one.id, about=attempt.subject, seq=seq, trouble=self.trouble)
        # What a long run keeps is short.
        self.receiver.received.clear()
        self.receiver.delivered.clear()
        trouble = self.trouble
        try:
            if trouble == "hangs":
                await asyncio.sleep(HANGS_FOR)
            elif trouble == "is slow":
                await asyncio.sleep(SLOWLY)
            return 500 if trouble == "answers 500" else 200
        finally:
            attempt.answered_at = time.time()
