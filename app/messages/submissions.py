"""Submissions and per-conversation queues, of which the send queue is made."""

import sys
from abc import abstractmethod
from uuid import UUID

from app.messages.writer import Stored
from app.postgres.message_rows import NewMessage


class Submission:
    """A message on its way; it is answered exactly once, and one that was abandoned only where it is stored.

    waiting ──▶ in a statement ──▶ answered
       └──▶ abandoned: never written
    """

    __slots__ = ("is_abandoned", "message", "weight")

    def __init__(self, message: NewMessage) -> None:
        self.message = message
        # Bytes of memory.
        self.weight = sys.getsizeof(message.content) + sys.getsizeof(message.attachments)
        self.is_abandoned = False

    def abandon(self) -> None:
        """Take it back, unless a statement writes it already."""
        self.is_abandoned = True

    @abstractmethod
    def answer(self, stored: Stored | None, error: Exception | None) -> None:
        """Learn where it stands, in the order of `seq`, or what went wrong.

        With neither it was not stored: it may not be sent, or was sent before under its `client_message_id`.
        """


class Conversation:
    """What is unanswered of one conversation, in its order; a statement is to write the first `taken` of it."""

    __slots__ = ("id", "is_busy", "is_ready", "submissions", "taken")

    def __init__(self, conversation_id: UUID) -> None:
        self.id = conversation_id
        self.submissions: list[Submission] = []
        self.taken = 0
        # Whether it is among those that a batch may take.
        self.is_ready = True
        # Whether its head was busy, so that a statement of its own must wait for it.
        self.is_busy = False

    def take(self, most: int) -> int:
        """Take what may go together, at most so many; the second of two under one id comes to see the first."""
        if len(self.submissions) == 1:
            self.taken = 1
            return 1
        names: set[tuple[str, str]] = set()
        taken = 0
        for submission in self.submissions[:most]:
            message = submission.message
            if message.client_message_id is not None:
                name = (message.sender_id, message.client_message_id)
                if name in names:
                    break
                names.add(name)
            taken += 1
        self.taken = taken
        return taken
