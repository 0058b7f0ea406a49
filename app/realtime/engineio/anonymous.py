"""Anonymous sessions: bounded apart from authenticated sockets; the longest silent one makes room for another."""

from collections.abc import Sized

from app.observability import metrics
from app.realtime.engineio.session import Session
from app.runtime.supervisor import Supervisor


class Anonymous:
    """The anonymous sessions, so that they take no place from authenticated sockets."""

    def __init__(
        self, sessions: Sized, sockets: Sized, max_sockets: int, max_anonymous: int, supervisor: Supervisor
    ) -> None:
        self._sessions = sessions
        self._sockets = sockets
        self._max_sockets = max_sockets
        self._max_anonymous = max_anonymous
        self._supervisor = supervisor
        # Those that have not asked for a socket, by their ids, the oldest first.
        self._silent: dict[str, Session] = {}

    def has_place_beside(self, connecting: int) -> bool:
        """Tell whether one more client may be let in, where so many are about to be."""
        if len(self._sockets) + connecting < self._max_sockets:
            return True
        metrics.of(metrics.REFUSED, "socket").inc()
        return False

    def make_room(self) -> bool:
        """Make room for one more session, at the cost of the one that has been silent for the longest."""
        if not self.has_place_beside(0):
            return False
        if len(self._sessions) - len(self._sockets) < self._max_anonymous:
            return True
        metrics.of(metrics.REFUSED, "anonymous").inc()
        oldest = next(iter(self._silent), None)
        if oldest is None:
            return False
        self._supervisor.once("close a silent session for another", self._silent.pop(oldest).close())
        return True

    def enter(self, session: Session) -> None:
        self._silent[session.sid] = session

    def leave(self, session: Session) -> None:
        """Know that a session is silent no longer, or is over."""
        self._silent.pop(session.sid, None)
