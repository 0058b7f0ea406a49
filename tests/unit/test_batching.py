"""The batcher: every item gets its result or an exception, whatever ends its batch."""

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar

import pytest

from app.runtime import batching
from app.runtime.batching import Batcher


class Answering:
    """Answers batches as the test has it; counts them."""

    def __init__(self):
        self.batches = []
        self.go_on = asyncio.Event()

    async def __call__(self, questions):
        self.batches.append(questions)
        await self.go_on.wait()
        return [question * 10 for question in questions]


@pytest.fixture
def answering():
    return Answering()


@pytest.fixture
def batcher(answering):
    return Batcher(answering, lambda _: None, max_batch=2)


async def results(asked):
    async with asyncio.timeout(5):
        return await asyncio.gather(*asked, return_exceptions=True)


def kinds(found):
    return [type(one) for one in found]


async def test_all_are_answered_in_batches(batcher, answering):
    asked = [batcher.submit(n) for n in range(5)]
    answering.go_on.set()
    assert await results(asked) == [0, 10, 20, 30, 40]
    assert answering.batches == [[0, 1], [2, 3], [4]]


async def test_a_task_that_is_cancelled_leaves_nobody_waiting_and_the_next_are_answered(batcher, answering):
    asked = [batcher.submit(n) for n in range(5)]
    await asyncio.sleep(0)
    assert answering.batches == [[0, 1]]
    batcher._task.cancel()
    assert kinds(await results(asked)) == [TimeoutError] * 5
    answering.go_on.set()
    assert await results([batcher.submit(7)]) == [70]


async def test_a_task_that_is_cancelled_before_its_first_step_leaves_nobody_waiting(batcher, answering):
    asked = [batcher.submit(n) for n in range(3)]
    batcher._task.cancel()
    assert kinds(await results(asked)) == [TimeoutError] * 3
    answering.go_on.set()
    assert await results([batcher.submit(7)]) == [70]


async def test_a_batch_whose_own_wait_is_cancelled_is_raised_and_the_others_are_asked():
    async def ask(questions):
        if 0 in questions:
            raise asyncio.CancelledError
        return questions

    batcher = Batcher(ask, lambda _: None, max_batch=1)
    assert kinds(await results([batcher.submit(0), batcher.submit(1)])) == [TimeoutError, int]


async def test_too_few_answers_are_raised_for_all():
    async def ask(questions):
        return questions[1:]

    assert kinds(await results([Batcher(ask, lambda _: None).submit(n) for n in range(2)])) == [ValueError] * 2


async def test_a_batch_that_takes_too_long_is_raised(answering):
    batcher = Batcher(answering, lambda _: None, timeout=0.01)
    assert kinds(await results([batcher.submit(1)])) == [TimeoutError]


async def test_no_more_than_a_number_of_questions_wait(batcher, answering, monkeypatch):
    monkeypatch.setattr(batching, "MAX_WAITING", 3)
    asked = [batcher.submit(n) for n in range(5)]
    answering.go_on.set()
    assert kinds(await results(asked)) == [int, int, int, TimeoutError, TimeoutError]


async def test_who_gives_up_waiting_takes_nothing_from_the_others(batcher, answering):
    asked = [batcher.submit(n) for n in range(3)]
    await asyncio.sleep(0)
    asked[0].cancel()
    answering.go_on.set()
    assert await results(asked[1:]) == [10, 20]


async def test_a_recorded_item_is_a_step_of_its_caller_until_it_has_its_result(answering, monkeypatch):
    current, ended = ContextVar("current", default="nothing"), []

    @contextmanager
    def step(item):
        before = current.set(f"{current.get()}/{item}")
        try:
            yield
        finally:
            ended.append(current.get())
            current.reset(before)

    monkeypatch.setattr(batching.tracing, "is_on", lambda: True)
    batcher = Batcher(answering, step)
    current.set("caller")
    asked = [batcher(1), batcher(2)]
    assert (current.get(), ended) == ("caller", [])
    answering.go_on.set()
    assert await results(asked) == [10, 20]
    assert ended == ["caller/1", "caller/2"]
