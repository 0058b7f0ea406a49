"""Use cases of sessions: authenticate, connect a socket, refresh its token, disconnect."""

from collections.abc import Iterable

from app.contract.errors import Unauthorized
from app.delivery.rooms import Subscriber
from app.identity import policy, revocation
from app.identity.actor import Actor
from app.identity.rate_limits import Action
from app.usecases.deps import Deps


async def authenticate(deps: Deps, token: str) -> Actor:
    """Turn a token into an actor; raises Unauthorized, also for a user who was deleted since."""
    actor = deps.tokens.verify(token)
    if await deps.is_refused((actor.user_id, actor.issued_second)):
        raise revocation.refused()
    return actor


async def authenticate_socket(deps: Deps, token: str) -> Actor:
    """Let a user ask for a socket; raises Unauthorized, or Forbidden without `chat:read`.

    Whether they were deleted is seen when they connect.
    """
    actor = deps.tokens.verify(token)
    policy.require_read(actor)
    await deps.limits.check(Action.CONNECT, actor.user_id)
    return actor


async def refresh(deps: Deps, actor: Actor, token: str) -> Actor:
    """Go on with a new token of the same user; raises Unauthorized, or Forbidden without `chat:read`."""
    fresh = await authenticate(deps, token)
    if fresh.user_id != actor.user_id:
        raise Unauthorized("The token is another user's")
    policy.require_read(fresh)
    return fresh


async def connect(deps: Deps, actor: Actor, subscriber: Subscriber) -> list[str]:
    """Put a socket into its user's conversations; the caller answers the client before it awaits anything.

    Gives the user's sockets past the limit, the oldest. Raises Unauthorized for a user who was deleted.
    """
    user_id, socket_id = subscriber.user_id, subscriber.socket_id
    too_many: list[str] = []

    async def arrive() -> None:
        nonlocal too_many
        too_many = await deps.presence.opened(user_id, socket_id)

    try:
        await deps.fanout.attach(subscriber, actor.issued_second, arrive)
    except BaseException:
        # Nothing is awaited here: whoever is cancelled may be cancelled again.
        deps.presence.closed(user_id, socket_id)
        raise
    return too_many


def make_room(deps: Deps, user_id: str, too_many: Iterable[str]) -> None:
    """End sockets of a user."""
    for socket_id in too_many:
        deps.fanout.evict(user_id, socket_id)


async def disconnect(deps: Deps, subscriber: Subscriber) -> None:
    """Remove a socket everywhere; nothing is awaited, so that it cannot be left half done."""
    deps.fanout.detach(subscriber)
    deps.presence.closed(subscriber.user_id, subscriber.socket_id)
