"""Announces presence changes: to the master by webhook, and to those who share a conversation with the user.

No connect waits for it. The contacts of a user are read a page of conversations at a time: the cost of a
statement is bounded, and a user in many conversations delays nobody. An event that Redis loses is not sent again:
after a loss of pub/sub a change waits until the pods are connected again, some seconds at most.

    changes ──▶ outbox, first page ──▶ announced
                     └── more pages ──▶ one page of each user in turn ──▶ announced
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
# Changes that are announced together.
MAX_BATCH = 64
# About so many participants of a user's conversations are read at a time.
PAGE_PARTICIPANTS = 2_000
# For how long a change waits for pub/sub, and how often that is checked, in seconds.
PUBSUB_WAIT = 10.0
PUBSUB_INTERVAL = 0.1

CONTACTS = statement("contacts")


class _Announcement:
    """A change, the users whom it was sent to, and the conversation up to which they were read."""

    __slots__ = ("after", "change", "event", "reached")

    def __init__(self, change: PresenceChange) -> None:
        self.change = change
        self.event = events.user_presence(change.user_id, change.number, is_online=change.is_online)
        self.after = UUID(int=0)
        self.reached: set[str] = {change.user_id}


class Announcer:
    """Announces the changes in `deps.presence.changes`; one that fails is queued again."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._page = max(1, PAGE_PARTICIPANTS // deps.settings.large_group)
        # Announcements that take more than one page, by their user.
        self._wide: dict[str, _Announcement] = {}
        self._is_wide = asyncio.Event()
        # Whether it waits for pub/sub: not where the last wait was in vain.
        self._waits = True

    async def announce_forever(self) -> None:
        """Announce changes, the oldest first."""
        while True:
            await self.announce(await self._deps.presence.changes.next(MAX_BATCH))

    async def announce(self, changes: Sequence[PresenceChange]) -> None:
        """Announce changes that were taken; twice does no harm."""
        try:
            await self._deps.outbox.append_presence(changes)
            await self._await_pubsub()
            await self._announce_page([_Announcement(change) for change in changes])
        except BaseException:
            self._deps.presence.changes.put_back(changes)
            raise
        for change in changes:
            metrics.of(metrics.PRESENCE_CHANGES, "online" if change.is_online else "offline").inc()

    async def _await_pubsub(self) -> None:
        """Wait for pub/sub between the pods, unless the last wait was in vain."""
        fanout = self._deps.fanout
        end = time.monotonic() + PUBSUB_WAIT
        while self._waits and not fanout.is_steady:
            await asyncio.sleep(PUBSUB_INTERVAL)
            self._waits = time.monotonic() < end
        self._waits = self._waits or fanout.is_steady

    async def announce_widely_forever(self) -> None:
        """Announce the changes of users in many conversations, a page of each in turn."""
        while True:
            while not self._wide:
                self._is_wide.clear()
                await self._is_wide.wait()
            announcement = self._wide.pop(next(iter(self._wide)))
            try:
                await self._await_pubsub()
                if self._deps.presence.changes.is_newest(announcement.change):
                    await self._announce_page([announcement])
            except BaseException:
                self._deps.presence.changes.put_back([announcement.change])
                raise

    async def _announce_page(self, announcements: Sequence[_Announcement]) -> None:
        """Send events to the contacts of the next page; the next ones are those of `announce_widely_forever`."""
        by_user = {announcement.change.user_id: announcement for announcement in announcements}
        found = await POOL.rows(
            CONTACTS,
            list(by_user),
            [announcement.after for announcement in announcements],
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
        for user_id, announcement in by_user.items():
            fresh = list(contacts[user_id] - announcement.reached)[: MAX_CONTACTS + 1 - len(announcement.reached)]
            announcement.reached.update(fresh)
            self._deps.fanout.tell(fresh, announcement.event)
            if pages[user_id] == self._page and len(announcement.reached) <= MAX_CONTACTS:
                self._wide[user_id] = announcement
                self._is_wide.set()
            else:
                over.append(announcement.change)
        await self._deps.presence.announced(over)
