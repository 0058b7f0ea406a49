import asyncio

import pytest

from app.realtime.engineio.inbox import (
    MAX_HELD_BACK,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    MAX_WITH_WRITER,
    Inbox,
    Reply,
)
from app.realtime.socketio.packets import acknowledgement


@pytest.fixture
def pushed():
    return []


@pytest.fixture
def inbox(pushed):
    return Inbox(lambda frame: pushed.append(frame.packet), acknowledgement)


def expected(inbox: Inbox, number: str) -> Reply:
    reply = Reply(number)
    inbox.expect(reply)
    return reply


async def test_messages_come_out_in_the_order_in_which_they_came(inbox):
    for number in range(3):
        inbox.put(str(number))
    assert [await inbox.next() for _ in range(4)] == ["0", "1", "2", None]


def test_more_than_may_wait_is_told(inbox):
    assert [inbox.put("x") for _ in range(MAX_WAITING + 1)] == [False] * MAX_WAITING + [True]


async def test_what_is_answered_early_waits_for_what_came_before(inbox, pushed):
    first, second, third = (expected(inbox, number) for number in ("1", "", "3"))
    settled = asyncio.ensure_future(inbox.settle())
    inbox.answer(third, b"3")
    inbox.answer(second, b"2")
    await asyncio.sleep(0)
    assert pushed == []
    assert not inbox.is_settled
    inbox.answer(first, b"1")
    await settled
    assert pushed == [b"31[1]", b"33[3]"]
    assert inbox.is_empty


async def test_the_next_turn_waits_while_too_much_is_with_the_writer(inbox):
    replies = [expected(inbox, "") for _ in range(MAX_WITH_WRITER)]
    assert not inbox.has_room
    inbox.put("next")
    turn = asyncio.ensure_future(inbox.next())
    await asyncio.sleep(0)
    assert not turn.done()
    inbox.answer(replies[0], b"{}")
    assert await turn == "next"


@pytest.mark.parametrize("message", ["x" * 1000, "\N{GRINNING FACE}" * 250, b"x" * 1000])
def test_more_than_may_wait_in_bytes_is_told(inbox, message):
    count = next(number for number in range(1, 1000) if inbox.put(message))
    assert count * (1000 + 100) > MAX_WAITING_BYTES
    assert (count - 1) * 1000 <= MAX_WAITING_BYTES


async def test_what_was_taken_out_weighs_nothing(inbox):
    for _ in range(1000):
        assert not inbox.put("x" * 1000)
        await inbox.next()
    assert inbox._waiting_bytes == 0


async def test_the_next_turn_waits_while_too_much_waits_to_be_acknowledged(inbox, pushed):
    slow, quick = expected(inbox, "1"), expected(inbox, "2")
    inbox.answer(quick, b"x" * MAX_HELD_BACK)
    inbox.put("next")
    turn = asyncio.ensure_future(inbox.next())
    await asyncio.sleep(0)
    assert not turn.done()
    inbox.answer(slow, b"{}")
    assert await turn == "next"
    assert len(pushed) == 2
    assert inbox.has_room
    assert inbox._held_back == 0


async def test_a_rest_ends_in_time_or_with_the_session(inbox):
    loop = asyncio.get_running_loop()
    inbox.put("next")
    inbox.rests_until = loop.time() + 0.01
    assert await inbox.next() == "next"
    assert loop.time() >= inbox.rests_until
    inbox.put("never")
    inbox.rests_until = loop.time() + 3600
    turn = asyncio.ensure_future(inbox.next())
    await asyncio.sleep(0)
    assert not turn.done()
    inbox.discard()
    assert await turn is None


async def test_a_backlog_is_taken_out_in_its_order(inbox):
    for number in range(100_000):
        inbox.put(str(number))
    assert [await inbox.next() for _ in range(100_000)] == [str(number) for number in range(100_000)]
