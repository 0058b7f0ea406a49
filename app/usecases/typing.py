"""Who is typing: told to the others while it lasts, kept nowhere but on the pod of the one who types."""

import asyncio
from uuid import UUID

from app import events, queries
from app.auth import policy
from app.auth.actor import Actor
from app.deps import Deps
from app.errors import RateLimited
from app.limits import Action
from app.usecases.access import require_participant

LAPSE = 6.0


class Typing:
    """What one socket's user is typing in; each lapses by itself after 6 s."""

    __slots__ = ("_deps", "_lapses", "actor")

    def __init__(self, deps: Deps, actor: Actor) -> None:
        self._deps = deps
        self.actor = actor
        self._lapses: dict[UUID, asyncio.TimerHandle] = {}

    async def start(self, conversation_id: UUID) -> None:
        """Tell the others, who hear it once however often it is said; raises Forbidden and NotFound."""
        policy.require_write(self.actor)
        if not await self._may_be_heard(conversation_id):
            return
        lapse = self._lapses.pop(conversation_id, None)
        if lapse is None:
            self._tell(conversation_id, is_typing=True)
        else:
            lapse.cancel()
        loop = asyncio.get_running_loop()
        self._lapses[conversation_id] = loop.call_later(LAPSE, self.stop, conversation_id)

    async def _may_be_heard(self, conversation_id: UUID) -> bool:
        try:
            await self._deps.limits.check(Action.TYPING, self.actor.user_id)
        except RateLimited:
            return False
        await require_participant(conversation_id, self.actor)
        return await queries.participant_count(conversation_id) <= self._deps.settings.large_group

    async def end(self, conversation_id: UUID) -> None:
        """Tell the others that it is over; raises Forbidden and NotFound."""
        policy.require_write(self.actor)
        if conversation_id in self._lapses:
            self.stop(conversation_id)
        else:
            await self._may_be_heard(conversation_id)

    def stop(self, conversation_id: UUID) -> None:
        """Tell the others that it is over; nothing happens where it had not begun."""
        lapse = self._lapses.pop(conversation_id, None)
        if lapse is not None:
            lapse.cancel()
            self._tell(conversation_id, is_typing=False)

    def stop_all(self) -> None:
        """End it everywhere: the socket is gone."""
        for conversation_id in list(self._lapses):
            self.stop(conversation_id)

    def _tell(self, conversation_id: UUID, *, is_typing: bool) -> None:
        user_id = self.actor.user_id
        event = events.user_typing(conversation_id, user_id, is_typing=is_typing)
        self._deps.fanout.tell_room(conversation_id, event)
