"""All that a use-case may reach."""

from dataclasses import dataclass

from app.auth.tokens import TokenVerifier
from app.database import Database
from app.fanout import Fanout
from app.gathering import Gathering
from app.limits import Limits
from app.outbox import Outbox
from app.presence import Presence
from app.receipts import Receipts
from app.send_queue import SendQueue
from app.settings import Settings
from app.typists import LocalTypists


@dataclass(frozen=True, slots=True)
class Deps:
    settings: Settings
    database: Database
    tokens: TokenVerifier
    fanout: Fanout
    outbox: Outbox
    send_queue: SendQueue
    limits: Limits
    presence: Presence
    receipts: Receipts
    typists: LocalTypists
    # Tells of a token, by its user and the second in which it was issued, whether that user was deleted.
    is_refused: Gathering[tuple[str, int], bool]
