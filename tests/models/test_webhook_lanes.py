"""Workers that claim, send, settle, stall and die in any order, beside a model of what the master may see.

The workers are the real ones over the real PostgreSQL; only the master is made up: each attempt stays in flight
until the machine answers it. A stall is played by moving the leases of a worker into the past.
"""

import asyncio
import os
from collections import defaultdict
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from app.config.settings import Settings
from app.contract import ids
from app.postgres.database import opened
from app.postgres.transactions import POOL, Row
from app.webhooks import outbox, queue
from app.webhooks.delivery import Outcome
from app.webhooks.worker import Worker

WORKERS = 2
SENDERS = 2
CONVERSATIONS = [UUID(int=(1 << 80) + number) for number in range(3)]
USERS = ["anna", "ben"]

# The more often a step stands here, the more often it is taken.
STEPS = ["append", "claim", "answer", "answer", "settle", "come or go", "claim", "answer"]
STEPS += ["append", "settle", "stall", "renew", "time passes", "kill", "leases end", "stall"]
# What happens to the next statement: it fails before or after PostgreSQL has carried it out.
FAULTS = st.sampled_from([None, None, "before", "after"])

APPEND = """
INSERT INTO webhooks (id, event, conversation_id, seq, user_id, created_at)
VALUES ($1, 'reaction.added', $2, $3, 'anna', now())
"""
STALL = """
UPDATE webhooks SET due_at = now() - interval '1 second' WHERE lease = ANY($1::uuid[]) RETURNING id
"""
# Of workers that are gone, or never learned what they had claimed.
ORPHANS = """
UPDATE webhooks SET due_at = now() - interval '1 second' WHERE lease IS NOT NULL AND lease <> ALL($1::uuid[])
RETURNING id
"""
DELIVERED = "SELECT id FROM webhooks WHERE state = 'delivered'"
ALL_DUE = (
    "UPDATE webhooks SET due_at = now() - interval '1 second' WHERE state IN ('new', 'due') AND lease IS NULL"
)


@dataclass(eq=False)
class Attempt:
    """A webhook on its way to the master; one that is `lost` is of a worker whose lease has ended."""

    row: Row
    answer: asyncio.Future
    worker: "Simulated"
    lost: bool = False


class Simulated:
    """A worker without its loops: the machine says when it claims, settles and renews."""

    def __init__(self, machine: "Lanes", config: Settings) -> None:
        self.machine = machine
        self.real = Worker(config, self)
        queues = [self.real._lanes] * SENDERS + [self.real._retries] * SENDERS
        self.senders = [machine.loop.create_task(self.real._send_forever(claimed)) for claimed in queues]
        # Probes, which end with their attempt.
        self.claims: set[asyncio.Task] = set()

    async def attempt(self, row: Row) -> Outcome:
        return await self.machine.started(Attempt(row, self.machine.loop.create_future(), self))

    @property
    def held(self) -> list[Row]:
        return list(self.real._leases._leased.values())

    async def claim(self) -> None:
        real = self.real
        async with real._claiming:
            await (real._probe() if real._breaker.is_open else real._claim())

    async def kill(self) -> None:
        for task in (*self.senders, *self.claims):
            task.cancel()
        await asyncio.gather(*self.senders, *self.claims, return_exceptions=True)


