"""Runs a scenario on one side after the other, again and again, and counts what was stored."""

import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from benchmarks.load import Client, Load, LoadError, Measurement
from benchmarks.peers import Peer, Room, token
from benchmarks.processes import Server, at_rest
from benchmarks.scenarios import Scenario

# Tokens are made for more connects than any side comes to.
MOST_CONNECTS_PER_SECOND = 10_000


@dataclass(frozen=True)
class Effort:
    """How long and how often is measured."""

    rounds: int
    warm_up: float
    seconds: float


@dataclass
class Outcome:
    """What one scenario gave: for each side the measurements of all rounds."""

    scenario: Scenario
    measured: dict[str, list[Measurement]] = field(default_factory=dict)

    def values(self, peer: str, value: str) -> list[float]:
        return [one[value] for one in self.measured[peer]]

    def median(self, peer: str, value: str) -> float:
        return statistics.median(self.values(peer, value))

    def cost(self, peer: str) -> float:
        """Give the microseconds of the server's processor for one of what the scenario counts."""
        return statistics.median(
            one["server_cpu"] * 1e6 / one[self.scenario.cost_of] for one in self.measured[peer]
        )


_BEGAN = time.monotonic()


def say(text: str) -> None:
    """Print a line of progress, with the seconds since the start."""
    print(f"{time.monotonic() - _BEGAN:5.0f} s  {text}", flush=True)


class Comparison:
    """All sides, with one process each that lives through all scenarios."""

    def __init__(self, load: Load, servers: dict[str, Server], peers: Sequence[Peer], effort: Effort) -> None:
        self._load = load
        self._servers = servers
        self._peers = peers
        self._effort = effort

    async def run(self, scenario: Scenario) -> Outcome:
        """Measure all sides in turn; raises LoadError."""
        outcome = Outcome(scenario, {peer.name: [] for peer in self._peers})
        rooms = {peer.name: await self._prepare(peer, scenario) for peer in self._peers}
        for number in range(self._effort.rounds):
            # Each round begins with another side: none always follows the same one.
            first = number % len(self._peers)
            for peer in (*self._peers[first:], *self._peers[:first]):
                figure = scenario.figures[0]
                place = f"{figure.title}, round {number + 1} of {self._effort.rounds}, {peer.name}"
                try:
                    measured = await self._measure(peer, scenario, rooms[peer.name])
                except LoadError as error:
                    raise LoadError(f"{place}: {error}") from error
                outcome.measured[peer.name].append(measured)
                say(f"{place}: {measured[figure.value]:,.0f} {figure.unit}")
        return outcome

    async def _prepare(self, peer: Peer, scenario: Scenario) -> list[Room]:
        if scenario.stored_before:
            say(f"Storing {scenario.stored_before:,} messages for {peer.name}")
            await peer.fill(scenario.stored_before)
        members = [
            [f"{scenario.key}-{room}-{number}" for number in range(scenario.size)]
            for room in range(scenario.rooms)
        ]
        return await peer.make_rooms(self._servers[peer.name], members)

    async def _measure(self, peer: Peer, scenario: Scenario, rooms: Sequence[Room]) -> Measurement:
        await at_rest([*self._servers.values()])
        if not scenario.processes:
            return await self._loaded(peer, scenario, rooms, [self._servers[peer.name]])
        async with AsyncExitStack() as stack:
            servers = []
            for place in range(scenario.processes):
                servers.append(await peer.start(place))
                stack.push_async_callback(servers[-1].stop)
            return await self._loaded(peer, scenario, rooms, servers)

    async def _loaded(
        self, peer: Peer, scenario: Scenario, rooms: Sequence[Room], servers: Sequence[Server]
    ) -> Measurement:
        options = {"warm_up": self._effort.warm_up, "seconds": self._effort.seconds, **scenario.options}
        before = await peer.count_messages() if scenario.stores else 0
        clients = self._clients(scenario, rooms, servers, options["warm_up"] + options["seconds"])
        measured = await self._load.run(scenario.mode, clients, servers, **options)
        if scenario.stores:
            stored = await peer.count_messages() - before
            if stored != measured["stored"]:
                raise LoadError(
                    f"{peer.name}: {measured['stored']:.0f} messages were acknowledged, {stored} stored"
                )
            if peer.promises_order and measured["late"]:
                raise LoadError(f"{measured['late']:.0f} messages came after a later one")
        return measured

    @staticmethod
    def _clients(
        scenario: Scenario, rooms: Sequence[Room], servers: Sequence[Server], seconds: float
    ) -> list[Client]:
        people = scenario.rooms * scenario.size
        tokens = 1 + int(seconds * MOST_CONNECTS_PER_SECOND / people) if scenario.new_tokens else 1
        return [
            Client(_port(scenario, servers, place, member), token(user_id, number), room.conversation_id)
            for number in range(tokens)
            for place, room in enumerate(rooms)
            for member, user_id in enumerate(room.user_ids[:1] if scenario.one_client else room.user_ids)
        ]


def _port(scenario: Scenario, servers: Sequence[Server], place: int, member: int) -> int:
    """Spread the rooms over the processes; of those that are shared, the members."""
    is_shared = place % scenario.shared_every == 0
    server = servers[(place + (member if is_shared else 0)) % len(servers)]
    return server.http_port if scenario.mode == "posts" else server.ws_port
