"""How many webhooks one worker delivers, beside what aiohttp alone can post: `python benchmarks/webhooks.py`.

Both post bodies of the same size over the same number of connections to the same receiver, a process of its own.
The plain client has its bodies ready and knows no database; the worker claims, reads, signs, posts and settles.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import aiohttp
import asyncpg
import uvloop

from app import database
from app.dev.postgres import start_postgres
from app.dev.valkey import start_valkey
from app.setting_types import Url
from app.webhooks.worker import CONNECTIONS

CONVERSATIONS = 200
ROUNDS = 3
SECRET = "a-secret-of-the-benchmark-that-signs-webhooks"
CONTENT = "x" * 80
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
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
    """Takes posts, as fast as can be: `GET` gives when the first and the last came, how many and how long."""

    seen = 0
    size = 0
    first = 0.0
    last = 0.0

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
    Receiver.last = time.monotonic()
    Receiver.first = Receiver.first or Receiver.last
    Receiver.seen += 1
    Receiver.size = length
    return OK


def _report() -> bytes:
    found = json.dumps(
        {"seen": Receiver.seen, "size": Receiver.size, "seconds": Receiver.last - Receiver.first}
    ).encode()
    Receiver.seen, Receiver.first = 0, 0.0
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(found),
        found,
    )


async def receive() -> None:
    """Run the receiver; it prints its port."""
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def post(url: str, count: int, size: int) -> None:
    """Post as many bodies as fast as aiohttp can."""
    left = iter(range(count))
    headers = {
        "Content-Type": "application/json",
        "X-Webhook-Signature": "sha256=" + "0" * 64,
        "webhook-id": "wh_" + "0" * 32,
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1," + "0" * 44,
        "traceparent": "00-" + "0" * 51,
    }
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session:

        async def send() -> None:
            for _ in left:
                async with session.post(url, data=b"x" * size, headers=headers) as answer:
                    await answer.read()

        await asyncio.gather(*(send() for _ in range(CONNECTIONS)))


@asynccontextmanager
async def running(*arguments: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env={**os.environ, **env}, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def measured(session: aiohttp.ClientSession, url: str, count: int) -> tuple[float, int]:
    """Wait until the receiver has seen so many posts; gives posts per second, and the size of one."""
    seen, seconds, size = 0, 0.0, 0
    async with asyncio.timeout(PATIENCE):
        while seen < count:
            await asyncio.sleep(1)
            async with session.get(url) as answer:
                found = await answer.json()
            # What came in this second alone: neither the start nor the pauses between two looks count.
            if found["seen"] > 1:
                seen, seconds, size = seen + found["seen"], seconds + found["seconds"], found["size"]
    return seen / seconds, size


async def compare(count: int) -> None:
    """Measure both in turn, and print the rates and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The user that PostgreSQL gets under root must pass through it.
        os.chmod(folder, 0o711)  # noqa: PTH101 - nothing else runs yet
        postgres = start_postgres(folder)
        valkey = start_valkey(folder)
        try:
            await database.migrate(Url(postgres.url))
            async with running(__file__, "receive") as receiver, aiohttp.ClientSession() as session:
                assert receiver.stdout is not None
                url = f"http://127.0.0.1:{int(await receiver.stdout.readline())}/"
                env = {
                    "AUTH_JWT_SECRET": SECRET,
                    "AUTH_JWT_ISSUER": "benchmark",
                    "INTERNAL_API_SECRET": SECRET,
                    "DATABASE_URL": postgres.url,
                    "REDIS_URL": valkey.url,
                    "WEBHOOK_URL": url,
                    "WEBHOOK_SECRET": SECRET,
                    "HTTP_HOST": "127.0.0.1",
                    "WORKER_PORT": str(_free_port()),
                }
                await _rounds(session, url, env, count)
        finally:
            valkey.stop()
            postgres.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _rounds(session: aiohttp.ClientSession, url: str, env: dict[str, str], count: int) -> None:
    ratios = []
    for _ in range(ROUNDS):
        connection = await asyncpg.connect(env["DATABASE_URL"])
        await connection.execute("TRUNCATE webhooks, messages")
        await connection.execute("SET statement_timeout = 0")
        await connection.fetch(FILL, count, CONVERSATIONS, CONTENT)
        await connection.execute("VACUUM ANALYZE webhooks, messages")
        await connection.close()
        async with running("-m", "app", "worker", **env):
            worker, size = await measured(session, url, count)
        async with running(__file__, "post", url, str(count), str(size)):
            plain, _ = await measured(session, url, count)
        ratios.append(worker / plain)
        print(
            f"worker {worker:6.0f}/s   aiohttp alone {plain:6.0f}/s   ratio {worker / plain:.2f}   ({size} bytes)"
        )
    print(f"ratio, median of {ROUNDS}: {sorted(ratios)[ROUNDS // 2]:.2f}")


def main() -> None:
    """Compare, or be one of the processes that are compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="compare", choices=["compare", "receive", "post"])
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("count", nargs="?", type=int, default=10_000)
    parser.add_argument("size", nargs="?", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.what == "receive":
        uvloop.run(receive())
    elif arguments.what == "post":
        uvloop.run(post(arguments.url, arguments.count, arguments.size))
    else:
        uvloop.run(compare(arguments.count))


if __name__ == "__main__":
    main()