class Lanes(RuleBasedStateMachine):
    """What is appended reaches the master, in order and at least once."""

    config: Settings
    url: object

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.fault = None
        self.seqs = dict.fromkeys(CONVERSATIONS, 0)
        self.numbers = dict.fromkeys(USERS, 0)
        self.attempts: list[Attempt] = []
        self.in_flight: list[Attempt] = []
        self.seen: dict[UUID, set[int]] = defaultdict(set)
        self.delivered: set[UUID] = set()
        self.written: set[UUID] = set()
        self.broken: list[str] = []
        self.run(self.open())
        self.workers = [Simulated(self, self.config) for _ in range(WORKERS)]

    async def open(self) -> None:
        await self.stack.enter_async_context(opened(self.config.database_url))
        await POOL.rows("DELETE FROM webhooks")
        self.patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("settle", "renew", "release", "claim_lanes", "claim_due"):
            self.patch.setattr(queue, name, self.faulty(getattr(queue, name)))

    def faulty(self, statement):
        async def run(*values):
            fault, self.fault = self.fault, None
            if fault == "before":
                raise ConnectionResetError
            found = await statement(*values)
            if fault == "after":
                raise ConnectionResetError
            if statement.__name__ == "settle":
                self.written = {row["id"] for row in await POOL.rows(DELIVERED)}
            return found

        return run

    def run(self, work):
        return self.loop.run_until_complete(work)

    async def turn(self) -> None:
        """Let what can go on without PostgreSQL and the master go on."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def started(self, attempt: Attempt) -> Outcome:
        self.check(attempt)
        self.attempts.append(attempt)
        self.in_flight.append(attempt)
        try:
            outcome = await attempt.answer
        finally:
            self.in_flight.remove(attempt)
        return outcome

    def check(self, attempt: Attempt) -> None:
        row = attempt.row
        if row["id"] in self.written:
            self.broken.append(f"{row['seq']} is sent again, though it is written that it was delivered")
        if any(one.row["id"] == row["id"] and not one.lost for one in self.in_flight):
            self.broken.append(f"{row['seq']} is sent while it is under way")
        if row["conversation_id"] is None:
            self.check_presence(attempt)
            return
        seen = self.seen[row["conversation_id"]]
        if row["seq"] not in seen:
            if seen != set(range(1, row["seq"])):
                self.broken.append(f"{row['seq']} is first sent after {sorted(seen)}")
            if any(
                one.row["conversation_id"] == row["conversation_id"]
                and not one.lost
                and self.is_first(one)
                and one.row["seq"] < row["seq"]
                for one in self.in_flight
            ):
                self.broken.append(f"{row['seq']} is first sent before the one before it is answered")
        seen.add(row["seq"])

    def is_first(self, attempt: Attempt) -> bool:
        return all(one.row["id"] != attempt.row["id"] or one is attempt for one in self.attempts)

    def check_presence(self, attempt: Attempt) -> None:
        user_id, number = attempt.row["user_id"], attempt.row["seq"]
        for one in self.attempts:
            if one.row["conversation_id"] is None and one.row["user_id"] == user_id:
                if one.row["seq"] > number:
                    self.broken.append(f"the transition {number} is sent after {one.row['seq']}")
                if one in self.in_flight and not one.lost:
                    self.broken.append(f"the transition {number} is sent while {one.row['seq']} is under way")

    # What happens. All of it is one rule: of several, hypothesis leaves out most in any one run.

    @rule(
        what=st.sampled_from(STEPS),
        which=st.integers(0, WORKERS - 1),
        number=st.integers(0, 11),
        status=st.sampled_from([200, 200, 400, 503, None]),
        fault=FAULTS,
    )
    def step(self, what, which, number, status, fault):
        steps = {
            "append": lambda: self.append(CONVERSATIONS[number % len(CONVERSATIONS)], 1 + number % 4),
            "come or go": lambda: self.come_or_go(USERS[which], late=number % 3 == 0),
            "claim": lambda: self.claim(which, fault),
            "answer": lambda: self.answer(number, status),
            "settle": lambda: self.write(which, "settle", fault),
            "renew": lambda: self.write(which, "renew", fault),
            "stall": lambda: self.stall_past_the_lease(which),
            "kill": lambda: self.kill(which),
            "leases end": self.leases_of_the_dead_end,
            "time passes": self.time_passes,
        }
        steps[what]()

    def append(self, conversation, count):
        for _ in range(count):
            self.seqs[conversation] += 1
            self.run(POOL.rows(APPEND, ids.new_id(), conversation, self.seqs[conversation]))

    def come_or_go(self, user_id, late):
        self.numbers[user_id] += 0 if late else 1
        number, at = self.numbers[user_id], datetime.now(UTC)
        if number:
            values = ([ids.new_id()], ["user.online"], [number], [user_id], [at], [None])
            self.run(POOL.rows(outbox.APPEND_PRESENCE, *values))

    def claim(self, which, fault=None):
        self.fault = fault
        worker = self.workers[which]
        task = self.loop.create_task(worker.claim())
        worker.claims.add(task)
        task.add_done_callback(worker.claims.discard)
        self.run(self.until_it_waits_for_the_master(task, worker))

    async def until_it_waits_for_the_master(self, task, worker):
        while not task.done() and not any(one.worker is worker for one in self.in_flight):
            await asyncio.wait([task], timeout=0.001)
        await self.turn()
        if task.done():
            with suppress(ConnectionResetError):
                task.result()

    def answer(self, place, status):
        if self.in_flight:
            attempt = self.in_flight[place % len(self.in_flight)]
            if not attempt.answer.done():
                attempt.answer.set_result(Outcome(status, None if status == 200 else "no"))
                if status == 200:
                    self.delivered.add(attempt.row["id"])
            self.run(self.turn())

    def write(self, which, work, fault=None):
        self.fault = fault
        self.run(self.written_by(self.workers[which], work))

    async def written_by(self, worker, work):
        leases = worker.real._leases
        with suppress(ConnectionResetError):
            await (leases.settle() if work == "settle" else self.renew(leases))
        await self.turn()

    async def renew(self, leases):
        with pytest.MonkeyPatch.context() as patch:

            async def at_once(_):
                if patched:
                    raise InterruptedError
                patched.append(True)

            patched: list[bool] = []
            patch.setattr("app.webhooks.leases.asyncio.sleep", at_once)
            with suppress(InterruptedError):
                await leases.renew_forever()

    def stall_past_the_lease(self, which):
        worker = self.workers[which]
        for row in worker.held:
            row["leased_until"] = 0.0
        self.lose(self.run(POOL.rows(STALL, [row["lease"] for row in worker.held])))

    def kill(self, which):
        self.run(self.workers[which].kill())
        self.workers[which] = Simulated(self, self.config)

    def leases_of_the_dead_end(self):
        living = [row["lease"] for worker in self.workers for row in worker.held]
        self.lose(self.run(POOL.rows(ORPHANS, living)))

    def time_passes(self):
        self.run(POOL.rows(ALL_DUE))

    def lose(self, rows):
        lost = {row["id"] for row in rows}
        for attempt in self.in_flight:
            attempt.lost = attempt.lost or attempt.row["id"] in lost or attempt.row["leased_until"] == 0.0

    # What must hold

    @invariant()
    def nothing_is_out_of_order_or_sent_in_vain(self):
        assert getattr(self, "broken", []) == []

    def teardown(self):
        if not hasattr(self, "workers"):
            return
        try:
            self.finish()
            self.all_reached_the_master()
        finally:
            for worker in self.workers:
                self.run(worker.kill())
            self.run(self.stack.aclose())
            self.loop.close()

    def finish(self):
        """Let both workers go on, with a master that takes everything, until nothing is left."""
        for _ in range(60):
            if not self.run(
                POOL.rows("SELECT FROM webhooks WHERE state <> 'delivered' OR lease IS NOT NULL LIMIT 1")
            ):
                return
            self.leases_of_the_dead_end()
            self.time_passes()
            for which in range(WORKERS):
                self.claim(which)
            while self.in_flight:
                self.answer(0, 200)
            for which in range(WORKERS):
                self.write(which, "settle")
        raise AssertionError("something is never delivered")

    def all_reached_the_master(self):
        self.nothing_is_out_of_order_or_sent_in_vain()
        kept = {row["id"] for row in self.run(POOL.rows("SELECT id FROM webhooks"))}
        assert kept <= self.delivered
        for conversation, last in self.seqs.items():
            assert self.seen[conversation] == set(range(1, last + 1))
        for user_id, number in self.numbers.items():
            of_user = [one for one in self.attempts if one.row["conversation_id"] is None]
            assert max([one.row["seq"] for one in of_user if one.row["user_id"] == user_id], default=0) == number


@pytest.mark.timeout(0)
def test_webhooks_reach_the_master_in_order_and_at_least_once(own_servers):
    Lanes.config = Settings.read(
        own_servers.environment(
            WEBHOOK_URL="http://127.0.0.1:9/",
            WEBHOOK_SECRET="x" * 32,
            WEBHOOK_RETRY_SCHEDULE=",".join(["1s"] * 99),
        )
    )
    chosen = os.environ.get("HYPOTHESIS_PROFILE", "models")
    # Each example speaks to PostgreSQL some hundred times.
    profile = settings.get_profile(chosen)
    run_state_machine_as_test(Lanes, settings=settings(profile, max_examples=profile.max_examples // 8))
