"""The end of a soak: all is mended, all comes to rest, and everybody must agree."""

import asyncio
import signal
import time
from typing import Any

from pods import Pod

from app.contract import ids
from soak import checks
from soak.checks import Stored
from soak.connection import AWAY
from soak.control import Database
from soak.journal import Journal
from soak.model import Json, Room, difference
from soak.person import Person
from soak.within import RESUMED_WITHIN, within
from soak.work import Work
from soak.world import World

# Seconds: how long each may take once nothing is broken any more.
READY_WITHIN = 30.0
CONNECTED_WITHIN = 30.0
SETTLED_WITHIN = 30.0
DELIVERED_WITHIN = 15.0

HEADS = "SELECT conversation_id, last_seq, last_message_seq FROM conversation_heads"
SEQS = """
SELECT conversation_id, seq, true AS is_message FROM messages
UNION ALL SELECT conversation_id, seq, false FROM events
"""
MESSAGES = "SELECT id, conversation_id, seq, sender_id, client_message_id, content, deleted_at FROM messages"
PARTICIPANTS = "SELECT conversation_id, user_id FROM participants ORDER BY 1, 2"
STUCK = """
SELECT pid, state, wait_event_type, left(query, 200) AS query, now() - xact_start AS age FROM pg_stat_activity
WHERE application_name = 'chat-service' AND (
    state LIKE 'idle in transaction%' AND state_change < now() - interval '2 seconds'
    OR wait_event_type = 'Lock' AND state_change < now() - interval '2 seconds'
)
"""


class UnansweredError(Exception):
    """A pod goes on refusing what it should serve now."""


