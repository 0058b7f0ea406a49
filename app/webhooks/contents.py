"""What messages say, read at the last moment: one that was deleted says nothing any more."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from app.store import Row
from app.webhooks import queue


@dataclass(slots=True)
class _Batch:
    ids: set[UUID] = field(default_factory=set)
    rows: Mapping[UUID, Row] | None = None
    error: Exception | None = None

    async def read(self) -> None:
        try:
            self.rows = await queue.messages(self.ids)
        except Exception as error:  # noqa: BLE001 - it is raised to all who asked
            self.error = error


class Contents:
    """Reads messages, many with one statement: who asks while one is under way goes with the next."""

    def __init__(self) -> None:
        self._next = _Batch()
        self._reading = asyncio.Lock()

    async def read(self, message_id: UUID) -> Row:
        """Read what a message says, no earlier than this was called."""
        batch = self._next
        batch.ids.add(message_id)
        async with self._reading:
            if batch is self._next:
                self._next = _Batch()
                await batch.read()
        if batch.rows is None:
            assert batch.error is not None
            raise batch.error
        return batch.rows[message_id]
