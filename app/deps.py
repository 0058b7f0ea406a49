"""All that a use-case may reach."""

from dataclasses import dataclass

from app.auth.tokens import TokenVerifier
from app.fanout import Fanout
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Deps:
    settings: Settings
    tokens: TokenVerifier
    fanout: Fanout
