"""Soak the service: mixed work under random faults, every promise checked; exit code 1 on any violation.

Where the soak itself fails, which says nothing about the service, the exit code is 2.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from soak import checks
from soak.control import HarnessError, causes
from soak.faults import Faults
from soak.final import Final
from soak.journal import Journal
from soak.punctual import Punctual
from soak.report import Progress, report
from soak.told import Told
from soak.work import Work
from soak.world import World, running

SHOWN_EVERY = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long faults are made (600)")
    parser.add_argument("--seed", type=int, help="decides every random choice; made up and printed when left out")
    parser.add_argument("--keep", action="store_true", help="keep logs and trace also where nothing is wrong")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    # Not below a closed folder: root's PostgreSQL runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="chat-soak-"))
    folder.chmod(0o711)
    print(f"Seed {seed}; logs in {folder}", flush=True)
    journal = Journal(folder)
    is_broken = False
    try:
        asyncio.run(soak(journal, options.seconds, seed))
    except* HarnessError as errors:
        is_broken = True
        print(f"The harness fails, not the service: {causes(errors)}. Seed {seed}. Logs: {folder}", flush=True)
    finally:
        journal.close()
        for name in ("postgres", "valkey"):
            shutil.rmtree(folder / name, ignore_errors=True)
        if not (is_broken or journal.violations or options.keep or sys.exc_info()[0]):
            shutil.rmtree(folder)
    sys.exit(2 if is_broken else 1 if journal.violations else 0)


async def soak(journal: Journal, seconds: float, seed: int) -> None:
    """Run one soak; what it finds is in the journal. Ctrl-C ends the faults, and the checks follow."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        ended.set()
        # The second one ends it at once.
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    async with running(journal) as world:
        progress = Progress(world, journal)
        work = Work(world, journal, seed)
        await work.prepare()
        async with asyncio.TaskGroup() as group:
            showing = group.create_task(_show(progress))
            living = [group.create_task(person.live()) for person in work.people]
            working = [group.create_task(work.go_on(person)) for person in work.people]
            watching = group.create_task(Punctual(world, journal, work.people).watch())
            faults = Faults(world, journal, seed)
            breaking = group.create_task(faults.go_on())
            try:
                async with asyncio.timeout(seconds):
                    await ended.wait()
            except TimeoutError:
                pass
            faults.stop()
            for task in working:
                task.cancel()
            await breaking
            await _finish(world, journal, work, progress)
            for task in (*living, showing, watching):
                task.cancel()
        report(world, journal, progress, seed)


async def _finish(world: World, journal: Journal, work: Work, progress: Progress) -> None:
    final = Final(world, journal, work)
    for person in work.people:
        person.is_wanted.set()
    await final.come_to_rest()
    await final.compare()
    told = Told(world, journal, work)
    online = await told.close_tabs()
    await told.check_presence(online)
    await told.check_webhooks(online)
    progress.sample()
    for (name, _), samples in progress.memory.items():
        journal.found(checks.check_memory(name, samples))
    await final.stop_processes()


async def _show(progress: Progress) -> None:
    while True:
        progress.sample()
        progress.show()
        await asyncio.sleep(SHOWN_EVERY)


if __name__ == "__main__":
    main()
