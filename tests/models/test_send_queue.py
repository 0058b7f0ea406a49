"""The send queue over a database that does whatever it likes, beside a model of what must hold.

A machine decides the order of everything: what is sent and taken back, when a statement gets its connection, is
executed and answered, which heads are held, what fails, and when all ends.
"""

import asyncio
import os
from collections import defaultdict
from datetime import UTC, datetime
from unittest import mock
from uuid import UUID

import asyncpg
import pytest
from clockwork import Clockwork
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from hypothesis.strategies import floats, integers, lists, none, sampled_from, tuples

from app.contract import ids
from app.contract.errors import ServiceUnavailable
from app.messages import send_queue
from app.messages.send_queue import SendQueue
from app.messages.submissions import Submission
from app.messages.writer import Stored, Written
from app.postgres import database
from app.postgres.errors import TRY_AGAIN
from app.postgres.message_rows import NewMessage
from app.runtime.supervisor import supervised

# Small, so that all of them are reached.
LIMITS = {"MAX_BATCH": 5, "MAX_WAITING": 30, "MAX_WAITING_BYTES": 6_000, "BATCHES": 2, "LINES": 2}
CONVERSATIONS = [UUID(int=number) for number in range(1, 6)]
STRANGER = "stranger"
AT = datetime(2026, 1, 1, tzinfo=UTC)
BAD = "a bad row"
# What undoes a statement: some of it is tried again, and some may be the fault of one message.
FAILURES = [
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.RaiseError,
    asyncpg.DivisionByZeroError,
    OSError,
]


class Sent(Submission):
    """A message, and what came of it."""

    def __init__(self, machine: "Sending", message: NewMessage, echoes: int) -> None:
        super().__init__(message)
        self.machine = machine
        self.echoes = echoes
        # Its place among all that were taken, and when that was.
        self.place = -1
        self.put_at = machine.loop.now
        self.seq: int | None = None
        self.is_answered = False
        # Whether a statement found its conversation held.
        self.is_held = False
        # Whether a statement with it came to an end that tells nothing.
        self.is_unknown = False

    def answer(self, stored: Stored | None, error: Exception | None) -> None:
        self.machine.on_answer(self, stored, error)


class Statement:
    """One statement, which goes on when the machine says so."""

    def __init__(self, *, waits: bool) -> None:
        loop = asyncio.get_running_loop()
        self.waits = waits
        self.task = asyncio.current_task()
        self.connected: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[Written] = loop.create_future()
        self.sent: list[Sent] = []
        self.is_executed = False
        self.outcome: Written | Exception | None = None

    def conversations(self) -> set[UUID]:
        return {sent.message.conversation_id for sent in self.sent}


def is_under_way(statement: Statement) -> bool:
    return bool(statement.sent) and not statement.is_executed and not statement.done.done()


def is_executed(statement: Statement) -> bool:
    return statement.is_executed and not statement.done.done()


