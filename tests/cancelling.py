"""Disturbs what a test does at one of the places where it waits."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import coroutine
from typing import Any


def cancelled_at(place: int, work: Awaitable[Any], *, is_late: bool = False) -> Awaitable[tuple[bool, Any]]:
    """Await something in the task that runs, which is cancelled at its n-th wait, as `disturbed_at` does it."""
    task = asyncio.current_task()
    assert task is not None
    return disturbed_at(place, work, task.cancel, is_late=is_late)


@coroutine
def disturbed_at(
    place: int, work: Awaitable[Any], disturb: Callable[[], Any], *, is_late: bool = False
) -> Generator[Any, Any, tuple[bool, Any]]:
    """Await something in the task that runs, and do something else at its n-th wait, counted from 0.

    With `is_late` what it waits for is there already, and not taken yet. Gives whether it waited so often, and
    what it came to.
    """
    waiting = work.__await__()
    waits = 0
    resume = lambda: next(waiting)  # noqa: E731 - it is what comes next
    while True:
        try:
            future = resume()
        except StopIteration as end:
            return waits > place, end.value
        if waits == place:
            if is_late and future is not None:
                future.add_done_callback(lambda _: disturb())
            else:
                disturb()
        waits += 1
        try:
            sent = yield future
        except BaseException as error:  # noqa: BLE001 - it is the other's
            resume = lambda error=error: waiting.throw(error)  # noqa: E731
        else:
            resume = lambda sent=sent: waiting.send(sent)  # noqa: E731


async def was_cancelled_at(place: int, work: Awaitable[Any], *, is_late: bool = False) -> tuple[bool, Any]:
    """The same, where the task goes on afterwards as if nothing had been."""
    task = asyncio.current_task()
    assert task is not None
    try:
        return await cancelled_at(place, work, is_late=is_late)
    except asyncio.CancelledError:
        return True, None
    finally:
        while task.cancelling():
            task.uncancel()
