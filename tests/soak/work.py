"""What people do, mixed at random: each does one thing after the other, as a good client does it."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from soak.connection import AWAY, LostError
from soak.control import insist
from soak.journal import Journal
from soak.model import Room, Said
from soak.person import Person
from soak.sends import Sends
from soak.world import World

PEOPLE = 36
THINK = 1.0
EMOJI = ("👍", "❤", "🎉")


class Work:
    """All that people do."""

    def __init__(self, world: World, journal: Journal, seed: int) -> None:
        self._world = world
        self._journal = journal
        self._seed = seed
        self.people = [
            Person(f"user-{number:02}", world, journal, random.Random(f"{seed} {number}"))
            for number in range(PEOPLE)
        ]
        self.sends = Sends(world, journal)
        self._does: list[tuple[int, Callable[[Person], Awaitable[None]]]] = [
            (30, lambda person: self.sends.on_socket(person, self._room_of(person))),
            (12, lambda person: self.sends.over_rest(person, self._room_of(person))),
            (8, lambda person: self.sends.burst(person, self._room_of(person))),
            (8, self._edit),
            (4, self._delete),
            (10, self._react),
            (8, self._read),
            (6, self._type),
            (4, self._presence),
            (3, self._look),
            (3, self._reconnect),
            (1, self._leave_for_a_while),
            (3, self._add),
            (2, self._leave),
            (2, self._remove),
            (2, self._rename),
            (1, self._create),
        ]

    async def prepare(self) -> None:
        """Make the conversations: stable ones, ones that people enter and leave, a large one."""
        rng = random.Random(f"{self._seed} conversations")
        people = self.people
        for number in range(0, PEOPLE, 2):
            await self._found(people[number], "direct", [people[number + 1]], is_stable=True)
        for number in range(5):
            founder, *others = rng.sample(people, 6)
            await self._found(founder, "group", others, is_stable=number < 2)
        await self._found(people[0], "group", people[1:17], is_stable=True)

    async def _found(self, founder: Person, kind: str, others: list[Person], *, is_stable: bool) -> None:
        body = {"type": kind, "participantIds": [other.id for other in others]}

        async def attempt() -> str:
            status, answer = await self._world.rest(founder, "POST", "/api/conversations", body)
            if status not in {200, 201}:
                raise OSError(f"{status} {answer}")
            return str(answer["id"])

        name = await insist("making a conversation", attempt)
        if is_stable:
            self._world.stable.add(name)

    async def go_on(self, person: Person) -> None:
        """Do one thing after the other, until cancelled."""
        while True:
            await asyncio.sleep(person.rng.expovariate(1 / THINK))
            doing = person.rng.choices([do for _, do in self._does], [weight for weight, _ in self._does])[0]
            if person.rooms.known:
                await doing(person)

    def _room_of(self, person: Person) -> str:
        return person.rng.choice(list(person.rooms.known))

    def _message_of(self, person: Person, *, own: bool) -> tuple[str, str, Said] | None:
        """Choose one of the latest messages that the person sees."""
        name = self._room_of(person)
        latest = [
            (name, message_id, said)
            for message_id, said in list(person.rooms.known[name].messages.items())[-20:]
            if not said.is_deleted and (not own or said.sender_id == person.id)
        ]
        return person.rng.choice(latest) if latest else None

    async def _call(
        self, person: Person, what: str, method: str, path: str, body: Any = None, room: str = ""
    ) -> Any:
        try:
            status, answer = await self._world.rest(person, method, path, body)
        except AWAY:
            self._journal.count(what, "lost")
            return None
        if status < 300:
            self._journal.count(what, "ok")
            return answer
        person.refused(what, None if what in {"edit", "delete", "react"} else room, answer)
        return None

    async def _ask(self, person: Person, what: str, event: str, data: Any) -> Any:
        if person.connection is None:
            return None
        try:
            answer = await person.ask(person.connection, event, data)
        except LostError:
            self._journal.count(what, "lost")
            return None
        if answer["ok"]:
            self._journal.count(what, "ok")
            return answer
        person.refused(what, data.get("conversationId"), answer["error"])
        return None

    async def _edit(self, person: Person) -> None:
        if found := self._message_of(person, own=True):
            content = f"{found[2].content[:40]}, {time.time():.3f}"
            if person.rng.random() < 0.5:
                await self._call(person, "edit", "PATCH", f"/api/messages/{found[1]}", {"content": content})
            else:
                await self._ask(person, "edit", "message:edit", {"messageId": found[1], "content": content})

    async def _delete(self, person: Person) -> None:
        if found := self._message_of(person, own=True):
            if person.rng.random() < 0.5:
                await self._call(person, "delete", "DELETE", f"/api/messages/{found[1]}")
            else:
                await self._ask(person, "delete", "message:delete", {"messageId": found[1]})

    async def _react(self, person: Person) -> None:
        if found := self._message_of(person, own=False):
            emoji = person.rng.choice(EMOJI)
            path = f"/api/messages/{found[1]}/reactions"
            if person.rng.random() < 0.7:
                await self._call(person, "react", "POST", path, {"emoji": emoji})
            else:
                await self._call(person, "react", "DELETE", f"{path}/{emoji}")

    async def _read(self, person: Person) -> None:
        room = self._room_of(person)
        await self._call(person, "read", "PUT", f"/api/conversations/{room}/read", {}, room)

    async def _type(self, person: Person) -> None:
        event = person.rng.choice(["typing:start", "typing:stop"])
        await self._ask(person, "type", event, {"conversationId": self._room_of(person)})

    async def _presence(self, person: Person) -> None:
        if person.rng.random() < 0.5:
            await self._ask(person, "ping", "presence:ping", {})
        else:
            room = self._room_of(person)
            await self._call(person, "presence", "GET", f"/api/conversations/{room}/presence", None, room)

    async def _look(self, person: Person) -> None:
        """Read on over REST, where it must be whole: the events after a place are consecutive."""
        room = self._room_of(person)
        after = max(person.rooms.known[room].held - person.rng.randint(0, 50), 0)
        path = f"/api/conversations/{room}/events?after={after}"
        page = await self._call(person, "events", "GET", path, None, room)
        if page is not None:
            seqs = [item["seq"] for item in page["items"]]
            if page["gap"] or seqs != list(range(after + 1, after + 1 + len(seqs))):
                self._journal.violation("events are whole", user=person.id, room=room, after=after, seqs=seqs)

    async def _reconnect(self, person: Person) -> None:
        if person.connection is not None:
            self._journal.count("reconnect", "ok")
            await person.connection.close(politely=person.rng.random() < 0.5)

    async def _leave_for_a_while(self, person: Person) -> None:
        await person.close_tab()
        await asyncio.sleep(person.rng.uniform(1, 8))
        person.is_wanted.set()
        self._journal.count("close the tab", "ok")

    def _open_group_of(self, person: Person) -> tuple[str, Room] | None:
        groups = [
            one for one in person.rooms.known.items() if one[0] not in self._world.stable and one[1].owner_id
        ]
        return person.rng.choice(groups) if groups else None

    async def _add(self, person: Person) -> None:
        if found := self._open_group_of(person):
            others = [one.id for one in person.rng.sample(self.people, person.rng.randint(1, 3))]
            path = f"/api/conversations/{found[0]}/participants"
            await self._call(person, "add", "POST", path, {"userIds": others})

    async def _leave(self, person: Person) -> None:
        found = self._open_group_of(person)
        if found and len(found[1].participants) > 3:
            path = f"/api/conversations/{found[0]}/participants/{person.id}"
            await self._call(person, "leave", "DELETE", path)

    async def _remove(self, person: Person) -> None:
        found = self._open_group_of(person)
        if found and found[1].owner_id == person.id and len(found[1].participants) > 3:
            other = person.rng.choice(sorted(found[1].participants))
            await self._call(person, "remove", "DELETE", f"/api/conversations/{found[0]}/participants/{other}")

    async def _rename(self, person: Person) -> None:
        if found := self._open_group_of(person):
            body = {"title": f"since {time.time():.0f}"}
            await self._call(person, "rename", "PATCH", f"/api/conversations/{found[0]}", body)

    async def _create(self, person: Person) -> None:
        if len(person.rooms.known) < 12:
            others = [one.id for one in person.rng.sample(self.people, 3)]
            body = {"type": person.rng.choice(["direct", "group"]), "participantIds": others}
            if body["type"] == "direct":
                body["participantIds"] = [next(one.id for one in self.people if one is not person)]
            await self._call(person, "create", "POST", "/api/conversations", body)

    async def resume(self) -> None:
        """Have everybody send one message when all is well."""
        people = [person for person in self.people if person.rooms.known]
        await self.sends.resume([(person, self._room_of(person)) for person in people])
