"""`python -m benchmarks.webhooks`: how many webhooks one worker delivers, beside what aiohttp alone can post.

Both have a core for themselves, and the same number of posts of the same size under way; the receiver and the
databases have the others. The plain client has its body and its headers ready and knows no database; the worker
claims, reads, signs, posts and settles.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import aiohttp
import uvloop

from app.config.types import Url
from app.postgres import migrate
from app.webhooks.worker import FIRST_SENDERS
from benchmarks import machine
from benchmarks.databases import Databases, connected, databases
from benchmarks.processes import free_port, inherited

# On a disk: a file system in memory would make commits cheap.
FOLDER = Path(".data/benchmarks")
ROUNDS = 5
CONVERSATIONS = 200
# So many go by before the clock starts, so many are measured, and some are left at the end.
WARM_UP = 2_000
MEASURED = 20_000
STORED = WARM_UP + MEASURED + 4_000
SECRET = "a-secret-of-the-benchmark-that-signs-webhooks"
CONTENT = "x" * 80
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
LOOK_INTERVAL = 0.1
PATIENCE = 120.0

FILL = """
WITH said AS (
    SELECT (lpad(to_hex(kind), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid AS id,
           ('00000001-0000-7000-8000-' || lpad(to_hex(number % $2), 12, '0'))::uuid AS conversation_id,
           1 + number / $2 AS seq
    FROM (SELECT 2 AS kind, number FROM generate_series(0, $1 - 1) AS number) AS numbers
), stored AS (
    INSERT INTO messages (id, conversation_id, seq, sender_id, content, attachments, created_at, updated_at)
    SELECT id, conversation_id, seq, 'anna', $3, '[]', now(), now() FROM said
)
INSERT INTO webhooks (id, event, conversation_id, seq, user_id, message_id, created_at)
SELECT id, 'message.created', conversation_id, seq, 'anna', id, now() FROM said
"""


class Receiver(asyncio.Protocol):
    """Takes posts, as fast as can be; `GET` tells how many came until when, and how long the last one was."""

    seen = 0
    size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if len(self.data) < end + 4 + length:
                return
            self.data = self.data[end + 4 + length :]
            self.transport.write(_answer(length) if head.startswith(b"post") else _report())


def _answer(length: int) -> bytes:
    Receiver.seen += 1
    Receiver.size = length
    return OK


def _report() -> bytes:
    found = json.dumps({"seen": Receiver.seen, "size": Receiver.size, "at": time.monotonic()}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(found)
    return head + found


async def receive() -> None:
    """Run the receiver; it prints its port."""
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def post(url: str, size: int) -> None:
    """Post as fast as aiohttp can, for ever."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "chat-service",
        "X-Webhook-Signature": "sha256=" + "0" * 64,
        "webhook-id": "wh_" + "0" * 32,
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1," + "0" * 44,
        "traceparent": "00-" + "0" * 52,
    }
    body = b"x" * size
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=FIRST_SENDERS)) as session:

        async def send() -> None:
            while True:
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()

        await asyncio.gather(*(send() for _ in range(FIRST_SENDERS)))


