"""The actor: the user in whose name a call is made."""

from dataclasses import dataclass

# What PostgreSQL's bigint holds: a claim may be any number.
LAST_SECOND = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Actor:
    """The user that a verified token names; `expires_at` and `issued_at` in seconds since 1970."""

    user_id: str
    can_read: bool
    can_write: bool
    expires_at: float
    issued_at: float | None

    @property
    def issued_second(self) -> int:
        """The second in which the token was issued; 0 where it does not say."""
        return 0 if self.issued_at is None else max(0, min(int(self.issued_at), LAST_SECOND))
