"""What messages say, read at the last moment: one that was deleted says nothing any more."""

import asyncio
from collections.abc import Mapping
from uuid import UUID

from app.store import Row
from app.webhooks import queue

# So many statements at a time; who asks meanwhile goes with the next.
READS_AT_ONCE = 1


class Contents:
    """Reads messages, many with one statement."""

    def __init__(self) -> None:
        self._asked: set[UUID] = set()
        self._answer: asyncio.Future[Mapping[UUID, Row]] | None = None
        self._slots = asyncio.Semaphore(READS_AT_ONCE)

    async def read(self, message_id: UUID) -> Row:
        """Read what a message says, no earlier than this was called."""
        self._asked.add(message_id)
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            found = await self._read(self._answer)
        else:
            found = await self._answer
        return found[message_id]

    async def _read(self, answer: asyncio.Future[Mapping[UUID, Row]]) -> Mapping[UUID, Row]:
        """Read for all who have asked by the time that it is our turn."""
        async with self._slots:
            asked, self._asked, self._answer = self._asked, set(), None
            try:
                found = await queue.messages(asked)
            except BaseException as error:
                answer.set_exception(error)
                # Nobody else may have asked.
                answer.exception()
                raise
        answer.set_result(found)
        return found
