"""Circuit breaker: whether webhooks are posted at all while the master fails.

    CLOSED ── ten failures in a row, over three lanes or more ──▶ OPEN ── any other answer ──▶ CLOSED
                                                                   │ ▲
                                              a second later: probe▼ │failed
                                                              one due delivery

A failure is no connection, no answer in time, or a 5xx. An answer such as 404 shows that the master is there.
One lane alone never opens the breaker: the cause may be a single poison event.
"""

from collections.abc import Hashable

FAILURES = 10
LANES = 3


class Breaker:
    """Counts consecutive failures."""

    def __init__(self) -> None:
        self.is_open = False
        self._failures = 0
        self._lanes: set[Hashable] = set()

    def failed(self, lane: Hashable) -> None:
        """Count a failure of a lane."""
        self._failures += 1
        # More lanes would not change the decision.
        if len(self._lanes) < LANES:
            self._lanes.add(lane)
        if self._failures >= FAILURES and len(self._lanes) >= LANES:
            self.is_open = True

    def answered(self) -> None:
        """Close the breaker and reset the counts: the master answered."""
        self.is_open = False
        self._failures = 0
        self._lanes.clear()
