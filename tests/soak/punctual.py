"""The promise that every committed change reaches every connected client within 10 s, checked while faults go on.

Faults of Redis, and of the pod that made the change, are no excuse. Those of PostgreSQL are, and of the client's
own pod: the beginning of the session's id tells it, once somebody has connected to it without the balancer.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable

from soak.journal import HARNESS, Journal, Window
from soak.person import Person
from soak.world import World

PROMISED = 10.0
# What the clients of this machine and the looking itself may add.
SLACK = 3.0
SHOWS_POD = 12
TICK = 1.0
# Seconds by which a tick may be late on a machine that is busy.
MAX_LAG = 1.0


class Reached:
    """How far each conversation is known to have come, and since when."""

    def __init__(self) -> None:
        self._steps: dict[str, list[tuple[float, int]]] = defaultdict(list)

    def note(self, conversation_id: str, seq: int, now: float) -> None:
        """Note that somebody has a change."""
        steps = self._steps[conversation_id]
        if not steps or seq > steps[-1][1]:
            steps.append((now, seq))

    def by(self, conversation_id: str, at: float) -> int:
        """Give how far it was known to have come at a time, of which none before may be asked later."""
        steps = self._steps[conversation_id]
        while len(steps) > 1 and steps[1][0] <= at:
            del steps[0]
        return steps[0][1] if steps and steps[0][0] <= at else 0


def is_excused(pod: str, since: float, faults: Iterable[Window]) -> bool:
    """Tell whether a fault since then may hold up what a pod's clients are sent, or what they take in."""
    excuses = {pod, f"{pod} to PostgreSQL", "PostgreSQL", HARNESS}
    return any(fault.target in excuses and fault.end >= since for fault in faults)


class Punctual:
    """Looks every second at what each client holds."""

    def __init__(self, world: World, journal: Journal, people: list[Person]) -> None:
        self._world = world
        self._journal = journal
        self._people = people
        self._reached = Reached()
        self._connected: dict[str, float] = {}
        self._late: set[tuple[str, str]] = set()
        self._pods: dict[str, str] = {}

    async def watch(self) -> None:
        """Look until cancelled."""
        last = time.time()
        while True:
            await asyncio.sleep(TICK)
            now = time.time()
            if now - last > TICK + MAX_LAG:
                self._journal.stood_still(last + TICK, now)
            self._look(now)
            last = now

    def _look(self, now: float) -> None:
        names = {pod.ws: member.name for member, pod in zip(self._world.members, self._world.pods, strict=False)}
        for person in self._people:
            for name, room in person.rooms.known.items():
                self._reached.note(name, room.held, now)
            if person.connection is not None:
                self._connected.setdefault(person.name, now)
                if person.base in names:
                    self._pods[person.sid[:SHOWS_POD]] = names[person.base]
        since = now - PROMISED - SLACK
        for person in self._people:
            pod = self._pods.get(person.sid[:SHOWS_POD])
            is_long_there = person.is_complete and self._connected.get(person.name, now) <= since
            if pod is None or not is_long_there or is_excused(pod, since - SLACK, self._journal.faults):
                continue
            for name, room in person.rooms.known.items():
                if room.held < self._reached.by(name, since) and (person.name, name) not in self._late:
                    self._late.add((person.name, name))
                    self._journal.violation(
                        "every change reaches every connected client within 10 s",
                        connection=person.name,
                        sid=person.sid,
                        pod=pod,
                        conversation=name,
                        held=room.held,
                        reached=self._reached.by(name, since),
                    )
