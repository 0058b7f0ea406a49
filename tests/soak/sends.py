"""Messages that people send: over REST and on sockets, and again under the same id until the outcome is known."""

import asyncio
from typing import Any
from uuid import UUID

from soak.connection import AWAY, LostError
from soak.journal import Journal, Send
from soak.person import NOT_THERE, Person
from soak.within import RESUMED_WITHIN, within
from soak.world import World

BURST = (3, 15)
RETRY_PAUSE = (0.2, 1.0)
# After an outage all is sent again within so many seconds.
MAX_RETRY_PAUSE = 6.0
GIVES_UP = 0.1


class Sends:
    """All sends of a run."""

    def __init__(self, world: World, journal: Journal) -> None:
        self._world = world
        self._journal = journal
        self._said = 0
        # Those that go on until their outcome is known.
        self.unsettled: set[asyncio.Task[None]] = set()

    def _new_send(self, person: Person, conversation_id: str, *, is_repeatable: bool = False) -> Send:
        self._said += 1
        content = f"{person.id} says {self._said}"
        with_id = person.rng.random() < 0.9 or is_repeatable
        name = str(UUID(int=person.rng.getrandbits(128))) if with_id else None
        send = Send(conversation_id, person.id, content, name)
        self._journal.sends.append(send)
        return send

    async def on_socket(self, person: Person, conversation_id: str) -> None:
        await self._emit(person, self._new_send(person, conversation_id))

    async def burst(self, person: Person, conversation_id: str) -> None:
        count = person.rng.randint(*BURST)
        await asyncio.gather(*(self._emit(person, self._new_send(person, conversation_id)) for _ in range(count)))

    async def _emit(self, person: Person, send: Send) -> None:
        """Send on the socket; what fails is tried again beside, or given up."""
        connection, name = person.connection, person.name
        if connection is None:
            self._journal.count("send on socket", "not connected")
            self._journal.sends.remove(send)
            return
        body = {"conversationId": send.conversation_id, "content": send.content}
        if send.client_message_id is not None:
            body["clientMessageId"] = send.client_message_id
        send.emissions += 1
        place = (name, send.conversation_id)
        self._journal.emitted[place].append(send)
        try:
            answer = await person.ask(connection, "message:send", body)
        except LostError:
            self._journal.count("send on socket", "lost")
            self._try_again(person, send)
            return
        if answer["ok"]:
            self._journal.count("send on socket", "ok")
            self._journal.acknowledged[place].append(send)
            self._take_ack(send, answer["message"])
        else:
            person.refused("send on socket", send.conversation_id, answer["error"])
            if answer["error"]["code"] not in NOT_THERE:
                self._try_again(person, send)

    async def over_rest(self, person: Person, conversation_id: str) -> None:
        send = self._new_send(person, conversation_id)
        if not await self._post(person, send):
            self._try_again(person, send)

    async def _post(self, person: Person, send: Send) -> bool:
        """Send over REST; True where that settled it."""
        body = {"content": send.content, "clientMessageId": send.client_message_id}
        send.emissions += 1
        path = f"/api/conversations/{send.conversation_id}/messages"
        try:
            status, answer = await self._world.rest(person, "POST", path, body)
        except AWAY:
            self._journal.count("send over REST", "lost")
            return False
        if status in {200, 201}:
            self._journal.count("send over REST", "ok")
            self._take_ack(send, answer)
            return True
        person.refused("send over REST", send.conversation_id, answer)
        return answer["code"] in NOT_THERE

    def _take_ack(self, send: Send, message: dict[str, Any]) -> None:
        if send.seq is not None and (send.seq, send.message_id) != (message["seq"], message["id"]):
            self._journal.violation(
                "a repeated send is answered with the first",
                first=(send.seq, send.message_id),
                then=(message["seq"], message["id"]),
                conversation=send.conversation_id,
            )
        send.seq, send.message_id = message["seq"], message["id"]
        self._journal.trace("acknowledged", content=send.content, id=send.conversation_id, seq=send.seq)

    def _try_again(self, person: Person, send: Send) -> None:
        if send.client_message_id is None or person.rng.random() < GIVES_UP:
            return
        task = asyncio.create_task(self._until_settled(person, send))
        self.unsettled.add(task)
        task.add_done_callback(self.unsettled.discard)

    async def _until_settled(self, person: Person, send: Send) -> None:
        least, most = RETRY_PAUSE
        while True:
            await asyncio.sleep(person.rng.uniform(least, most))
            if await self._post(person, send):
                return
            # What all clients repeat at once keeps the service from coming back.
            least, most = min(least * 2, MAX_RETRY_PAUSE / 2), min(most * 2, MAX_RETRY_PAUSE)

    async def resume(self, places: list[tuple[Person, str]]) -> None:
        """Send one message to each place when all is well; it must be acknowledged soon."""
        sends = [(person, self._new_send(person, name, is_repeatable=True)) for person, name in places]

        async def unacknowledged() -> list[Any]:
            left = [(person, send) for person, send in sends if send.seq is None]
            await asyncio.gather(*(self._post(person, send) for person, send in left))
            return [(person.id, send.conversation_id) for person, send in left if send.seq is None]

        await within(self._journal, RESUMED_WITHIN, "all resumes by itself", unacknowledged)
