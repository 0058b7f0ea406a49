"""Presence, typing and webhooks in the end: what clients and the master were told is what is so."""

import asyncio
import json
from typing import Any
from uuid import UUID

from app.contract import ids
from soak import checks
from soak.connection import AWAY
from soak.control import Database
from soak.journal import Journal
from soak.master import Subject
from soak.within import within
from soak.work import Work
from soak.world import LARGE_GROUP, World

# Seconds: how long each may take once nothing is broken any more.
PRESENCE_WITHIN = 75.0
# What is typed lapses after 6 s.
TYPING_WITHIN = 15.0
TOLD_WITHIN = 75.0

REACTED = "SELECT message_id, seq, data FROM events WHERE event = 'reaction:added'"
UNDELIVERED = """
SELECT id, event, state, attempts, due_at, last_error FROM webhooks WHERE state IN ('new', 'due')
    AND conversation_id IS NOT NULL
"""
DEAD = "SELECT id, event, attempts, last_error FROM webhooks WHERE state = 'dead' AND conversation_id IS NOT NULL"
PRESENCE = "SELECT * FROM webhooks WHERE conversation_id IS NULL AND user_id = $1 ORDER BY seq DESC LIMIT 5"


class Told:
    """Presence, typing and webhooks when all has come to rest."""

    def __init__(self, world: World, journal: Journal, work: Work) -> None:
        self._world = world
        self._journal = journal
        self._work = work

    async def close_tabs(self) -> set[str]:
        """Let every other person go offline; gives who stays."""
        leaving = self._work.people[::2]
        await asyncio.gather(*(person.close_tab() for person in leaving))
        return {person.id for person in self._work.people} - {person.id for person in leaving}

    async def check_presence(self, online: set[str]) -> None:
        await within(
            self._journal, PRESENCE_WITHIN, "every pod knows who is online", lambda: self._wrong_presence(online)
        )

        await within(self._journal, PRESENCE_WITHIN, "clients hear who is online", lambda: self._misheard(online))
        await within(self._journal, TYPING_WITHIN, "everybody hears the end of typing", self._still_typing)

    async def _misheard(self, online: set[str]) -> list[Any]:
        """List who heard something else last, of people with whom they always share a small conversation."""
        wrong: list[Any] = []
        for person in self._work.people:
            rooms = [room for name, room in person.rooms.known.items() if name in self._world.stable]
            contacts = {
                user for room in rooms if len(room.participants) <= LARGE_GROUP for user in room.participants
            }
            if person.connection is not None:
                wrong += [(person.name, one) for one in person.fleeting.wrong(online, contacts - {person.id})]
        return wrong

    async def _still_typing(self) -> list[Any]:
        people = [person for person in self._work.people if person.connection is not None]
        return [(person.name, place) for person in people for place in person.fleeting.typing]

    async def _wrong_presence(self, online: set[str]) -> list[str]:
        """Ask every pod about everybody, through conversations that all people are in."""
        wrong: list[str] = []
        for number, pod in enumerate(self._world.pods):
            said: dict[str, bool] = {}
            for person in self._work.people:
                room = next((name for name in person.rooms.known if name in self._world.stable), None)
                if room is None or person.id in said:
                    continue
                try:
                    status, answer = await self._world.rest(
                        person, "GET", f"/api/conversations/{room}/presence", None, pod
                    )
                except AWAY:
                    status, answer = 0, None
                if status != 200:
                    return [f"pod {number} answers {status} {answer}"]
                said |= {one["userId"]: one["online"] for one in answer["participants"]}
            wrong += [
                f"pod {number} says {user} is {'online' if is_online else 'offline'}"
                for user, is_online in sorted(said.items())
                if is_online != (user in online)
            ]
        return wrong

    async def check_webhooks(self, online: set[str]) -> None:
        """Wait until everything is delivered; then compare with what was committed."""
        users = {person.id for person in self._work.people}
        attempts = self._world.master.attempts
        async with Database(self._world.postgres.url) as database:

            async def undelivered() -> list[Any]:
                return [dict(row) for row in await database.fetch(UNDELIVERED)]

            async def wrong_presence() -> list[Any]:
                found = checks.check_presence_webhooks(attempts, online, users)
                return [details for promise, details in found if promise.startswith("the last")]

            await within(self._journal, TOLD_WITHIN, "every webhook is delivered", undelivered)
            await within(self._journal, TOLD_WITHIN, "the master knows who is online", wrong_presence)
            for wrong in await wrong_presence():
                rows = await database.fetch(PRESENCE, wrong["user"])
                self._journal.trace("webhooks of presence", user=wrong["user"], rows=[dict(row) for row in rows])
            for row in await database.fetch(DEAD):
                self._journal.violation("no webhook dies", **dict(row))
            self._journal.found(checks.check_webhooks(attempts, await _committed(database)))
        self._journal.found(checks.check_webhook_order(attempts, self._journal.faults))
        found = checks.check_presence_webhooks(attempts, online, users)
        self._journal.found((promise, details) for promise, details in found if not promise.startswith("the last"))


async def _committed(database: Database) -> set[Subject]:
    """List what the master has to be told."""
    found: set[Subject] = set()
    for row in await database.fetch("SELECT id, deleted_at FROM messages"):
        found.add(("message.created", ids.to_wire(ids.MESSAGE, row["id"])))
        if row["deleted_at"]:
            found.add(("message.deleted", ids.to_wire(ids.MESSAGE, row["id"])))
    for row in await database.fetch("SELECT id FROM conversations"):
        found.add(("conversation.created", ids.to_wire(ids.CONVERSATION, UUID(str(row["id"])))))
    for row in await database.fetch(REACTED):
        data = json.loads(row["data"])
        message_id = ids.to_wire(ids.MESSAGE, row["message_id"])
        found.add(("reaction.added", message_id, data["userId"], data["emoji"], row["seq"]))
    return found
