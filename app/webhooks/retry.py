"""Retry schedule of webhooks: jitter, `Retry-After`, and when a webhook is dead; pure functions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Never sooner than the schedule says, and later by this part of the wait at most.
JITTER = 0.1
# A master that asks for more time than this is asked again all the same.
MAX_RETRY_AFTER = 86_400.0


def next_delay(schedule: Sequence[float], step: int, chance: float, retry_after: float | None) -> float | None:
    """Give the seconds until the next attempt, after `step` waits so far; None when the webhook is dead.

    `chance` is a random number from 0 to 1.
    """
    if step >= len(schedule):
        return None
    delay = schedule[step] * (1 + JITTER * chance)
    return max(delay, retry_after or 0.0)


def read_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a Retry-After header, seconds or a date (RFC 9110, section 10.2.3); None where it is neither."""
    if value is None:
        return None
    text = value.strip()
    # Longer digits are no waits, and `int` takes its time over them.
    if text.isascii() and text.isdigit() and len(text) <= 10:
        seconds = float(text)
    else:
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