class FakeDatabase:
    """Runs statements as PostgreSQL would, each at the machine's pace."""

    def __init__(self, machine: "Sending") -> None:
        self.machine = machine
        self.running: list[Statement] = []
        self.locked: set[UUID] = set()
        self.stored: dict[UUID, list[Sent]] = defaultdict(list)
        self.failing: asyncio.Event | None = None

    async def run_forever(self) -> None:
        self.failing = asyncio.Event()
        await self.failing.wait()
        raise RuntimeError("the pool failed")

    async def write(self, collect, *, waits: bool) -> Written:
        statement = Statement(waits=waits)
        self.running.append(statement)
        self.machine.note(self.count, statement)
        try:
            await statement.connected
            statement.sent = [self.machine.by_id[message.id] for message in collect()]
            if not statement.sent:
                return Written({}, set())
            self.machine.note(self.check, statement)
            return await statement.done
        except asyncio.CancelledError:
            for sent in statement.sent:
                sent.is_unknown = True
            raise
        finally:
            self.running.remove(statement)

    def count(self, statement: Statement) -> None:
        kind = [other for other in self.running if other.waits is statement.waits]
        assert len(kind) <= LIMITS["LINES" if statement.waits else "BATCHES"], "too many statements"

    def check(self, statement: Statement) -> None:
        assert len(statement.sent) <= LIMITS["MAX_BATCH"]
        assert not any(sent.is_abandoned for sent in statement.sent), "what was abandoned is written"
        assert not any(sent.is_answered for sent in statement.sent), "what was answered is written"
        assert statement.waits or not any(sent.is_held for sent in statement.sent), "held, and not waited for"
        for sent in statement.sent:
            sent.is_held = False
        named = [(*sent.message[1:3], sent.message.client_message_id) for sent in statement.sent]
        named = [name for name in named if name[2] is not None]
        assert len(named) == len(set(named)), "two under one id in one statement"
        assert not statement.waits or len(statement.conversations()) == 1
        for other in self.running:
            # One that a pool which has failed left behind is cancelled by nobody.
            if other is not statement and not any(sent.is_answered for sent in other.sent):
                assert statement.conversations().isdisjoint(other.conversations()), "two statements at once"

    def can_execute(self, statement: Statement) -> bool:
        is_free = not statement.waits or statement.conversations().isdisjoint(self.locked)
        return is_free and is_under_way(statement)

    def execute(self, statement: Statement) -> None:
        """Run a statement and commit it; its answer is still to come."""
        statement.is_executed = True
        if any(sent.message.content == BAD for sent in statement.sent):
            statement.outcome = asyncpg.CharacterNotInRepertoireError("bad")
            return
        statement.outcome = Written({}, statement.conversations() - self.locked)
        for place, sent in enumerate(statement.sent):
            message = sent.message
            stored = self.stored[message.conversation_id]
            if message.conversation_id in self.locked or message.sender_id == STRANGER or self.first(message):
                continue
            assert sent.seq is None, "stored twice"
            assert not stored or stored[-1].place < sent.place, "stored out of order"
            stored.append(sent)
            sent.seq = len(stored)
            statement.outcome.stored[place] = Stored(sent.seq, AT, is_revealing=False)

    def first(self, message: NewMessage) -> Sent | None:
        """Find what was stored before under the same id."""
        if message.client_message_id is None:
            return None
        name = (message.sender_id, message.client_message_id)
        stored = self.stored[message.conversation_id]
        return next(
            (sent for sent in stored if (sent.message.sender_id, sent.message.client_message_id) == name), None
        )


