"""Who connects, and what they hear from then on."""

from app.auth import policy
from app.auth.actor import Actor
from app.deps import Deps
from app.errors import Unauthorized
from app.limits import Action
from app.rooms import Subscriber


async def authenticate(deps: Deps, token: str) -> Actor:
    """Turn a token into the one who acts; raises Unauthorized, also for a user who was deleted since."""
    actor = deps.tokens.verify(token)
    await _refuse(deps, actor)
    return actor


async def _refuse(deps: Deps, actor: Actor) -> None:
    if await deps.is_refused((actor.user_id, actor.issued_second)):
        raise Unauthorized("The user was deleted")


async def authenticate_socket(deps: Deps, token: str) -> Actor:
    """Let a user open a socket; raises Unauthorized, or Forbidden without `chat:read`."""
    actor = await authenticate(deps, token)
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


async def connect(deps: Deps, actor: Actor, subscriber: Subscriber) -> None:
    """Put a socket into its user's conversations; the caller tells the client before it awaits anything.

    Raises Unauthorized for a user who was deleted since the token was looked at.
    """
    changes = await deps.presence.opened(subscriber.user_id)
    try:
        if changes:
            await deps.announce_presence(changes)
        await deps.fanout.attach(subscriber, lambda: _refuse(deps, actor))
    except BaseException:
        await deps.presence.closed(subscriber.user_id)
        raise


async def make_room(deps: Deps, subscriber: Subscriber) -> None:
    """End the oldest sockets of a user who has too many, this one among them."""
    most = deps.settings.max_sockets_per_user
    for socket_id in await deps.presence.register(subscriber.user_id, subscriber.socket_id, most):
        deps.fanout.evict(subscriber.user_id, socket_id)


async def disconnect(deps: Deps, subscriber: Subscriber) -> None:
    """Take a socket out of everything."""
    deps.fanout.detach(subscriber)
    await deps.presence.closed(subscriber.user_id)
    await deps.presence.unregister(subscriber.user_id, subscriber.socket_id)
