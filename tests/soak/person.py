"""A person with one browser tab: a connection that comes back, and a model kept as the contract tells clients to.

Connect first, then load or sync; drop what is at or below the `seq` held; load afresh on a gap.
"""

import asyncio
import random
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from clients import token

from soak.connection import AWAY, TRANSPORTS, Connection, LostError, RefusedError, SilenceError
from soak.journal import Journal
from soak.model import Json, Room
from soak.stream import Stream
from soak.world import World

# Somebody may be added by a transaction that began before the last connection and committed after it.
SINCE_MARGIN = 60.0
CONVERSATIONS_PER_SYNC = 200
RETRY_PAUSE = 0.3
EVENTS = frozenset(
    {
        "message:new",
        "message:updated",
        "message:deleted",
        "reaction:added",
        "reaction:removed",
        "participant:added",
        "participant:removed",
        "conversation:updated",
    }
)


class Person:
    """One user; `rooms` is what the tab shows."""

    def __init__(self, user_id: str, world: World, journal: Journal, rng: random.Random) -> None:
        self.id = user_id
        self.token = token(user_id)
        self.world = world
        self.journal = journal
        self.rng = rng
        self.rooms: dict[str, Room] = {}
        self.connection: Connection | None = None
        self.name = ""
        # Cleared while the tab is closed.
        self.is_wanted = asyncio.Event()
        self.is_wanted.set()
        self._stream = Stream(user_id)
        # What came for a conversation while it is being loaded or synced, which waits for that.
        self._waiting: dict[str, list[tuple[str, Json]]] = {}
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._complete_at: float | None = None
        self._connects = 0
        self._lost_at: float | None = None

    @property
    def is_complete(self) -> bool:
        """Tell whether there is a connection and nothing is being loaded."""
        return self.connection is not None and not self._waiting and self._complete_at is not None

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
        base, transport = self.world.somewhere_to_connect(self.rng), self.rng.choice(TRANSPORTS)
        connection = Connection(self.world.http, base, self.token, self._hear)
        self._stream = Stream(self.id)
        if self._connects > 1 and self.rng.random() < 0.1:
            self.rooms.clear()
            self._complete_at = None
            self.journal.trace("reload", user=self.id)
        self._waiting = {name: [] for name in self.rooms}
        await connection.open(transport)
        self.connection = connection
        self.journal.connects += 1
        self.journal.trace("connected", connection=self.name, base=base, transport=transport, sid=connection.sid)
        if self._lost_at is not None:
            self.journal.longest_outage = max(self.journal.longest_outage, time.monotonic() - self._lost_at)
        catching_up = asyncio.create_task(self._catch_up(connection))
        try:
            await asyncio.wait([connection.over])
            connection.over.result()
        finally:
            self._lost_at = time.monotonic() if self.is_wanted.is_set() else None
            self.connection = None
            self.journal.trace("disconnected", connection=self.name, why=connection.why)
            for task in (catching_up, *self._loads.values()):
                task.cancel()
            await asyncio.gather(catching_up, *self._loads.values(), return_exceptions=True)
            self._loads.clear()
            await connection.close()

    # What is heard

    def _hear(self, event: str, data: Any) -> None:
        if event == "error":
            self.journal.count("error event", data.get("code", "?"))
            return
        complaint = self._stream.hear(event, data)
        if complaint is not None:
            self._complain(complaint, data)
        if event == "conversation:new":
            self.journal.trace("heard", connection=self.name, event=event, id=data["id"], seq=data["lastSeq"])
            self._load(data["id"])
        elif event in EVENTS:
            self._hear_change(event, data)
        elif event == "conversation:deleted":
            self._forget(data["conversationId"])

    def _complain(self, complaint: str, data: Any) -> None:
        conversation_id = data.get("conversationId") or data.get("id")
        self.journal.violation(
            "a socket's stream has every seq once and in order",
            complaint=complaint,
            connection=self.name,
            sid=self.connection.sid if self.connection else "",
            conversation=conversation_id,
        )

    def _hear_change(self, event: str, data: Json) -> None:
        conversation_id, seq = data["conversationId"], data["seq"]
        self.journal.deliveries += 1
        self.journal.trace("heard", connection=self.name, event=event, id=conversation_id, seq=seq)
        if conversation_id in self._waiting:
            self._waiting[conversation_id].append((event, data))
        elif conversation_id not in self.rooms:
            # Before the list is there, or without a `conversation:new`, of which the stream has complained.
            self._waiting[conversation_id] = [(event, data)]
            self._load(conversation_id)
        else:
            self._apply(conversation_id, event, data)

    def _apply(self, conversation_id: str, event: str, data: Json) -> None:
        room = self.rooms.get(conversation_id)
        if room is None or data["seq"] <= room.held:
            return
        if data["seq"] > room.held + 1:
            # The stream has complained; the client goes on as one that heard a gap.
            self._load(conversation_id)
            self._waiting[conversation_id].append((event, data))
            return
        try:
            room.apply(event, data)
        except (KeyError, ValueError) as error:
            self.journal.violation(
                "an event can be applied to what is held", event=event, data=data, error=repr(error), user=self.id
            )
        if event == "participant:removed" and data["userId"] == self.id:
            self._forget(conversation_id)

    def _forget(self, conversation_id: str) -> None:
        self.rooms.pop(conversation_id, None)
        self._waiting.pop(conversation_id, None)
        if load := self._loads.pop(conversation_id, None):
            load.cancel()

    # What is loaded

    def _load(self, conversation_id: str) -> None:
        """Load a conversation afresh; what comes meanwhile waits."""
        self._waiting.setdefault(conversation_id, [])
        if load := self._loads.pop(conversation_id, None):
            load.cancel()
        self._loads[conversation_id] = asyncio.create_task(self._load_now(conversation_id))

    async def _load_now(self, conversation_id: str) -> None:
        found = await self._read_room(conversation_id)
        self._loads.pop(conversation_id, None)
        if found is None:
            self._forget(conversation_id)
            return
        self.rooms[conversation_id] = found
        self._settle(conversation_id)

    async def _read_room(self, conversation_id: str) -> Room | None:
        """Read a conversation with its whole history; None for who is not in it."""
        path = f"/api/conversations/{conversation_id}"
        conversation = await self.get(path, conversation_id)
        if conversation is None:
            return None
        messages: list[Json] = []
        query = "?limit=100"
        while True:
            page = await self.get(f"{path}/messages{query}", conversation_id)
            if page is None:
                return None
            messages += page["items"]
            if not page["hasMore"]:
                return Room.of(conversation, messages)
            query = f"?limit=100&before={page['nextCursor']}"

    def _settle(self, conversation_id: str) -> None:
        """Take in what waited for a conversation that is now loaded or synced."""
        complaint = self._stream.loaded(conversation_id, self.rooms[conversation_id].held)
        if complaint is not None:
            self._complain(complaint, {"conversationId": conversation_id})
        for event, data in self._waiting.pop(conversation_id, []):
            if conversation_id in self._waiting:
                self._waiting[conversation_id].append((event, data))
            else:
                self._apply(conversation_id, event, data)

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

    def note_refusal(self, request: str, status: int | str, conversation_id: str | None) -> None:
        """Complain of a refusal where nobody ever leaves."""
        if conversation_id in self.world.stable:
            self.journal.violation("a participant is not refused", user=self.id, request=request, status=status)

    async def _catch_up(self, connection: Connection) -> None:
        """Sync what is held, and load what is not."""
        began = time.time()
        since, self._complete_at = self._complete_at, None
        with suppress(LostError):
            if since is None:
                await self._load_list()
            else:
                await self._sync_all(connection, since)
            await asyncio.gather(*self._loads.values(), return_exceptions=True)
            self._complete_at = began

    async def ask(self, connection: Connection, event: str, data: Any) -> Any:
        """Emit on a connection and wait for the acknowledgement; raises LostError."""
        try:
            return await connection.call(event, data)
        except SilenceError:
            self.journal.violation(
                "every event is acknowledged", user=self.id, sid=connection.sid, event=event, data=data
            )
            raise

    async def _load_list(self) -> None:
        query = "?limit=100"
        while True:
            page = await self.get("/api/conversations" + query)
            if page is None:
                self.journal.violation("a good request is served", request="GET /api/conversations", status=403)
                return
            for conversation in page["items"]:
                if conversation["id"] not in self._loads and conversation["id"] not in self.rooms:
                    self._load(conversation["id"])
            if "nextCursor" not in page:
                return
            query = f"?limit=100&cursor={page['nextCursor']}"

    async def _sync_all(self, connection: Connection, since: float) -> None:
        names = list(self._waiting)
        for start in range(0, max(len(names), 1), CONVERSATIONS_PER_SYNC):
            left = names[start : start + CONVERSATIONS_PER_SYNC]
            at = datetime.fromtimestamp(since - SINCE_MARGIN, UTC).isoformat()
            while True:
                held = {name: self.rooms[name].held for name in left if name in self.rooms}
                answer = await self.ask(connection, "sync", {"conversations": held, "since": at})
                self.journal.trace("sync", user=self.id, held=held, answer=_short(answer))
                if answer["ok"]:
                    left = [name for name, page in answer["events"].items() if self._take_page(name, page)]
                    for name in answer["joined"]:
                        if name not in self.rooms and name not in self._loads:
                            self._load(name)
                    if not left:
                        break
                else:
                    self.journal.count("sync", answer["error"]["code"])
                    if answer["error"]["code"] != "SERVICE_UNAVAILABLE":
                        self.journal.violation("a good request is served", request="sync", answer=answer)
                    await asyncio.sleep(RETRY_PAUSE)

    def _take_page(self, conversation_id: str, page: Json) -> bool:
        """Take in what was missed; True where there is more to ask for."""
        room = self.rooms.get(conversation_id)
        if room is None or conversation_id in self._loads:
            return False
        if "error" in page:
            self.note_refusal("sync", page["error"]["code"], conversation_id)
            self._forget(conversation_id)
            return False
        if page["gap"]:
            self.journal.violation(
                "nothing that is kept is a gap", user=self.id, conversation=conversation_id, page=page
            )
            self._load(conversation_id)
            return False
        for item in page["items"]:
            if item["seq"] != room.held + 1:
                self.journal.violation(
                    "sync gives every seq once and in order",
                    user=self.id,
                    conversation=conversation_id,
                    held=room.held,
                    seq=item["seq"],
                )
            self._apply(conversation_id, item["event"], item["data"])
        if conversation_id in self._loads:
            return False
        if conversation_id not in self.rooms:
            # They were out meanwhile, and in again, else there would be no page.
            self._load(conversation_id)
            return False
        if page["hasMore"]:
            return True
        self._settle(conversation_id)
        return False

    async def close_tab(self) -> None:
        """Go offline until `is_wanted` is set again."""
        self.is_wanted.clear()
        if self.connection is not None:
            await self.connection.close(politely=True)


def _short(answer: Json) -> Any:
    """Give the answer to a sync as the trace keeps it: seqs in place of events."""
    if not answer["ok"]:
        return answer
    pages = {
        name: page if "error" in page else {**page, "items": [item["seq"] for item in page["items"]]}
        for name, page in answer["events"].items()
    }
    return {**answer, "events": pages}