class Final:
    """Everything that is looked at when the faults are over."""

    def __init__(self, world: World, journal: Journal, work: Work) -> None:
        self._world = world
        self._journal = journal
        self._work = work

    async def come_to_rest(self) -> None:
        """Wait until all run, are connected, and know the outcome of all that they did."""
        for member in self._world.members:
            process = member.process.process
            if process is not None and process.returncode is not None:
                self._journal.violation("a process goes on", process=member.name, code=process.returncode)
                try:
                    await member.process.start(ready=False)
                except AssertionError as error:
                    self._journal.violation("a process starts", process=member.name, log=str(error)[-500:])
        await within(self._journal, READY_WITHIN, "every process is ready", self._not_ready)
        await within(self._journal, CONNECTED_WITHIN, "every client is connected and complete", self._not_complete)
        await within(self._journal, SETTLED_WITHIN, "every send is settled", self._unsettled)
        await self._work.resume()

    async def _not_ready(self) -> list[str]:
        async def is_ready(url: str) -> bool:
            try:
                async with asyncio.timeout(2), self._world.http.get(url + "/health/ready") as response:
                    return response.status == 200
            except AWAY:
                return False

        answers = await asyncio.gather(*(is_ready(member.process.http) for member in self._world.members))
        return [member.name for member, ready in zip(self._world.members, answers, strict=True) if not ready]

    async def _not_complete(self) -> list[str]:
        return [person.id for person in self._work.people if not person.is_complete]

    async def _unsettled(self) -> list[str]:
        return [f"{len(self._work.sends.unsettled)} sends"] if self._work.sends.unsettled else []

    async def compare(self) -> None:
        """Wait until everybody has everything; then every client and every pod must say the same."""
        async with Database(self._world.postgres.url) as database:
            heads = {_conversation(row): row for row in await database.fetch(HEADS)}
            inside: dict[str, set[str]] = {name: set() for name in heads}
            for row in await database.fetch(PARTICIPANTS):
                inside[_conversation(row)].add(row["user_id"])

            async def behind() -> list[Any]:
                return [
                    (
                        person.name,
                        name,
                        "holds",
                        room.held if (room := person.rooms.known.get(name)) else None,
                        "of",
                        seq,
                    )
                    for person in self._work.people
                    for name, seq in ((name, row["last_seq"]) for name, row in heads.items())
                    if person.id in inside[name]
                    and ((room := person.rooms.known.get(name)) is None or room.held < seq)
                ]

            await within(self._journal, DELIVERED_WITHIN, "every change reaches everybody", behind)
            for person in self._work.people:
                for name in person.rooms.known:
                    if person.id not in inside.get(name, ()):
                        self._journal.violation("who is out sees nothing", user=person.id, conversation=name)
            try:
                for name, people in inside.items():
                    if people:
                        await self._compare_room(name, people)
            except UnansweredError as error:
                # What this pod does not answer for one conversation it does not for the next ones.
                self._journal.violation("all resumes by itself", request=str(error))
            await self._look_into(database, heads)

    async def _compare_room(self, name: str, people: set[str]) -> None:
        reader = next(person for person in self._work.people if person.id in people)
        views = [await self._read(pod, reader, name) for pod in self._world.pods]
        for number, view in enumerate(views[1:], 1):
            if found := difference(views[0], view):
                self._journal.violation(
                    "all pods say the same", conversation=name, pods=(0, number), difference=found
                )
        if sorted(people) != views[0]["participants"]:
            self._journal.violation(
                "REST says what PostgreSQL has", conversation=name, participants=sorted(people)
            )
        for person in self._work.people:
            room = person.rooms.known.get(name)
            if room is not None and (found := difference(room.view(), views[0])):
                self._journal.violation(
                    "a client's model equals what REST says",
                    user=person.name,
                    conversation=name,
                    difference=f"model / REST, {found}",
                )

    async def _read(self, pod: Pod, reader: Person, name: str) -> Json:
        path, messages, query = f"/api/conversations/{name}", [], "?limit=100"
        conversation = await self._get(reader, path, pod)
        while True:
            page = await self._get(reader, f"{path}/messages{query}", pod)
            messages += page["items"]
            if not page["hasMore"]:
                return Room.of(conversation, messages).view()
            query = f"?limit=100&before={page['nextCursor']}"

    async def _get(self, reader: Person, path: str, pod: Pod) -> Json:
        """Read over REST, again for a while where it fails; raises UnansweredError."""
        end = time.monotonic() + RESUMED_WITHIN
        while True:
            try:
                status, answer = await self._world.rest(reader, "GET", path, None, pod)
            except AWAY as error:
                status, answer = 0, repr(error)
            if status == 200:
                return dict(answer)
            if time.monotonic() > end:
                raise UnansweredError(f"{pod.http}{path}: {status} {answer}")
            await asyncio.sleep(0.5)

    async def _look_into(self, database: Database, heads: dict[str, Any]) -> None:
        seqs: dict[str, list[tuple[int, bool]]] = {name: [] for name in heads}
        for row in await database.fetch(SEQS):
            seqs.setdefault(_conversation(row), []).append((row["seq"], row["is_message"]))
        for name, entries in seqs.items():
            if name in heads:
                head = heads[name]
                self._journal.found(checks.check_seqs(name, head["last_seq"], head["last_message_seq"], entries))
        stored = [_stored(row) for row in await database.fetch(MESSAGES)]
        self._journal.found(checks.check_sends(self._journal.sends, stored))
        self._journal.found(checks.check_order(self._journal.emitted, self._journal.acknowledged, stored))
        for row in await database.fetch(STUCK):
            self._journal.violation("no session is stuck in a transaction", **dict(row))

    async def stop_processes(self) -> None:
        """End every process as Kubernetes does, and read what they logged."""
        for member in self._world.members:
            member.process.signal(signal.SIGTERM)
        for member in self._world.members:
            try:
                code: int | str = await member.process.exit_code()
            except TimeoutError:
                code = "still running after 30 s"
            if code != 0:
                self._journal.violation("SIGTERM ends a process with exit code 0", process=member.name, code=code)
            lines = member.process.log.read_text(errors="replace").splitlines()
            self._journal.found(checks.check_log(member.name, lines))
            for line in lines:
                if '"level":"WARNING"' in line:
                    self._journal.count("warning", member.name)


def _conversation(row: Any) -> str:
    return ids.to_wire(ids.CONVERSATION, row["conversation_id"])


def _stored(row: Any) -> Stored:
    return Stored(
        ids.to_wire(ids.MESSAGE, row["id"]),
        _conversation(row),
        row["seq"],
        row["sender_id"],
        row["client_message_id"],
        # An edit appends to what was first said, behind a comma.
        None if row["deleted_at"] else row["content"].partition(",")[0],
    )
