"""Use cases of typing: start, stop, and the end with a socket."""

from uuid import UUID

from app.contract.errors import RateLimited
from app.identity import policy
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.postgres import participant_rows
from app.postgres.transactions import POOL
from app.usecases.access import require_participant
from app.usecases.deps import Deps


class Typing:
    """The conversations in which one socket's user types; each lapses by itself after 6 s."""

    __slots__ = ("_deps", "_is_over", "_started", "actor")

    def __init__(self, deps: Deps, actor: Actor) -> None:
        self._deps = deps
        self.actor = actor
        # Where it was started and not stopped; it may have lapsed since. An empty set is three times as large.
        self._started: dict[UUID, None] = {}
        self._is_over = False

    async def start(self, conversation_id: UUID) -> None:
        """Start typing: the others get one event however often it is called; raises Forbidden and NotFound."""
        policy.require_write(self.actor)
        if await self._may_be_shown(conversation_id) and not self._is_over:
            self._started[conversation_id] = None
            self._deps.typists.start(conversation_id, self.actor.user_id, self)

    async def _may_be_shown(self, conversation_id: UUID) -> bool:
        try:
            await self._deps.limits.check(Action.TYPING, self.actor.user_id)
        except RateLimited:
            return False
        await require_participant(conversation_id, self.actor)
        return await participant_rows.participant_count(POOL, conversation_id) <= self._deps.settings.large_group

    async def end(self, conversation_id: UUID) -> None:
        """Stop typing, on behalf of a client; raises Forbidden and NotFound."""
        policy.require_write(self.actor)
        if self._deps.typists.is_typing(conversation_id, self.actor.user_id, self):
            self.stop(conversation_id)
        else:
            await self._may_be_shown(conversation_id)

    def stop(self, conversation_id: UUID) -> None:
        """Stop typing, unless another socket of the user goes on."""
        if conversation_id in self._started:
            del self._started[conversation_id]
            self._deps.typists.stop(conversation_id, self.actor.user_id, self)

    def stop_all(self) -> None:
        """Stop typing everywhere: the socket is gone."""
        self._is_over = True
        for conversation_id in list(self._started):
            self.stop(conversation_id)
