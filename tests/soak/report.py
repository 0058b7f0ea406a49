"""What the person at the terminal sees: a line now and then, and the report."""

import time
from collections import Counter, defaultdict

import psutil  # type: ignore[import-untyped]

from soak.checks import MEMORY_BOUND
from soak.journal import Journal
from soak.world import World

MIB = 1 << 20


class Progress:
    """A line every few seconds; samples the memory of the processes as it goes."""

    def __init__(self, world: World, journal: Journal) -> None:
        self._world = world
        self._journal = journal
        self._began = time.monotonic()
        # RSS by process: one that was restarted is another.
        self.memory: dict[tuple[str, int], list[int]] = defaultdict(list)

    def sample(self) -> None:
        for member in self._world.members:
            process = member.process.process
            if process is None or process.returncode is not None:
                continue
            try:
                self.memory[member.name, process.pid].append(psutil.Process(process.pid).memory_info().rss)
            except psutil.NoSuchProcess:
                continue

    def show(self) -> None:
        now = time.time()
        under_way = [f"{fault.kind} of {fault.target}" for fault in self._journal.faults if fault.end > now]
        _say(
            f"{time.monotonic() - self._began:5.0f} s  {self._journal.operations.total():6} operations  "
            f"{self._journal.acked:6} messages acknowledged  {self._journal.deliveries:7} deliveries checked  "
            f"{len(self._journal.faults):4} faults  {sum(self._journal.violations_by_promise.values())} violations"
            + (f"  now: {', '.join(under_way)}" if under_way else "")
            + (f"  waiting: {self._journal.awaited}" if self._journal.awaited else "")
        )


def report(world: World, journal: Journal, progress: Progress, seed: int) -> None:
    """Print the figures, and what broke a promise."""
    _say("")
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for (operation, outcome), count in sorted(journal.operations.items()):
        outcomes[operation][outcome] += count
    for operation, counts in outcomes.items():
        _say(f"  {operation:16} " + ", ".join(f"{outcome} {count}" for outcome, count in counts.most_common()))
    faults = Counter(f"{fault.kind} ({_kind_of(fault.target)})" for fault in journal.faults)
    _say("  faults           " + ", ".join(f"{kind} {count}" for kind, count in faults.most_common()))
    _say(f"  messages         {len(journal.sends)} sent, {journal.acked} acknowledged")
    _say(f"  deliveries       {journal.deliveries} checked")
    _say(
        f"  connections      {journal.connects} made, {journal.refused_connects} tries in vain, "
        f"longest outage of a client {journal.longest_outage:.1f} s"
    )
    _say(f"  webhooks         {len(world.master.attempts)} attempts")
    for (name, _), samples in progress.memory.items():
        if len(samples) > 5:
            first, last, bound = samples[0] // MIB, samples[-1] // MIB, MEMORY_BOUND // MIB
            _say(f"  memory           {name}: {first} MiB at first, {last} MiB in the end, bound +{bound} MiB")
    for note in journal.notes:
        _say(f"  {note}")
    _say("")
    if not journal.violations:
        _say(f"No violation. Seed {seed}.")
        return
    for violation in journal.violations:
        _say(f"VIOLATION {violation}")
    _say("")
    for promise, count in journal.violations_by_promise.most_common():
        _say(f"  {count:5} times: {promise}")
    _say(
        f"{sum(journal.violations_by_promise.values())} violations. Seed {seed}. Logs and trace: {journal.folder}"
    )


def _kind_of(target: str) -> str:
    return target.translate(str.maketrans("", "", "-0123456789"))


def _say(line: str) -> None:
    print(line, flush=True)
