"""A person with one browser tab: a connection that comes back, and a model kept by `Rooms`."""

import asyncio
import random
import time
from typing import Any

from clients import token

from soak.connection import AWAY, TRANSPORTS, Connection, LostError, RefusedError, SilenceError
from soak.fleeting import PRESENCE, Fleeting
from soak.journal import Journal
from soak.rooms import Rooms
from soak.world import World

RETRY_PAUSE = 0.3
RELOADS = 0.1
NOT_THERE = {"FORBIDDEN", "NOT_FOUND"}
# What may be answered while others change the same things, or while something is away.
EXPECTED = {"SERVICE_UNAVAILABLE", "CONFLICT", *NOT_THERE}


class Person:
    """One user, and what their tab shows."""

    def __init__(self, user_id: str, world: World, journal: Journal, rng: random.Random) -> None:
        self.id = user_id
        self.token = token(user_id)
        self.world = world
        self.journal = journal
        self.rng = rng
        self.rooms = Rooms(self, journal)
        self.fleeting = Fleeting()
        self.connection: Connection | None = None
        # Of the connection, and where it goes.
        self.name = self.base = ""
        # Cleared while the tab is closed.
        self.is_wanted = asyncio.Event()
        self.is_wanted.set()
        self._connects = 0
        self._lost_at: float | None = None

    @property
    def is_complete(self) -> bool:
        """Tell whether there is a connection and nothing is being loaded."""
        return self.connection is not None and self.rooms.is_complete

    async def live(self) -> None:
        """Connect, and again whenever the connection ends, until cancelled."""
        try:
            while True:
                await self.is_wanted.wait()
                try:
                    await self._one_connection()
                except LostError as error:
                    self.journal.refused_connects += 1
                    self.journal.trace("no connection", user=self.id, why=str(error))
                except RefusedError as error:
                    self.journal.violation(
                        "only a client that must act is refused by a packet",
                        user=self.id,
                        connection=self.name,
                        packet=str(error),
                    )
                await asyncio.sleep(self.rng.uniform(0.05, 0.8))
        finally:
            if self.connection is not None:
                await self.connection.close()

    async def _one_connection(self) -> None:
        self._connects += 1
        self.name = f"{self.id}#{self._connects}"
        self.base, transport = self.world.somewhere_to_connect(self.rng), self.rng.choice(TRANSPORTS)
        connection = Connection(self.world.http, self.base, self.token, self._hear)
        if self._connects > 1 and self.rng.random() < RELOADS:
            self.rooms.forget_all()
            self.journal.trace("reload", user=self.id)
        self.rooms.begin()
        self.fleeting = Fleeting()
        await connection.open(transport)
        if not self.is_wanted.is_set():
            await connection.close()
            return
        self.connection = connection
        self.journal.connects += 1
        self.journal.trace(
            "connected", connection=self.name, base=self.base, transport=transport, sid=connection.sid
        )
        if self._lost_at is not None:
            outage = time.monotonic() - self._lost_at
            self.journal.trace("outage", user=self.id, seconds=round(outage, 1))
            self.journal.longest_outage = max(self.journal.longest_outage, outage)
        catching_up = asyncio.create_task(self.rooms.catch_up(connection))
        try:
            await asyncio.wait([connection.over])
            connection.over.result()
        finally:
            self._lost_at = time.monotonic() if self.is_wanted.is_set() else None
            self.connection = None
            self.journal.trace("disconnected", connection=self.name, why=connection.why)
            catching_up.cancel()
            await asyncio.gather(catching_up, self.rooms.stop_loading(), return_exceptions=True)
            await connection.close()

    @property
    def sid(self) -> str:
        """Give the id of the session, by which the logs of the pods know it."""
        return self.connection.sid if self.connection else ""

    def _hear(self, event: str, data: Any) -> None:
        if event == "error":
            self.journal.count("error event", data.get("code", "?"))
            return
        if complaint := self.fleeting.hear(event, data):
            self.journal.violation("each change of presence comes once", connection=self.name, complaint=complaint)
        if event in PRESENCE:
            self.journal.trace("heard", connection=self.name, event=event, data=data)
        self.rooms.hear(event, data)

    async def get(self, path: str, conversation_id: str | None = None) -> Any:
        """Read until there is an answer; None for 403 and 404."""
        while True:
            try:
                status, answer = await self.world.rest(self, "GET", path)
            except AWAY:
                status, answer = 0, None
            if status == 200:
                return answer
            if status in {403, 404}:
                self.note_refusal(f"GET {path}", status, conversation_id)
                return None
            if status not in {0, 503}:
                self.journal.violation(
                    "a good request is served", request=f"GET {path}", status=status, answer=answer
                )
            await asyncio.sleep(RETRY_PAUSE)

    def left(self, conversation_id: str) -> None:
        self.fleeting.leave(conversation_id)

    def note_refusal(self, request: str, status: int | str, conversation_id: str | None) -> None:
        """Complain of a refusal where nobody ever leaves."""
        if conversation_id in self.world.stable:
            self.journal.violation("a participant is not refused", user=self.id, request=request, status=status)

    def refused(self, what: str, conversation_id: str | None, error: dict[str, Any]) -> None:
        code = error["code"]
        self.journal.count(what, code)
        if code not in EXPECTED:
            self.journal.violation("a good request is served", request=what, user=self.id, error=error)
        if code in NOT_THERE:
            self.note_refusal(what, code, conversation_id)

    async def ask(self, connection: Connection, event: str, data: Any) -> Any:
        """Emit on a connection and wait for the acknowledgement; raises LostError."""
        try:
            return await connection.call(event, data)
        except SilenceError:
            self.journal.violation(
                "every event is acknowledged", user=self.id, sid=connection.sid, event=event, data=data
            )
            raise

    async def close_tab(self) -> None:
        """Go offline until `is_wanted` is set again."""
        self.is_wanted.clear()
        if self.connection is not None:
            await self.connection.close(politely=True)
