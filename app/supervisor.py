"""Background loops, each by its name: one that is fatal takes the process down, a tolerant one starts again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

RESTART_DELAY = 1.0

_log = logging.getLogger(__name__)


class Supervisor:
    """Keeps loops running in a TaskGroup that the process owns."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()

    def fatal(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop whose failure ends the process, because nothing works without it."""

        async def run() -> None:
            await loop()
            raise RuntimeError(f"the loop {name} ended")

        self._tasks.add(self._group.create_task(run(), name=name))

    def tolerant(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop that is started again, a second later, when it fails."""

        async def run() -> None:
            while True:
                try:
                    await loop()
                except Exception:  # noqa: BLE001 - it is logged, and the loop must go on
                    _log.exception("the loop %s failed, it starts again", name)
                await asyncio.sleep(RESTART_DELAY)

        self._tasks.add(self._group.create_task(run(), name=name))

    def once(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background; a failure is logged and harms nothing else."""

        async def run() -> None:
            try:
                await work
            except Exception:  # noqa: BLE001 - it is logged, and is nobody else's failure
                _log.exception("%s failed", name)

        task = self._group.create_task(run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """End all loops; the TaskGroup waits for them."""
        for task in list(self._tasks):
            task.cancel()
