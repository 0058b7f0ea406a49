"""What is measured: each scenario is one kind of load on one kind of rooms."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """One line of the table: how it is called, its unit, and which measured value it is."""

    title: str
    unit: str
    value: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class Scenario:
    """Rooms of equal size, and how the load generator is called."""

    key: str
    mode: str
    figures: tuple[Figure, ...]
    # What the server's processor time is divided by, and its name.
    cost_of: str
    rooms: int
    size: int
    options: dict[str, float] = field(default_factory=dict)
    # Every connect has a token that the server has not seen.
    new_tokens: bool = False
    # So many new processes for each run; 0 is the one that lives through all scenarios.
    processes: int = 0
    # Of so many rooms one has its sockets on different processes.
    shared_every: int = 10
    # Whether the run stores messages, and how many there are before.
    stores: bool = True
    stored_before: int = 0
    # One client per room instead of one per participant.
    one_client: bool = False


def _fan_out(key: str, size: int, in_flight: int) -> Scenario:
    title = f"A: one room of {size:,}, {in_flight} {'sends' if in_flight > 1 else 'send'} in flight"
    return Scenario(
        key=key,
        mode="rooms",
        figures=(Figure(title, "deliveries/s", "delivered_per_second"),),
        cost_of="delivered_per_second",
        rooms=1,
        size=size,
        options={"in_flight": in_flight, "sender_every": size},
    )


def _pairs(key: str, rooms: int) -> Scenario:
    title = f"B: {rooms:,} pairs, everyone sends"
    return Scenario(
        key=key,
        mode="rooms",
        figures=(
            Figure(title, "messages/s", "per_second"),
            Figure(f"B: {rooms:,} pairs, answer p50", "ms", "p50_ms", higher_is_better=False),
            Figure(f"B: {rooms:,} pairs, answer p99", "ms", "p99_ms", higher_is_better=False),
        ),
        cost_of="per_second",
        rooms=rooms,
        size=2,
    )


def _pods(count: int) -> Scenario:
    title = "F: 250 pairs, one pod" if count == 1 else f"F: 250 pairs, {count} pods, a tenth shared"
    return Scenario(
        key=f"F{count}",
        mode="rooms",
        figures=(Figure(title, "messages/s", "per_second"),),
        cost_of="per_second",
        rooms=250,
        size=2,
        processes=count,
    )


def _scale(times: int) -> Scenario:
    rooms, stored = 25 * times, 10_000 * times
    title = f"G: 50 senders among {2 * rooms:,} sockets, {stored:,} messages stored"
    return Scenario(
        key=f"G{times}",
        mode="rooms",
        figures=(Figure(title, "messages/s", "per_second"),),
        cost_of="per_second",
        rooms=rooms,
        size=2,
        options={"sender_every": times},
        stored_before=stored,
    )


def _idle(sockets: int) -> Scenario:
    title = f"D: {sockets:,} idle sockets"
    return Scenario(
        key="D",
        mode="idle",
        figures=(Figure(title, "KB each", "kilobytes_per_connection", higher_is_better=False),),
        cost_of="",
        rooms=sockets // 2,
        size=2,
        options={"kept": 100, "warm_up": 1, "seconds": 2},
        processes=1,
        stores=False,
    )


A_PIPELINED = _fan_out("A", 1000, 4)
A_SINGLE = _fan_out("A1", 1000, 1)
A_SMALL = _fan_out("A200", 200, 4)
B_MANY = _pairs("B", 250)
B_FEW = _pairs("B25", 25)
CONNECTS = Scenario(
    key="C",
    mode="connects",
    figures=(Figure("C: connects with a new token", "connects/s", "per_second"),),
    cost_of="per_second",
    rooms=500,
    size=2,
    # By then everybody was there once, and comes back before they count as gone.
    options={"warm_up": 2},
    new_tokens=True,
    stores=False,
)
POSTS = Scenario(
    key="E",
    mode="posts",
    figures=(Figure("E: POST message, 64 connections", "requests/s", "per_second"),),
    cost_of="per_second",
    rooms=64,
    size=2,
    one_client=True,
)

QUICK = (A_PIPELINED, B_MANY, CONNECTS, _idle(2000), POSTS)
FULL = (
    *(A_PIPELINED, A_SINGLE, A_SMALL),
    *(B_MANY, B_FEW),
    CONNECTS,
    _idle(10_000),
    POSTS,
    *(_pods(1), _pods(2)),
    *(_scale(1), _scale(10), _scale(100)),
)
