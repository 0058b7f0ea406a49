"""Dependencies of the use cases: all that they may reach."""

from dataclasses import dataclass

from app.config.settings import Settings
from app.delivery.fanout import Fanout
from app.delivery.receipts import Receipts
from app.delivery.typing import LocalTypists
from app.identity.rate_limits import RateLimits
from app.identity.tokens import TokenVerifier
from app.messages.send_queue import SendQueue
from app.postgres.database import Database
from app.presence.presence import Presence
from app.runtime.batching import Batcher
from app.webhooks.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Deps:
    settings: Settings
    database: Database
    tokens: TokenVerifier
    fanout: Fanout
    outbox: Outbox
    send_queue: SendQueue
    limits: RateLimits
    presence: Presence
    receipts: Receipts
    typists: LocalTypists
    # Tells of a token, by its user and the second in which it was issued, whether it was revoked.
    is_refused: Batcher[tuple[str, int], bool]
