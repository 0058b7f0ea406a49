"""The conversations that a client shows, kept as the contract tells clients to.

Connect first, then load or sync; drop what is at or below the `seq` held; load afresh on a gap.
"""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from soak.connection import Connection, LostError
from soak.journal import Journal
from soak.model import Json, Room
from soak.stream import Stream

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


class Reader(Protocol):
    """Whose conversations these are, and how to ask for them."""

    id: str
    name: str

    @property
    def sid(self) -> str: ...
    async def get(self, path: str, conversation_id: str | None = None) -> Any: ...
    async def ask(self, connection: Connection, event: str, data: Any) -> Any: ...
    def left(self, conversation_id: str) -> None: ...
    def note_refusal(self, request: str, status: int | str, conversation_id: str | None) -> None: ...


class Rooms:
    """All conversations of one client; `known` is what it shows."""

    def __init__(self, who: Reader, journal: Journal) -> None:
        self.known: dict[str, Room] = {}
        self._who = who
        self._journal = journal
        self._stream = Stream(who.id)
        # What came for a conversation while it is being loaded or synced, which waits for that.
        self._waiting: dict[str, list[tuple[str, Json]]] = {}
        self._loads: dict[str, asyncio.Task[None]] = {}
        # When the last connection began on which everything was there in the end.
        self._complete_at: float | None = None

    @property
    def is_complete(self) -> bool:
        """Tell whether all is there and nothing is being loaded."""
        return not self._waiting and self._complete_at is not None

    def begin(self) -> None:
        """Begin a connection: everything waits for `catch_up`."""
        self._stream = Stream(self._who.id)
        self._waiting = {name: [] for name in self.known}

    def forget_all(self) -> None:
        """Begin anew, as a page that is reloaded."""
        self.known.clear()
        self._complete_at = None

    async def stop_loading(self) -> None:
        """End what the connection that is over had begun."""
        loads = list(self._loads.values())
        self._loads.clear()
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)

    async def catch_up(self, connection: Connection) -> None:
        """Sync what is held, and load what is not."""
        began = time.time()
        since, self._complete_at = self._complete_at, None
        with suppress(LostError):
            # Without `since` there may be conversations that only the list tells of.
            await self._sync_all(connection, since or began)
            if since is None:
                await self._load_list()
            await asyncio.gather(*self._loads.values(), return_exceptions=True)
            self._complete_at = began

    # What is heard

    def hear(self, event: str, data: Any) -> None:
        complaint = self._stream.hear(event, data)
        if complaint is not None:
            self._complain(complaint, data)
        if event == "conversation:new":
            self._journal.trace(
                "heard", connection=self._who.name, event=event, id=data["id"], seq=data["lastSeq"]
            )
            self._load(data["id"])
        elif event in EVENTS:
            self._hear_change(event, data)
        elif event == "conversation:deleted":
            self._forget(data["conversationId"])

    def _complain(self, complaint: str, data: Any) -> None:
        conversation_id = data.get("conversationId") or data.get("id")
        self._journal.violation(
            "a socket's stream has every seq once and in order",
            complaint=complaint,
            connection=self._who.name,
            sid=self._who.sid,
            conversation=conversation_id,
        )

    def _hear_change(self, event: str, data: Json) -> None:
        conversation_id, seq = data["conversationId"], data["seq"]
        self._journal.deliveries += 1
        self._journal.trace("heard", connection=self._who.name, event=event, id=conversation_id, seq=seq)
        if conversation_id in self._waiting:
            self._waiting[conversation_id].append((event, data))
        elif conversation_id not in self.known:
            # Before the list is there, or without a `conversation:new`, of which the stream has complained.
            self._waiting[conversation_id] = [(event, data)]
            self._load(conversation_id)
        else:
            self._apply(conversation_id, event, data)

    def _apply(self, conversation_id: str, event: str, data: Json) -> None:
        room = self.known.get(conversation_id)
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
            self._journal.violation(
                "an event can be applied to what is held",
                event=event,
                data=data,
                error=repr(error),
                user=self._who.id,
            )
        if event == "participant:removed" and data["userId"] == self._who.id:
            self._forget(conversation_id)

    def _forget(self, conversation_id: str) -> None:
        self._who.left(conversation_id)
        self.known.pop(conversation_id, None)
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
        self.known[conversation_id] = found
        self._settle(conversation_id)

    async def _read_room(self, conversation_id: str) -> Room | None:
        """Read a conversation with its whole history; None for who is not in it."""
        path = f"/api/conversations/{conversation_id}"
        conversation = await self._who.get(path, conversation_id)
        if conversation is None:
            return None
        messages: list[Json] = []
        query = "?limit=100"
        while True:
            page = await self._who.get(f"{path}/messages{query}", conversation_id)
            if page is None:
                return None
            messages += page["items"]
            if not page["hasMore"]:
                return Room.of(conversation, messages)
            query = f"?limit=100&before={page['nextCursor']}"

    def _settle(self, conversation_id: str) -> None:
        """Take in what waited for a conversation that is now loaded or synced."""
        complaint = self._stream.loaded(conversation_id, self.known[conversation_id].held)
        if complaint is not None:
            self._complain(complaint, {"conversationId": conversation_id})
        for event, data in self._waiting.pop(conversation_id, []):
            if conversation_id in self._waiting:
                self._waiting[conversation_id].append((event, data))
            else:
                self._apply(conversation_id, event, data)

    async def _load_list(self) -> None:
        query = "?limit=100"
        while True:
            page = await self._who.get("/api/conversations" + query)
            if page is None:
                self._journal.violation("a good request is served", request="GET /api/conversations", status=403)
                return
            for conversation in page["items"]:
                if conversation["id"] not in self._loads and conversation["id"] not in self.known:
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
                held = {name: self.known[name].held for name in left if name in self.known}
                answer = await self._who.ask(connection, "sync", {"conversations": held, "since": at})
                self._journal.trace("sync", user=self._who.id, held=held, answer=_short(answer))
                if answer["ok"]:
                    left = [
                        name
                        for name, page in answer["events"].items()
                        if self._take_page(name, held.get(name), page)
                    ]
                    for name in answer["joined"]:
                        if name not in self.known and name not in self._loads:
                            self._load(name)
                    if not left:
                        break
                else:
                    self._journal.count("sync", answer["error"]["code"])
                    if answer["error"]["code"] != "SERVICE_UNAVAILABLE":
                        self._journal.violation("a good request is served", request="sync", answer=answer)
                    await asyncio.sleep(RETRY_PAUSE)

    def _take_page(self, conversation_id: str, held: int | None, page: Json) -> bool:
        """Take in what was missed since the `seq` that was asked for; True where there is more to ask for."""
        if held is None or conversation_id not in self.known or conversation_id in self._loads:
            return False
        if "error" in page:
            self._who.note_refusal("sync", page["error"]["code"], conversation_id)
            self._forget(conversation_id)
            return False
        if page["gap"]:
            self._journal.violation(
                "nothing that is kept is a gap", user=self._who.id, conversation=conversation_id, page=page
            )
            self._load(conversation_id)
        else:
            self._take_items(conversation_id, held, page["items"])
        if conversation_id not in self._loads:
            if page["hasMore"]:
                return True
            self._settle(conversation_id)
        return False

    def _take_items(self, conversation_id: str, held: int, items: list[Json]) -> None:
        for place, item in enumerate(items, held + 1):
            if item["seq"] != place:
                self._journal.violation(
                    "sync gives every seq once and in order",
                    user=self._who.id,
                    conversation=conversation_id,
                    held=held,
                    seqs=[one["seq"] for one in items],
                )
            self._apply(conversation_id, item["event"], item["data"])
        if conversation_id not in self.known:
            # They were out meanwhile, and in again, else there would be no page.
            self._load(conversation_id)


def _short(answer: Json) -> Any:
    """Give the answer to a sync as the trace keeps it: seqs in place of events."""
    if not answer["ok"]:
        return answer
    pages = {
        name: page if "error" in page else {**page, "items": [item["seq"] for item in page["items"]]}
        for name, page in answer["events"].items()
    }
    return {**answer, "events": pages}
