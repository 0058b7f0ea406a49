"""Who connects, and what they hear from then on."""

from app.auth import policy
from app.auth.actor import Actor
from app.deps import Deps
from app.fanout import Subscriber


def authenticate(deps: Deps, token: str) -> Actor:
    """Turn a token into the one who acts; raises Unauthorized."""
    return deps.tokens.verify(token)


def authenticate_socket(deps: Deps, token: str) -> Actor:
    """Let a user open a socket; raises Unauthorized, or Forbidden without `chat:read`."""
    actor = authenticate(deps, token)
    policy.require_read(actor)
    return actor


async def connect(deps: Deps, subscriber: Subscriber) -> None:
    """Put a socket into its user's conversations; the caller tells the client before it awaits anything."""
    await deps.fanout.attach(subscriber)


async def disconnect(deps: Deps, subscriber: Subscriber) -> None:
    """Take a socket out of everything."""
    await deps.fanout.detach(subscriber)
