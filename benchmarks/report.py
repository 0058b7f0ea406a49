"""The tables in Markdown and the picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure as Sheet

from benchmarks.comparison import Outcome
from benchmarks.scenarios import Figure

COLOURS = ("#9aa5b1", "#52606d", "#0b7a75")


@dataclass(frozen=True)
class Table:
    """A titled table; `note` stands below it."""

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    note: str

    def __str__(self) -> str:
        rows = [self.head, ["---", *["---:"] * (len(self.head) - 1)], *self.lines]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return f"## {self.title}\n\n{table}\n\n{self.note}\n"


def number(value: float) -> str:
    """Show three digits at least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def speed(outcomes: Sequence[Outcome]) -> Table:
    """Compare all sides; the service is the last of them."""
    *others, own = outcomes[0].measured
    lines = []
    for outcome in outcomes:
        for figure in outcome.scenario.figures:
            medians = {name: outcome.median(name, figure.value) for name in outcome.measured}
            ratios = [_ratio(figure, medians[own], medians[other]) for other in others]
            lines.append([figure.title, figure.unit, *map(number, medians.values()), *ratios])
    return Table(
        "Speed",
        ["scenario", "unit", *others, own, *(f"against {other}" for other in others)],
        lines,
        "Medians over the rounds. A ratio above 1 says that the service is better, by that factor.",
    )


def _ratio(figure: Figure, own: float, other: float) -> str:
    ratio = own / other if figure.higher_is_better else other / own
    return f"**{ratio:.2f}**"


def cost(outcomes: Sequence[Outcome]) -> Table:
    """Tell what one delivery, message or request takes of the server's core, however busy the machine is."""
    *others, own = outcomes[0].measured
    lines = []
    for outcome in outcomes:
        if not outcome.scenario.cost_of:
            continue
        costs = {name: outcome.cost(name) for name in outcome.measured}
        ratios = [f"**{costs[other] / costs[own]:.2f}**" for other in others]
        generator = max(max(outcome.values(name, "own_cpu")) for name in outcome.measured)
        title = outcome.scenario.figures[0].title
        lines.append([title, *map(number, costs.values()), *ratios, f"{generator:.0%}"])
    return Table(
        "Processor time of the server, in µs for one delivery, message, connect or request",
        ["scenario", *others, own, *(f"against {other}" for other in others), "load generator"],
        lines,
        "From the kernel's accounting. The last column is the most that the load generator took of a core.",
    )


def plot(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw one small chart per figure: medians as bars, the rounds as whiskers."""
    drawn = [(outcome, figure) for outcome in outcomes for figure in outcome.scenario.figures]
    columns = 4
    rows = -(-len(drawn) // columns)
    sheet = Sheet(figsize=(4 * columns, 2.6 * rows), layout="tight")
    axes = sheet.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(drawn) :]:
        axis.set_visible(False)
    for axis, (outcome, figure) in zip(axes.flat, drawn, strict=False):
        names = list(outcome.measured)
        medians = [outcome.median(name, figure.value) for name in names]
        rounds = [outcome.values(name, figure.value) for name in names]
        below = [median - min(values) for median, values in zip(medians, rounds, strict=True)]
        above = [max(values) - median for median, values in zip(medians, rounds, strict=True)]
        axis.barh(names, medians, xerr=[below, above], color=COLOURS, ecolor="#323f4b", capsize=2)
        axis.invert_yaxis()
        axis.set_title(figure.title, fontsize=9)
        axis.set_xlabel(figure.unit + ("" if figure.higher_is_better else " (less is better)"), fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    sheet.savefig(path, dpi=110)


def write(folder: Path, name: str, outcomes: Sequence[Outcome], machine: Sequence[str]) -> Path:
    """Write both files and give the path of the tables."""
    folder.mkdir(exist_ok=True)
    rounds = len(next(iter(outcomes[0].measured.values())))
    command = "make bench" if name == "quick" else "make bench-full"
    parts = [
        f"# Speed, by `{command}`\n",
        *(f"- {line}" for line in machine),
        f"- {rounds} rounds of each scenario, the sides in turn\n",
        *(str(table) for table in (speed(outcomes), cost(outcomes))),
        f"![The same as bars]({name}.png)\n",
    ]
    plot(outcomes, folder / f"{name}.png")
    written = folder / f"{name}.md"
    written.write_text("\n".join(parts))
    return written
