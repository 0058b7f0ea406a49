"""Supervised background loops: one that fails is logged, counted and started again."""

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from app.observability import metrics

RESTART_DELAY = 1.0
# A loop that ran for so many seconds has recovered: its next failure is logged again.
RECOVERED_AFTER = 10.0
CANCEL_INTERVAL = 0.5

_log = logging.getLogger(__name__)


class Supervisor:
    """Keeps loops running in a TaskGroup that the process owns."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        # Each with the coroutine that it runs once, if any.
        self._tasks: dict[asyncio.Task[None], Coroutine[Any, Any, None] | None] = {}
        self._is_over = False

    def loop(
        self, name: str, work: Callable[[], Awaitable[None]], expected: tuple[type[BaseException], ...] = ()
    ) -> None:
        """Run a loop that is started again, a second later, when it fails; an expected error is logged once."""

        async def run() -> None:
            is_logged = False
            while True:
                started = time.monotonic()
                try:
                    await work()
                except expected as error:
                    is_logged = is_logged and time.monotonic() - started < RECOVERED_AFTER
                    if not is_logged:
                        _log.warning("the loop %s waits: %s", name, str(error) or type(error).__name__)
                    is_logged = True
                except Exception:  # noqa: BLE001 - it is logged, and the loop must go on
                    _log.exception("the loop %s failed, it starts again", name)
                    metrics.of(metrics.LOOP_FAILURES, name).inc()
                await asyncio.sleep(RESTART_DELAY)

        self._tasks[self._group.create_task(run(), name=name)] = None

    def once(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background, unless all ends; a failure is logged and harms nothing else."""
        if self._is_over:
            work.close()
            return

        async def run() -> None:
            try:
                await work
            except Exception:  # noqa: BLE001 - it is logged, and is nobody else's failure
                _log.exception("%s failed", name)

        task = self._group.create_task(run(), name=name)
        self._tasks[task] = work
        task.add_done_callback(self._tasks.pop)

    def cancel(self) -> None:
        """End all loops; the TaskGroup waits for them."""
        self._is_over = True
        for task, work in list(self._tasks.items()):
            task.cancel()
            if work is not None and inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
                # A task that has not begun never will.
                work.close()


@asynccontextmanager
async def supervised() -> AsyncIterator[Supervisor]:
    """Run background loops for the length of a block."""
    ending = None
    try:
        async with asyncio.TaskGroup() as group:
            supervisor = Supervisor(group)
            try:
                yield supervisor
            finally:
                ending = asyncio.create_task(_cancel(supervisor))
    finally:
        if ending is not None:
            ending.cancel()


async def _cancel(supervisor: Supervisor) -> None:
    """Cancel the loops for as long as they run."""
    while True:
        supervisor.cancel()
        # Before Python 3.12 `asyncio.wait_for`, which redis-py sends in, may lose a cancellation.
        await asyncio.sleep(CANCEL_INTERVAL)
