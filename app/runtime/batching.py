"""A batcher: items that come while a batch is under way are collected, and go as the next batch.

A lone item waits for nobody. With a pause, an item that comes right after a batch waits for it, so that a crowd of
callers costs few batches.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from app.observability import tracing

Q = TypeVar("Q")
A = TypeVar("A")

# A batch that takes longer is given up, in seconds: those that wait behind it must not hang with it.
TIMEOUT = 5.0
# The pause between batches of connects: none notices it, and a crowd that reconnects costs few batches.
CONNECT_PAUSE = 0.004
# No more items than this may wait; one more fails at once with TimeoutError.
MAX_WAITING = 100_000

_GIVEN_UP = "the batch was given up"


class Batcher(Generic[Q, A]):
    """Runs items in batches; `run` gives a result for each item, in their order, or an exception in its place.

    `span` records an item in the trace of its caller; `pause` is the seconds between two batches. Every item gets
    its result or an exception, whatever ends its batch.
    """

    def __init__(
        self,
        run: Callable[[list[Q]], Awaitable[list[A]]],
        span: Callable[[Q], AbstractContextManager[Any]],
        max_batch: int = 128,
        timeout: float = TIMEOUT,
        pause: float = 0.0,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._timeout = timeout
        self._pause = pause
        self._span = span
        # Tracing is switched on before anything is built.
        self._is_traced = tracing.is_on()
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a batch is under way, or items wait."""
        return self._task is not None

    def __call__(self, item: Q) -> asyncio.Future[A]:
        """Submit an item, recorded in the trace of the caller."""
        result = self.submit(item)
        if self._is_traced:
            self._record(item, result)
        return result

    def submit(self, item: Q) -> asyncio.Future[A]:
        """Submit an item without a trace; results come in the order of the items."""
        result: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= MAX_WAITING:
            result.set_exception(TimeoutError("too many items wait for a batch"))
            return result
        self._waiting.append((item, result))
        if self._task is None:
            # A context of its own: a batch is not part of the work of the first caller.
            self._task = asyncio.create_task(self._work(), context=contextvars.Context())
            self._task.add_done_callback(self._on_end)
        return result

    def _record(self, item: Q, result: asyncio.Future[A]) -> None:
        """Record an item until it has its result; the span is entered and left in the same context."""
        context = contextvars.copy_context()
        span = self._span(item)
        context.run(span.__enter__)

        def leave(result: asyncio.Future[A]) -> None:
            error = asyncio.CancelledError() if result.cancelled() else result.exception()
            span.__exit__(None if error is None else type(error), error, None)

        result.add_done_callback(leave, context=context)

    async def _work(self) -> None:
        task = self._task
        assert task is not None
        while self._waiting:
            batch, self._waiting = self._waiting[: self._max_batch], self._waiting[self._max_batch :]
            try:
                await self._run_batch(batch)
            except BaseException as error:
                _fail(batch, TimeoutError(_GIVEN_UP))
                # Where what it waited for was cancelled, and not this task, the next batches still run.
                if task.cancelling() or not isinstance(error, asyncio.CancelledError):
                    raise
            if self._pause:
                await asyncio.sleep(self._pause)
        self._task = None

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """Leave nobody waiting where the task was ended from outside, be it before its first step."""
        if self._task is not task:
            return
        self._task = None
        left, self._waiting = self._waiting, []
        _fail(left, TimeoutError(_GIVEN_UP))

    async def _run_batch(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                results = await self._run([item for item, _ in batch])
            pairs = list(zip(batch, results, strict=True))
        except Exception as error:  # noqa: BLE001 - it is raised where the items come from
            _fail(batch, error)
            return
        for (_, future), result in pairs:
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


def _fail(batch: list[tuple[Any, asyncio.Future[Any]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
