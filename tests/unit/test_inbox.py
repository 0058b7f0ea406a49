import asyncio

import pytest

from app.realtime.inbox import MAX_WAITING, MAX_WITH_WRITER, Inbox, Reply


@pytest.fixture
def pushed():
    return []


@pytest.fixture
def inbox(pushed):
    return Inbox(lambda frame: pushed.append(frame.packet))


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
