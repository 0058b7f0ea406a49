"""When receipts are sent: whatever fails meanwhile, the next one of the same reader is."""

import asyncio
from uuid import uuid4

import pytest
from pods import until
from redis.exceptions import ResponseError

from app.contract.events import Event
from app.delivery.receipts import Receipt, Receipts
from app.runtime.supervisor import supervised

CONVERSATION = uuid4()


class Turns:
    """Stands in for the script: gives or raises one after the other, then lets all through."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def __call__(self, **_):
        answer = self.answers.pop(0) if self.answers else 0
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Told:
    """Stands in for the fan-out: keeps what is sent."""

    def __init__(self):
        self.seqs = []

    def publish_to_room(self, _, event):
        self.seqs.append(int(event.data))


@pytest.fixture
async def sending():
    async with supervised() as supervisor:
        told = Told()

        def make(*answers):
            receipts = Receipts(None, told, supervisor)
            receipts._turn = Turns(*answers)
            return receipts, told

        yield make


def receipt(seq):
    return Receipt(CONVERSATION, "reader", seq, Event("message:read", b"%d" % seq), is_large=False)


async def sent(told, seqs):
    async def is_sent():
        return told.seqs == seqs

    await until(is_sent, f"{seqs} are sent")


async def test_of_those_that_wait_the_latest_is_sent_in_its_turn(sending):
    receipts, told = sending(5, 5, 0)
    for seq in (1, 3, 2):
        await receipts.announce(receipt(seq))
    assert told.seqs == []
    await sent(told, [3])
    assert receipts._waiting == {}


@pytest.mark.parametrize("error", [RuntimeError("a defect"), asyncio.CancelledError()])
async def test_after_a_failure_in_its_turn_the_next_of_the_same_reader_is_sent(sending, error):
    receipts, told = sending(5, error)
    await receipts.announce(receipt(1))

    async def is_free():
        return receipts._waiting == {} and receipts._turn.answers == []

    await until(is_free, "the failure")
    await receipts.announce(receipt(2))
    await sent(told, [2])


async def test_who_gives_up_while_it_is_asked_leaves_nothing_behind(sending):
    receipts, told = sending(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await receipts.announce(receipt(1))
    assert receipts._waiting == {}
    await receipts.announce(receipt(2))
    await sent(told, [2])


@pytest.mark.parametrize("answer", [ResponseError("MISCONF no disk"), OSError("gone"), "nonsense", None])
async def test_while_redis_is_of_no_use_each_is_sent_at_once(sending, answer):
    receipts, told = sending(answer)
    await receipts.announce(receipt(1))
    assert told.seqs == [1]