class Sending(RuleBasedStateMachine):
    """Everything that may happen to the queue, in any order."""

    queue_class = SendQueue

    def __init__(self) -> None:
        super().__init__()
        self.patch = mock.patch.multiple(send_queue, **LIMITS)
        self.patch.start()
        self.loop = Clockwork()
        self.by_id: dict[UUID, Sent] = {}
        self.sent: list[Sent] = []
        self.last_answered: dict[UUID, int] = {}
        self.database = FakeDatabase(self)
        self.is_over = False
        self.failures: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(repr(context)))
        self.task = self.loop.create_task(self.run())
        self.loop.turn(5)

    async def run(self) -> None:
        async with supervised() as supervisor:
            self.stopping = asyncio.Event()
            self.queue = self.queue_class(self.database, supervisor)
            supervisor.loop("send queue", self.queue.run_forever)
            await self.stopping.wait()

    # What callers do

    @rule(
        burst=lists(
            tuples(
                sampled_from(CONVERSATIONS),
                sampled_from(["anna", "anna", "ben", STRANGER]),
                none() | sampled_from(["once", "twice"]),
                sampled_from(["x"] * 20 + ["y" * 1500, BAD]),
                integers(0, 2),
            ),
            min_size=1,
            max_size=6,
        ),
        turns=integers(1, 4),
    )
    def put(self, burst, turns) -> None:
        self.loop.call_soon(lambda: [self.put_one(*one) for one in burst])
        self.loop.turn(turns)

    def put_one(self, conversation_id, sender, name, content, echoes) -> None:
        fingerprint = None if name is None else b"x"
        message = NewMessage(ids.new_id(), conversation_id, sender, content, "[]", name, fingerprint, 0)
        sent = Sent(self, message, echoes)
        self.by_id[message.id] = sent
        waiting = [other for other in self.sent if not other.is_answered]
        weight = sum(other.weight for other in waiting) + sent.weight
        try:
            self.queue.submit(sent)
        except ServiceUnavailable:
            is_full = len(waiting) >= LIMITS["MAX_WAITING"] or weight > LIMITS["MAX_WAITING_BYTES"]
            assert is_full or not self.queue._is_open, "refused for nothing"
            return
        waiting = [other for other in waiting if not other.is_abandoned]
        assert len(waiting) < LIMITS["MAX_WAITING"], "too many are taken"
        assert sum(other.weight for other in waiting) + sent.weight <= LIMITS["MAX_WAITING_BYTES"]
        sent.place = len(self.sent)
        self.sent.append(sent)

    @precondition(lambda self: self.sent)
    @rule(number=integers(0, 100))
    def abandon(self, number) -> None:
        self.sent[-1 - number % len(self.sent)].abandon()

    def on_answer(self, sent: Sent, stored: Stored | None, error: Exception | None) -> None:
        self.note(self._on_answer, sent, stored, error)

    def note(self, work, *arguments) -> None:
        """Keep what fails where the queue would only log it."""
        try:
            work(*arguments)
        except AssertionError as failure:
            self.failures.append(str(failure))

    def _on_answer(self, sent: Sent, stored: Stored | None, error: Exception | None) -> None:
        conversation_id = sent.message.conversation_id
        assert not sent.is_answered, "answered twice"
        assert not sent.is_abandoned or stored is not None, "what was abandoned is answered for nothing"
        assert self.last_answered.get(conversation_id, -1) < sent.place, "answered out of order"
        self.last_answered[conversation_id] = sent.place
        sent.is_answered = True
        if stored is not None:
            assert sent.seq == stored.seq, "answered with what is not stored"
        elif error is None:
            is_refused = sent.message.sender_id == STRANGER or self.database.first(sent.message)
            assert sent.seq is None, "what is stored is answered as refused"
            assert is_refused, "refused for nothing"
        else:
            assert sent.seq is None or sent.is_unknown or not self.queue._is_open, "what is stored fails"
            is_bad = isinstance(error, asyncpg.CharacterNotInRepertoireError)
            assert is_bad <= (sent.message.content == BAD), "fails for another's fault"
            is_late = self.loop.now - sent.put_at >= database.DEADLINE
            assert is_late or not isinstance(error, TRY_AGAIN), "is not tried again"
        if sent.echoes:
            # Who is answered speaks again, at once.
            message = sent.message
            self.put_one(conversation_id, message.sender_id, message.client_message_id, "again", sent.echoes - 1)

    # What the event loop and the clock do

    @rule(times=integers(1, 4))
    def turn(self, times) -> None:
        self.loop.turn(times)

    @rule(seconds=floats(0.01, 6.0))
    def wait(self, seconds) -> None:
        self.loop.now += seconds
        self.loop.turn()

    # What PostgreSQL does

    @precondition(lambda self: self.database.running)
    @rule(
        steps=lists(
            tuples(integers(0, 7), sampled_from(range(20)), sampled_from(FAILURES), integers(0, 4)),
            min_size=1,
            max_size=8,
        )
    )
    def go_on(self, steps) -> None:
        """Let statements take their next steps; with bad luck one fails there."""
        for number, luck, failure, turns in steps:
            if self.database.running:
                self.step(self.database.running[number % len(self.database.running)], luck, failure)
            self.loop.turn(turns)

    def step(self, statement: Statement, luck: int, failure: type[Exception]) -> None:
        if not statement.connected.done():
            if luck == 0:
                statement.connected.set_exception(failure("away"))
            else:
                statement.connected.set_result(None)
        elif is_executed(statement):
            (self.lose if luck == 0 else self.reply)(statement)
        elif self.database.can_execute(statement) and luck > 0:
            self.database.execute(statement)
            if luck == 1:
                self.lose(statement)
            elif luck == 2:
                statement.task.cancel()
            elif luck > 4:
                self.reply(statement)
        elif is_under_way(statement) and luck == 0:
            statement.done.set_exception(failure("failed"))

    def reply(self, statement: Statement) -> None:
        if isinstance(statement.outcome, Exception):
            statement.done.set_exception(statement.outcome)
        else:
            for sent in statement.sent:
                sent.is_held = sent.message.conversation_id not in statement.outcome.locked
            statement.done.set_result(statement.outcome)

    def lose(self, statement: Statement) -> None:
        """Lose the connection after the commit."""
        for sent in statement.sent:
            sent.is_unknown = True
        statement.done.set_exception(asyncpg.ConnectionDoesNotExistError("lost"))

    @rule(conversation_id=sampled_from(CONVERSATIONS))
    def lock_or_unlock(self, conversation_id) -> None:
        self.database.locked ^= {conversation_id}

    # What ends

    @precondition(lambda self: self.database.running)
    @rule(number=sampled_from(range(12)))
    def cancel(self, number) -> None:
        if number < len(self.database.running):
            self.database.running[number].task.cancel()

    @rule(what=sampled_from([None] * 40 + ["stop", "fail"]))
    def end(self, what) -> None:
        if what == "stop":
            self.stopping.set()
            self.is_over = True
        elif what == "fail":
            self.database.failing.set()

    # What must hold

    @invariant()
    def nothing_failed(self) -> None:
        assert self.failures == []

    def drain(self) -> None:
        """Let PostgreSQL do all that it can."""
        for _ in range(400):
            self.loop.now += 0.05
            self.loop.turn(3)
            for statement in list(self.database.running):
                if not statement.connected.done():
                    statement.connected.set_result(None)
                elif self.database.can_execute(statement):
                    self.database.execute(statement)
                if statement.is_executed and not statement.done.done():
                    self.reply(statement)
            if self.queue._is_open and not self.queue._conversations and not self.database.running:
                break
        self.loop.turn(3)

    def unanswered(self) -> list[Sent]:
        return [sent for sent in self.sent if not sent.is_answered and not sent.is_abandoned]

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.stopping.set()
            for _ in range(20):
                self.loop.turn()
                self.loop.now += 1
            self.patch.stop()
            self.loop.close()
        assert self.task.done()
        self.task.result()
        assert self.unanswered() == [], "the end leaves somebody unanswered"
        assert self.failures == []

    def finish(self) -> None:
        if self.failures:
            return
        self.drain()
        held = {sent.message.conversation_id for sent in self.unanswered()}
        assert held <= self.database.locked, "what is free waits for what is held"
        self.database.locked.clear()
        self.drain()
        assert self.unanswered() == [], "somebody is not answered"
        if not self.is_over:
            queue = self.queue
            counts = (queue._count, queue._bytes, queue._count_ready, queue._count_in_batches)
            assert counts == (0, 0, 0, 0)
            assert (queue._batches, queue._lines, queue._conversations) == (0, 0, {})


