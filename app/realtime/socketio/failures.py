"""Rate limit of failed socket events, by user: past it the user's sockets are not read from for a while.

Failures that a client causes are counted; refusals because a dependency is away are not.
"""

import time

# A failed event costs some 0.2 ms of the loop: so many a second take a hundredth of it.
PER_SECOND = 50
# How many events may fail at once.
BURST = 500
# Users who are remembered; past it the oldest are forgotten.
MAX_REMEMBERED = 100_000

_INTERVAL = 1 / PER_SECOND


class Failures:
    """Counts failed events by user: the generic cell rate algorithm, in this process alone."""

    def __init__(self) -> None:
        # When the count of each user is back at zero.
        self._zero: dict[str, float] = {}

    def count(self, user_id: str) -> float:
        """Count a failed event; gives for how many seconds its user must not be read from."""
        now = time.monotonic()
        zero = max(now, self._zero.pop(user_id, now)) + _INTERVAL
        self._zero[user_id] = zero
        if len(self._zero) > MAX_REMEMBERED:
            del self._zero[next(iter(self._zero))]
        return max(0.0, zero - now - _INTERVAL * BURST)
