"""Revocation: a token that was issued before its user was deleted does not count any more.

Tokens and deletions are compared by the second. In the database the rule is the function `is_refused`, of a user
and a second; a statement that changes something under a lock asks it there, since a deletion may commit while it
waits. All else that asks whether a token still counts comes here.
"""

from collections.abc import Sequence

from app.contract.errors import Unauthorized
from app.identity.actor import Actor
from app.observability import tracing
from app.postgres.statements import statement
from app.postgres.transactions import POOL
from app.runtime.batching import Batcher

REFUSED_TOKENS = statement("refused_tokens")


def refused() -> Unauthorized:
    """Make the error for a token that was revoked."""
    return Unauthorized("The user was deleted")


def is_refused(token_second: int, deleted_second: int) -> bool:
    """Tell of a token, by the second in which it was issued, whether a deletion in a second revokes it."""
    return deleted_second >= token_second


async def are_refused(tokens: Sequence[tuple[str, int]]) -> list[bool]:
    """Tell of tokens, by their user and the second in which they were issued, whether they were revoked."""
    found = await POOL.rows(REFUSED_TOKENS, [user_id for user_id, _ in tokens], [second for _, second in tokens])
    places = {token["place"] for token in found}
    return [place in places for place in range(1, len(tokens) + 1)]


async def require_valid(actor: Actor) -> None:
    """Raise Unauthorized where the actor's token was revoked."""
    if (await are_refused([(actor.user_id, actor.issued_second)]))[0]:
        raise refused()


def batched() -> Batcher[tuple[str, int], bool]:
    """Make what asks of many tokens at once, for all who connect or read at the same moment."""
    return Batcher(are_refused, lambda _: tracing.statement(REFUSED_TOKENS))