@pytest.fixture
def machine():
    found = Sending()
    yield found
    found.teardown()


def test_a_lone_message_waits_for_nobody(machine):
    machine.put([(CONVERSATIONS[0], "anna", None, "x", 0)], turns=3)
    assert [statement.waits for statement in machine.database.running] == [False]
    assert machine.loop.now == 0


def test_what_comes_while_its_conversation_is_written_is_stored_after_what_waits_there(machine):
    first, *others, last = CONVERSATIONS
    say = [(one, "anna", None, "x", 0) for one in (last, first, *others, first)]
    # One batch is under way, and the other takes the first of what comes at once.
    machine.put(say[:1], turns=1)
    machine.put(say[1:], turns=4)
    for statement in machine.database.running:
        statement.connected.set_result(None)
    machine.loop.turn(3)
    second = machine.database.running[1]
    machine.put(say[1:2], turns=1)
    machine.database.execute(second)
    machine.reply(second)
    machine.loop.turn(3)
    machine.finish()
    assert [sent.place for sent in machine.database.stored[first]] == [1, 5, 6]


@pytest.mark.timeout(0)
def test_whatever_happens_each_message_is_answered_once_and_stored_in_order():
    profile = os.environ.get("HYPOTHESIS_PROFILE", "models")
    run_state_machine_as_test(Sending, settings=settings.get_profile(profile))
