"""Changes of presence are told to the master, and to those who share a conversation with the user.

Nobody who connects waits for it. Whom a user shares a conversation with is read a page of conversations at a time:
what one statement costs is bounded, and who is in many conversations holds up nobody. What Redis does not hand on
nobody tells again: when the bus was lost, a change waits until the pods hear one another, some seconds at most.

    changes ──▶ outbox, first page ──▶ told
                     └── more pages ──▶ one page of each user in turn ──▶ told
"""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

from app.contract import events
from app.observability import metrics
from app.postgres.statements import statement
from app.postgres.transactions import POOL
from app.presence.changes import PresenceChange
from app.usecases.deps import Deps

MAX_CONTACTS = 10_000
# Changes that are told together.
TOGETHER = 64
# About so many participants of a user's conversations are read at a time.
PAGE_PARTICIPANTS = 2_000
# For how long a change waits, in seconds, until the pods hear one another, and how often that is looked at.
BUS_PATIENCE = 10.0
BUS_INTERVAL = 0.1

CONTACTS = statement("contacts")


class _Telling:
    """A change, whom it was told to, and the conversation up to which they were looked for."""

    __slots__ = ("after", "change", "event", "told")

    def __init__(self, change: PresenceChange) -> None:
        self.change = change
        self.event = events.user_presence(change.user_id, change.number, is_online=change.is_online)
        self.after = UUID(int=0)
        self.told: set[str] = {change.user_id}


class Announcer:
    """Tells the changes that `deps.presence` has; one that cannot be told comes again."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._page = max(1, PAGE_PARTICIPANTS // deps.settings.large_group)
        # Those that take more than one page, by their user.
        self._wide: dict[str, _Telling] = {}
        self._is_wide = asyncio.Event()
        # Whether it waits for the bus: not where that was in vain.
        self._is_patient = True

    async def announce_forever(self) -> None:
        """Tell changes, the oldest first."""
        while True:
            await self.announce(await self._deps.presence.changes.next(TOGETHER))

    async def announce(self, changes: Sequence[PresenceChange]) -> None:
        """Tell changes that were taken; twice does no harm."""
        try:
            await self._deps.outbox.append_presence(changes)
            await self._await_bus()
            await self._tell([_Telling(change) for change in changes])
        except BaseException:
            self._deps.presence.changes.put_back(changes)
            raise
        for change in changes:
            metrics.of(metrics.PRESENCE_CHANGES, "online" if change.is_online else "offline").inc()

    async def _await_bus(self) -> None:
        """Wait until the pods hear one another, unless they did not when this was last waited for."""
        fanout = self._deps.fanout
        end = time.monotonic() + BUS_PATIENCE
        while self._is_patient and not fanout.is_steady:
            await asyncio.sleep(BUS_INTERVAL)
            self._is_patient = time.monotonic() < end
        self._is_patient = self._is_patient or fanout.is_steady

    async def announce_widely_forever(self) -> None:
        """Tell the changes of those who are in many conversations, a page of each in turn."""
        while True:
            while not self._wide:
                self._is_wide.clear()
                await self._is_wide.wait()
            telling = self._wide.pop(next(iter(self._wide)))
            try:
                await self._await_bus()
                if self._deps.presence.changes.is_newest(telling.change):
                    await self._tell([telling])
            except BaseException:
                self._deps.presence.changes.put_back([telling.change])
                raise

    async def _tell(self, tellings: Sequence[_Telling]) -> None:
        """Tell the contacts of the next page; who has more of them goes on by themselves."""
        by_user = {telling.change.user_id: telling for telling in tellings}
        found = await POOL.rows(
            CONTACTS,
            list(by_user),
            [telling.after for telling in tellings],
            self._page,
            self._deps.settings.large_group,
        )
        pages = dict.fromkeys(by_user, 0)
        contacts: dict[str, set[str]] = {user_id: set() for user_id in by_user}
        for conversation in found:
            user_id = conversation["user_id"]
            pages[user_id] += 1
            by_user[user_id].after = conversation["conversation_id"]
            if len(conversation["user_ids"]) <= self._deps.settings.large_group:
                contacts[user_id].update(conversation["user_ids"])
        over = []
        for user_id, telling in by_user.items():
            fresh = list(contacts[user_id] - telling.told)[: MAX_CONTACTS + 1 - len(telling.told)]
            telling.told.update(fresh)
            self._deps.fanout.tell(fresh, telling.event)
            if pages[user_id] == self._page and len(telling.told) <= MAX_CONTACTS:
                self._wide[user_id] = telling
                self._is_wide.set()
            else:
                over.append(telling.change)
        await self._deps.presence.told(over)
