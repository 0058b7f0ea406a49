"""Random faults: each begins at a random time, hits something, and is undone after a random time."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from soak.control import HICCUPS, command_redis, connect_postgres
from soak.journal import Journal
from soak.links import Link
from soak.world import PODS, Member, World

AT_ONCE = 3
PAUSE = 1.2
# A row may be locked by the service for as long as a link of its is stalled.
LOCK_TIMEOUT = "SET lock_timeout = '10s'"
HEADS = "SELECT conversation_id FROM conversation_heads ORDER BY conversation_id"


class Faults:
    """Makes trouble until `stop`; what is broken then is mended at once."""

    def __init__(self, world: World, journal: Journal, seed: int) -> None:
        self._world = world
        self._journal = journal
        self._seed = seed
        self._stopped = asyncio.Event()
        # PostgreSQL and Redis are hit by one thing at a time.
        self._databases = {"PostgreSQL": asyncio.Lock(), "Redis": asyncio.Lock()}
        self._kinds: list[tuple[int, Callable[[random.Random], Awaitable[None]]]] = [
            (4, self._kill),
            (4, self._freeze),
            (3, self._drain),
            (6, self._stall_link),
            (4, self._reset_link),
            (3, self._delay_link),
            (2, self._flush_redis),
            (3, self._kill_clients_of_redis),
            (2, self._freeze_redis),
            (2, self._restart_redis),
            (4, self._terminate_backends),
            (2, self._restart_postgres),
            (2, self._foreign_transaction),
            (4, self._lock_head),
            (3, self._trouble_master),
        ]

    def stop(self) -> None:
        self._stopped.set()

    async def go_on(self) -> None:
        """Make one fault after the other, a few of them at once; ends when all are undone."""
        rng = random.Random(f"{self._seed} faults")
        free = asyncio.Semaphore(AT_ONCE)

        async def one(number: int, make: Callable[[random.Random], Awaitable[None]]) -> None:
            try:
                # Each has choices of its own, so that how long another takes changes none.
                await make(random.Random(f"{self._seed} fault {number}"))
            except HICCUPS as error:
                # The fault did not come off, which is no concern of the service.
                self._journal.count("fault", "failed")
                self._journal.trace("fault failed", number=number, error=repr(error))
            finally:
                free.release()

        async with asyncio.TaskGroup() as group:
            number = 0
            while not self._stopped.is_set():
                await self._sleep(rng.expovariate(1 / PAUSE))
                await free.acquire()
                number += 1
                make = rng.choices([do for _, do in self._kinds], [weight for weight, _ in self._kinds])[0]
                group.create_task(one(number, make))

    async def _sleep(self, seconds: float) -> None:
        """Let a fault go on for so long, or until all must end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    # Processes

    @asynccontextmanager
    async def _some_process(self, rng: random.Random, kind: str) -> Any:
        """Take a process that nothing else has in its hands, but never the last pod; None where there is none."""
        pods, workers = self._world.members[:PODS], self._world.members[PODS:]
        free = [member for member in workers if not member.busy.locked()]
        if len(free_pods := [member for member in pods if not member.busy.locked()]) > 1:
            free += free_pods
        member = rng.choice(free) if free else None
        if member is None:
            yield None
            return
        async with member.busy:
            with self._journal.fault(kind, member.name):
                yield member

    async def _kill(self, rng: random.Random) -> None:
        async with self._some_process(rng, "SIGKILL") as member:
            if member is not None:
                member.process.signal(signal.SIGKILL)
                await member.process.exit_code()
                await self._start_again(rng, member)

    async def _freeze(self, rng: random.Random) -> None:
        async with self._some_process(rng, "SIGSTOP") as member:
            if member is not None:
                member.process.signal(signal.SIGSTOP)
                await self._sleep(20 if rng.random() < 0.15 else rng.uniform(1, 8))
                member.process.signal(signal.SIGCONT)

    async def _drain(self, rng: random.Random) -> None:
        async with self._some_process(rng, "SIGTERM") as member:
            if member is not None:
                member.process.signal(signal.SIGTERM)
                try:
                    code: int | str = await member.process.exit_code()
                except TimeoutError:
                    code = "still running after 30 s"
                    await member.process.kill()
                if code != 0:
                    self._journal.violation(
                        "SIGTERM ends a process with exit code 0", process=member.name, code=code
                    )
                await self._start_again(rng, member)

    async def _start_again(self, rng: random.Random, member: Member) -> None:
        await self._sleep(rng.uniform(0, 4))
        try:
            await member.process.start(ready=False)
        except AssertionError as error:
            self._journal.violation("a process starts", process=member.name, log=str(error)[-500:])

    # Links

    def _some_link(self, rng: random.Random) -> Link:
        return rng.choice(self._world.links)

    async def _stall_link(self, rng: random.Random) -> None:
        link = self._some_link(rng)
        directions = rng.choice([("there", "back"), ("there",), ("back",)])
        name = "stall" if len(directions) == 2 else f"stall {directions[0]}"
        with self._journal.fault(name, link.name):
            await link.stall(*directions)
            await self._sleep(rng.uniform(1, 8))
            await link.heal()

    async def _reset_link(self, rng: random.Random) -> None:
        link = self._some_link(rng)
        with self._journal.fault("reset", link.name):
            for _ in range(rng.randint(1, 4)):
                await link.reset()
                await self._sleep(rng.uniform(0.05, 0.7))

    async def _delay_link(self, rng: random.Random) -> None:
        link = self._some_link(rng)
        with self._journal.fault("delay", link.name):
            await link.delay(rng.uniform(0.05, 0.5))
            await self._sleep(rng.uniform(2, 8))
            await link.heal()

    # Redis

    async def _redis(self, *command: Any) -> None:
        await command_redis(self._world.valkey.url, *command)

    async def _flush_redis(self, _: random.Random) -> None:
        async with self._databases["Redis"]:
            with self._journal.fault("FLUSHALL", "Redis"):
                await self._redis("FLUSHALL")

    async def _kill_clients_of_redis(self, rng: random.Random) -> None:
        kind = rng.choice(["normal", "pubsub"])
        async with self._databases["Redis"]:
            with self._journal.fault(f"CLIENT KILL {kind}", "Redis"):
                for _ in range(rng.randint(1, 4)):
                    await self._redis("CLIENT", "KILL", "TYPE", kind)
                    await self._sleep(rng.uniform(0.1, 0.8))

    async def _freeze_redis(self, rng: random.Random) -> None:
        async with self._databases["Redis"]:
            with self._journal.fault("SIGSTOP", "Redis"):
                os.kill(self._world.valkey.pid, signal.SIGSTOP)
                await self._sleep(rng.uniform(0.5, 6))
                os.kill(self._world.valkey.pid, signal.SIGCONT)

    async def _restart_redis(self, rng: random.Random) -> None:
        keeps = rng.random() < 0.5
        async with self._databases["Redis"]:
            with self._journal.fault("restart with data" if keeps else "restart without data", "Redis"):
                dump = self._world.folder / "valkey" / "dump.rdb"
                if keeps:
                    await self._redis("SAVE")
                else:
                    dump.unlink(missing_ok=True)
                await asyncio.to_thread(self._world.valkey.stop)
                await self._sleep(rng.uniform(0, 5))
                await self._world.restart_valkey()
                dump.unlink(missing_ok=True)

    # PostgreSQL

    @asynccontextmanager
    async def _admin(self) -> Any:
        connection = await connect_postgres(self._world.postgres.url)
        try:
            yield connection
        finally:
            connection.terminate()

    async def _terminate_backends(self, rng: random.Random) -> None:
        async with self._databases["PostgreSQL"], self._admin() as admin:
            with self._journal.fault("terminate backends", "PostgreSQL"):
                rows = await admin.fetch(
                    "SELECT pid FROM pg_stat_activity WHERE application_name = 'chat-service'"
                )
                for row in rng.sample(rows, rng.randint(0, len(rows))):
                    await admin.execute("SELECT pg_terminate_backend($1)", row["pid"])

    async def _restart_postgres(self, rng: random.Random) -> None:
        is_immediate = rng.random() < 0.5

        async def stop() -> None:
            os.kill(self._world.postgres.pid, signal.SIGQUIT if is_immediate else signal.SIGINT)
            await self._sleep(rng.uniform(0.2, 3))

        async with self._databases["PostgreSQL"]:
            with self._journal.fault("restart immediate" if is_immediate else "restart fast", "PostgreSQL"):
                await self._world.restart_postgres(stop)

    async def _foreign_transaction(self, rng: random.Random) -> None:
        async with self._databases["PostgreSQL"], self._admin() as admin:
            with self._journal.fault("foreign transaction", "PostgreSQL"):
                await admin.execute("BEGIN")
                await admin.execute("SELECT pg_current_xact_id()")
                await self._sleep(rng.uniform(3, 12))
                await admin.execute("ROLLBACK")

    async def _lock_head(self, rng: random.Random) -> None:
        async with self._databases["PostgreSQL"], self._admin() as admin:
            head = rng.choice(await admin.fetch(HEADS))["conversation_id"]
            await admin.execute(LOCK_TIMEOUT)
            with self._journal.fault("lock on a head", "PostgreSQL"):
                await admin.execute("BEGIN")
                await admin.execute("SELECT 1 FROM conversation_heads WHERE conversation_id = $1 FOR UPDATE", head)
                await self._sleep(rng.uniform(1, 4))
                await admin.execute("ROLLBACK")

    # The master

    async def _trouble_master(self, rng: random.Random) -> None:
        kind = rng.choice(["answers 500", "hangs", "is slow"])
        with self._journal.fault(kind, "the master"):
            self._world.master.trouble = kind
            await self._sleep(rng.uniform(1, 5))
            self._world.master.trouble = ""
