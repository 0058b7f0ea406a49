"""What was seen: operations, sends and their answers, deliveries, faults, and what broke a promise."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# More of one kind say nothing new; all are counted, and all are in the trace.
KEPT_OF_A_KIND = 10
# The target of a fault that is this process's own: its loop stood still.
HARNESS = "the harness"


@dataclass
class Send:
    """One message that somebody wants to say: `content` is its own alone."""

    conversation_id: str
    sender_id: str
    content: str
    client_message_id: str | None
    # How often it went out, over whatever wire.
    emissions: int = 0
    message_id: str | None = None
    seq: int | None = None
    # Whether what an edit or a deletion left differs from `content`.
    is_changed: bool = False


@dataclass(frozen=True)
class Violation:
    promise: str
    details: dict[str, Any]
    at: float

    def __str__(self) -> str:
        details = ", ".join(f"{name}={value}" for name, value in self.details.items())
        return f"{time.strftime('%H:%M:%S', time.gmtime(self.at))} {self.promise}: {details}"


@dataclass
class Window:
    """A fault, from its beginning to its end."""

    kind: str
    target: str
    start: float
    end: float = float("inf")


@dataclass
class Journal:
    """The record of one run, of which `trace.jsonl` in its folder has every line."""

    folder: Path
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    violations_by_promise: Counter[str] = field(default_factory=Counter)
    sends: list[Send] = field(default_factory=list)
    # The sends of one socket to one conversation, in the order in which they were emitted.
    emitted: dict[tuple[str, str], list[Send]] = field(default_factory=lambda: defaultdict(list))
    # The same in the order in which they were acknowledged.
    acknowledged: dict[tuple[str, str], list[Send]] = field(default_factory=lambda: defaultdict(list))
    faults: list[Window] = field(default_factory=list)
    deliveries: int = 0
    connects: int = 0
    refused_connects: int = 0
    longest_outage: float = 0.0
    notes: list[str] = field(default_factory=list)
    # What the end of the run is waiting for.
    awaited: str = ""

    def __post_init__(self) -> None:
        self._trace = (self.folder / "trace.jsonl").open("a", buffering=1 << 16)

    def close(self) -> None:
        self._trace.close()

    def trace(self, what: str, **fields: Any) -> None:
        self._trace.write(json.dumps({"at": round(time.time(), 3), "what": what, **fields}, default=str) + "\n")

    def count(self, operation: str, outcome: str) -> None:
        self.operations[operation, outcome] += 1

    def violation(self, promise: str, **details: Any) -> None:
        self.trace("VIOLATION", promise=promise, **details)
        self.violations_by_promise[promise] += 1
        if self.violations_by_promise[promise] <= KEPT_OF_A_KIND:
            self.violations.append(Violation(promise, details, time.time()))

    def found(self, found: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Take in what a check yields."""
        for promise, details in found:
            self.violation(promise, **details)

    @contextmanager
    def fault(self, kind: str, target: str) -> Iterator[None]:
        """Note a fault for the length of a block."""
        window = Window(kind, target, time.time())
        self.faults.append(window)
        self.trace("fault begins", kind=kind, target=target)
        try:
            yield
        finally:
            window.end = time.time()
            self.trace("fault ends", kind=kind, target=target)

    def stood_still(self, start: float, end: float) -> None:
        """Note that this process's own loop stood still, which delays what is sent to it and noted by it."""
        self.faults.append(Window("stood still", HARNESS, start, end))
        self.trace("stood still", start=start, end=end)

    @property
    def acked(self) -> int:
        return sum(1 for send in self.sends if send.seq is not None)