@asynccontextmanager
async def _running(
    cores: set[int], *arguments: str, env: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process of ours on these cores; it is killed at the end."""
    with machine.running_on(cores):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *arguments, env={**inherited(), **env}, stdout=asyncio.subprocess.PIPE
        )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


@dataclass(frozen=True)
class Look:
    """How far a run was at one moment."""

    seen: int
    at: float
    cpu: float
    cpu_of_receiver: float
    size: int


@dataclass(frozen=True)
class Found:
    """What one run came to: posts per second, the microseconds of processor for one, and its size."""

    rate: float
    cost: float
    cost_of_receiver: float
    size: int


@dataclass(frozen=True)
class Bench:
    """What both sides share."""

    session: aiohttp.ClientSession
    url: str
    receiver: int
    shared: Databases

    async def worker(self, _: int) -> Found:
        """Measure the worker, on an outbox that is full."""
        name = "webhooks"
        database_url = await self.shared.create(name)
        await migrate.migrate(Url(database_url))
        async with connected(database_url) as connection:
            await connection.fetch(FILL, STORED, CONVERSATIONS, CONTENT)
            await connection.execute("VACUUM ANALYZE webhooks, messages")
        env = {
            "AUTH_JWT_SECRET": SECRET,
            "AUTH_JWT_ISSUER": "benchmark",
            "INTERNAL_API_SECRET": SECRET,
            "DATABASE_URL": database_url,
            "REDIS_URL": self.shared.redis_url,
            "WEBHOOK_URL": self.url,
            "WEBHOOK_SECRET": SECRET,
            "HTTP_HOST": "127.0.0.1",
            "WORKER_PORT": str(free_port()),
            "LOG_LEVEL": "WARNING",
        }
        return await self._measured("app", "worker", env=env)

    async def plain(self, size: int) -> Found:
        """Measure aiohttp alone."""
        return await self._measured("benchmarks.webhooks", "post", self.url, str(size), env={})

    async def _measured(self, *arguments: str, env: dict[str, str]) -> Found:
        begin = (await self._look(0)).seen
        async with _running(machine.SERVER_CORES[0], *arguments, env=env) as process:
            first = await self._until(process.pid, begin + WARM_UP)
            last = await self._until(process.pid, begin + WARM_UP + MEASURED)
        count = last.seen - first.seen
        return Found(
            count / (last.at - first.at),
            (last.cpu - first.cpu) * 1e6 / count,
            (last.cpu_of_receiver - first.cpu_of_receiver) * 1e6 / count,
            last.size,
        )

    async def _until(self, pid: int, seen: int) -> Look:
        async with asyncio.timeout(PATIENCE):
            while True:
                look = await self._look(pid)
                if look.seen >= seen:
                    return look
                await asyncio.sleep(LOOK_INTERVAL)

    async def _look(self, pid: int) -> Look:
        async with self.session.get(self.url) as answer:
            found = await answer.json()
        cpu = machine.cpu_seconds(pid) if pid else 0.0
        return Look(found["seen"], found["at"], cpu, machine.cpu_seconds(self.receiver), found["size"])


async def compare() -> None:
    """Measure both in turn, each round beginning with the other one, and print the rates and their ratio."""
    os.sched_setaffinity(0, machine.OTHER_CORES)
    rates, costs = [], []
    with databases(FOLDER) as shared:
        async with (
            _running(machine.OTHER_CORES, "benchmarks.webhooks", "receive", env={}) as receiver,
            aiohttp.ClientSession() as session,
        ):
            assert receiver.stdout is not None
            url = f"http://127.0.0.1:{int(await receiver.stdout.readline())}/"
            bench = Bench(session, url, receiver.pid, shared)
            size = (await bench.worker(0)).size
            for number in range(ROUNDS):
                sides = [bench.worker, bench.plain]
                found = {side: await side(size) for side in sides[:: (1, -1)[number % 2]]}
                worker, plain = found[bench.worker], found[bench.plain]
                rates.append(worker.rate / plain.rate)
                costs.append(plain.cost / worker.cost)
                print(
                    f"worker {worker.rate:6.0f}/s {worker.cost:4.0f} µs   aiohttp alone {plain.rate:6.0f}/s "
                    f"{plain.cost:4.0f} µs   ratio {rates[-1]:.2f}   "
                    f"(receiver {worker.cost_of_receiver:.0f} µs, {size} bytes)",
                    flush=True,
                )
    rate, cost = statistics.median(rates), statistics.median(costs)
    print(f"ratio, median of {ROUNDS}: {rate:.2f} by rate, {cost:.2f} by the processor time of one")


def main() -> None:
    """Compare, or be one of the processes that are compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="compare", choices=["compare", "receive", "post"])
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("size", nargs="?", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.what == "receive":
        uvloop.run(receive())
    elif arguments.what == "post":
        uvloop.run(post(arguments.url, arguments.size))
    else:
        uvloop.run(compare())


if __name__ == "__main__":
    main()
