"""Whether it makes sense to send at all.

    CLOSED ── ten failures in a row, over three lanes or more ──▶ OPEN ── any other answer ──▶ CLOSED
                                                                   │ ▲
                                              a second later: probe▼ │failed
                                                              one due delivery

Failures are those of the way or of the master as a whole: no connection, no answer in time, 5xx. An answer such as
404 says that the master is there. One lane alone never opens it: that may be a single poison event.
"""

from collections.abc import Hashable

FAILURES = 10
LANES = 3


class Breaker:
    """Counts what fails in a row."""

    def __init__(self) -> None:
        self.is_open = False
        self._failures = 0
        self._lanes: set[Hashable] = set()

    def failed(self, lane: Hashable) -> None:
        """Count a failure of a lane."""
        self._failures += 1
        # More would tell no more.
        if len(self._lanes) < LANES:
            self._lanes.add(lane)
        if self._failures >= FAILURES and len(self._lanes) >= LANES:
            self.is_open = True

    def answered(self) -> None:
        """Begin anew: the master is there."""
        self.is_open = False
        self._failures = 0
        self._lanes.clear()
