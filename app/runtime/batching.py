"""Questions that are asked together: while some are under way the next ones gather, and go as one.

A lone question waits for nobody. Where there is a pause, whoever asks right after others waits for that, so that
many who come one after the other are asked for in few batches.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from app.observability import tracing

Q = TypeVar("Q")
A = TypeVar("A")

# A batch that takes longer is given up: those that wait behind it must not hang with it.
TIMEOUT = 5.0
# The pause in what every connect asks: none notices it, and a crowd that comes back shares what one would cost.
CONNECT_PAUSE = 0.004
# More questions than this may not wait; whoever asks one more is told at once that it takes too long.
MAX_WAITING = 100_000

_GIVEN_UP = "it was given up"


class Gathering(Generic[Q, A]):
    """Asks one thing of many; `ask` gives an answer for each question, in their order, or what to raise for it.

    `step` records a question in the trace of who asks; `pause` is the seconds between two batches. Every
    question is answered or raised, whatever ends its batch.
    """

    def __init__(
        self,
        ask: Callable[[list[Q]], Awaitable[list[A]]],
        step: Callable[[Q], AbstractContextManager[Any]],
        most: int = 128,
        timeout: float = TIMEOUT,
        pause: float = 0.0,
    ) -> None:
        self._ask = ask
        self._most = most
        self._timeout = timeout
        self._pause = pause
        self._step = step
        # Whoever wants traces has them before anything is built.
        self._is_traced = tracing.is_on()
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether something is asked, or waits to be."""
        return self._task is not None

    def __call__(self, question: Q) -> Awaitable[A]:
        """Ask; raises what asking raised, for all that were asked together."""
        answer = self.ask(question)
        return self._recorded(question, answer) if self._is_traced else answer

    def ask(self, question: Q) -> asyncio.Future[A]:
        """Ask, and leave no trace; answers come in the order of the questions."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= MAX_WAITING:
            answer.set_exception(TimeoutError("too many wait for the same"))
            return answer
        self._waiting.append((question, answer))
        if self._task is None:
            # A task of its own context: what is asked together is no part of the work of whoever asks first.
            self._task = asyncio.create_task(self._work(), context=contextvars.Context())
            self._task.add_done_callback(self._on_end)
        return answer

    async def _recorded(self, question: Q, answer: asyncio.Future[A]) -> A:
        with self._step(question):
            return await answer

    async def _work(self) -> None:
        task = self._task
        assert task is not None
        while self._waiting:
            together, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                await self._ask_together(together)
            except BaseException as error:
                _raise_in(together, TimeoutError(_GIVEN_UP))
                # Where what it waited for was cancelled, and not this task, the others are still asked.
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
        _raise_in(left, TimeoutError(_GIVEN_UP))

    async def _ask_together(self, together: list[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                answers = await self._ask([question for question, _ in together])
            pairs = list(zip(together, answers, strict=True))
        except Exception as error:  # noqa: BLE001 - it is raised where the questions come from
            _raise_in(together, error)
            return
        for (_, future), answer in pairs:
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def _raise_in(asked: list[tuple[Any, asyncio.Future[Any]]], error: Exception) -> None:
    for _, future in asked:
        if not future.done():
            future.set_exception(error)
