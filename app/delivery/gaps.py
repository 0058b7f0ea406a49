"""Gaps: the rooms that wait for a change which this pod has not got, in the order in which they are read."""

import asyncio
from collections.abc import Mapping
from uuid import UUID


class Gaps:
    """Each room once, and whether it should have got the change already; `found` is set while there are any."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, bool] = {}
        self.found = asyncio.Event()

    def mark(self, conversation_id: UUID) -> None:
        """Note that a room waits for a change that it has not got."""
        self._waiting[conversation_id] = True
        self.found.set()

    def read(self, conversation_id: UUID) -> None:
        """Have a room read what was committed: it is not sent around."""
        self._waiting.setdefault(conversation_id, False)
        self.found.set()

    def take(self) -> dict[UUID, bool]:
        """Take all; whoever does not come to the end of them gives the others back."""
        taken, self._waiting = self._waiting, {}
        self.found.clear()
        return taken

    def give_back(self, taken: Mapping[UUID, bool]) -> None:
        for conversation_id, is_late in taken.items():
            self._waiting[conversation_id] = is_late or self._waiting.get(conversation_id, False)
        if taken:
            self.found.set()
