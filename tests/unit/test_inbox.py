import asyncio

from app.realtime.inbox import MAX_WAITING, MAX_WITH_WRITER, Inbox


async def test_messages_come_out_in_the_order_in_which_they_came():
    inbox = Inbox()
    for number in range(3):
        inbox.put(str(number))
    assert [await inbox.next() for _ in range(4)] == ["0", "1", "2", None]


def test_more_than_may_wait_is_told():
    inbox = Inbox()
    assert [inbox.put("x") for _ in range(MAX_WAITING + 1)] == [False] * MAX_WAITING + [True]


async def test_what_is_answered_early_waits_for_what_came_before():
    inbox, answered = Inbox(), []
    first, third = asyncio.get_running_loop().create_future(), asyncio.get_running_loop().create_future()
    inbox.answer(first, answered.append)
    inbox.answer("second", answered.append)
    inbox.answer(third, answered.append)
    third.set_result("third")
    await asyncio.sleep(0)
    assert answered == []
    first.set_result("first")
    await inbox.settle()
    await asyncio.sleep(0)
    assert answered == ["first", "second", "third"]
    inbox.answer("at once", answered.append)
    assert answered[-1] == "at once"
    assert inbox.is_empty


async def test_the_next_turn_waits_while_too_much_is_with_the_writer():
    inbox = Inbox()
    futures = [asyncio.get_running_loop().create_future() for _ in range(MAX_WITH_WRITER)]
    for future in futures:
        inbox.answer(future, lambda _: None)
    inbox.put("next")
    turn = asyncio.ensure_future(inbox.next())
    await asyncio.sleep(0)
    assert not turn.done()
    futures[0].set_result(None)
    assert await turn == "next"
