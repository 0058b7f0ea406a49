"""Who acts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """The user that a verified token names; `expires_at` and `issued_at` in seconds since 1970."""

    user_id: str
    can_read: bool
    can_write: bool
    expires_at: float
    issued_at: float | None
