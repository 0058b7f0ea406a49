"""A master that takes webhooks, pods that write them, and workers that a test may harm."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import redis.asyncio as redis
from clients import Master, Rest, somebody, token
from pods import Pod, Worker, pods, until
from receiver import WEBHOOK_SECRET, Receiver, receiver

# Who was on a pod that is killed is online until its lease has ended.
GONE_WITHIN = 30.0
SCHEDULE = "500ms,500ms,500ms"
# The pods only have to know that there is one; where it is, the workers know.
SOMEWHERE = {"WEBHOOK_URL": "http://127.0.0.1:9/", "WEBHOOK_SECRET": WEBHOOK_SECRET}


@dataclass
class Stack:
    """Pods, workers, the master to which they deliver, and a look into the database."""

    receiver: Receiver
    pods: list[Pod]
    http: aiohttp.ClientSession
    database: asyncpg.Connection
    env: dict[str, str]
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    def user(self, name: str = "user", pod: int = 0) -> Rest:
        user_id = somebody(name)
        return Rest(self.http, self.pods[pod].http, user_id, token(user_id))

    @property
    def master(self) -> Master:
        return Master(self.http, self.pods[0].http, "", "")

    async def start_worker(self, *, ready: bool = True, **more: str) -> Worker:
        worker = Worker({**self.env, **more}, self.folder / f"worker-{len(self.workers)}.log")
        self.workers.append(worker)
        await worker.start(ready=ready)
        return worker

    async def listed(self, status: str) -> list[dict[str, Any]]:
        """List the webhooks of a status as operators do."""
        answer = await self.master.get(f"/api/admin/webhooks?status={status}&limit=100")
        assert answer.status == 200, answer
        return list(answer.json["items"])

    async def wait_for_listed(self, status: str, count: int) -> list[dict[str, Any]]:
        """Wait until so many webhooks have a status; gives them."""

        async def are_there() -> bool:
            return len(await self.listed(status)) == count

        await until(are_there, f"{count} {status}")
        return await self.listed(status)


@pytest.fixture(scope="session")
async def serving(own_servers: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Pod]]:
    """Two pods that write webhooks; at the end neither may have logged an error."""
    env = own_servers.environment(**SOMEWHERE)
    async with pods(env, tmp_path_factory.mktemp("serving"), 2) as started:
        yield started
        assert [line for pod in started for line in pod.errors()] == []


@pytest.fixture
async def master() -> AsyncIterator[Receiver]:
    async with receiver() as found:
        yield found


async def _all_have_gone(redis_url: str) -> None:
    """Wait until nobody is online and everybody who was is told of; of a pod that was killed too."""
    async with redis.from_url(redis_url) as known:

        async def are_gone() -> bool:
            return not (await known.exists("chat:leaving", "chat:untold") or await known.keys("chat:pod:*"))

        await until(are_gone, "nobody is online", GONE_WITHIN)


@pytest.fixture
def stack(
    own_servers: Any, serving: list[Pod], master: Receiver, tmp_path: Path, http: aiohttp.ClientSession
) -> Callable[..., Any]:
    """Begin with an empty outbox and so many workers: `async with stack(workers=2, WEBHOOK_TIMEOUT="1s")`.

    Nobody is online then: who left at the end of an earlier test is told of seconds later.
    """

    @asynccontextmanager
    async def start(*, workers: int = 1, **more: str) -> AsyncIterator[Stack]:
        webhooks = {
            "WEBHOOK_URL": master.url,
            "WEBHOOK_SECRET": WEBHOOK_SECRET,
            "WEBHOOK_RETRY_SCHEDULE": SCHEDULE,
        }
        env = own_servers.environment(**{**webhooks, **more})
        await _all_have_gone(own_servers.redis_url)
        database = await asyncpg.connect(own_servers.database_url)
        await database.execute("DELETE FROM webhooks")
        found = Stack(master, serving, http, database, env, tmp_path)
        try:
            for _ in range(workers):
                await found.start_worker()
            yield found
        finally:
            for worker in found.workers:
                await worker.kill()
            await database.close()

    return start
