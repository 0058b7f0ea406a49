"""What may take so long and no longer: all deadlines stand on one timer."""

import asyncio

import asyncpg
import pytest

from app.contract.errors import ServiceUnavailable
from app.postgres.database import Deadline, Deadlines

SOON = 0.02


async def within(deadlines: Deadlines, work) -> str:
    async with Deadline(deadlines):
        await work
    return "done"


async def test_what_takes_too_long_is_ended_and_what_does_not_is_not():
    deadlines, quick = Deadlines(SOON), asyncio.Event()
    slow = [asyncio.create_task(within(deadlines, asyncio.Event().wait())) for _ in range(3)]
    done = asyncio.create_task(within(deadlines, quick.wait()))
    await asyncio.sleep(0)
    quick.set()
    assert await done == "done"
    ended = await asyncio.gather(*slow, return_exceptions=True)
    assert [type(error) for error in ended] == [ServiceUnavailable] * 3
    assert deadlines == {}


async def test_what_begins_later_is_ended_too():
    deadlines = Deadlines(SOON)
    first = asyncio.create_task(within(deadlines, asyncio.Event().wait()))
    # Half-way to the end of the first, whose timer is the only one.
    await asyncio.sleep(SOON / 2)
    second = asyncio.create_task(within(deadlines, asyncio.Event().wait()))
    ended = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(error) for error in ended] == [ServiceUnavailable] * 2
    with pytest.raises(ServiceUnavailable):
        await within(deadlines, asyncio.Event().wait())


async def test_a_task_that_was_ended_may_go_on():
    deadlines = Deadlines(SOON)
    with pytest.raises(ServiceUnavailable):
        await within(deadlines, asyncio.Event().wait())
    assert asyncio.current_task().cancelling() == 0
    assert await within(deadlines, asyncio.sleep(0)) == "done"


async def test_a_cancellation_by_somebody_else_stays_one():
    deadlines = Deadlines(60)
    task = asyncio.create_task(within(deadlines, asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert deadlines == {}


async def test_of_errors_those_that_say_that_postgresql_is_away_become_one_that_clients_know():
    deadlines = Deadlines(60)

    async def fail(error):
        raise error

    for away in (ConnectionRefusedError(), TimeoutError(), asyncpg.CannotConnectNowError("starting up")):
        with pytest.raises(ServiceUnavailable):
            await within(deadlines, fail(away))
    with pytest.raises(ZeroDivisionError):
        await within(deadlines, fail(ZeroDivisionError()))
    assert deadlines == {}
