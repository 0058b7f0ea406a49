"""A master that takes webhooks, and pods and workers that share a database with no other test."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from clients import Master, Rest, somebody, token
from pods import Pod, Worker, pods
from receiver import WEBHOOK_SECRET, Receiver, receiver

SCHEDULE = "500ms,500ms,500ms"


@dataclass
class Stack:
    """Pods, workers, and the master to which they deliver."""

    receiver: Receiver
    pods: list[Pod]
    workers: list[Worker]
    http: aiohttp.ClientSession
    env: dict[str, str]
    folder: Path

    def user(self, name: str = "user", pod: int = 0) -> Rest:
        user_id = somebody(name)
        return Rest(self.http, self.pods[pod].http, user_id, token(user_id))

    @property
    def master(self) -> Master:
        return Master(self.http, self.pods[0].http, "", "")

    async def start_worker(self) -> Worker:
        worker = Worker(self.env, self.folder / f"worker-{len(self.workers)}.log")
        self.workers.append(worker)
        await worker.start()
        return worker

    async def listed(self, status: str) -> list[dict[str, Any]]:
        """List the webhooks of a status as operators do."""
        answer = await self.master.get(f"/api/admin/webhooks?status={status}&limit=100")
        assert answer.status == 200, answer
        return list(answer.json["items"])


@pytest.fixture
async def master() -> AsyncIterator[Receiver]:
    async with receiver() as found:
        yield found


@pytest.fixture
def stack(own_servers: Any, master: Receiver, tmp_path: Path, http: aiohttp.ClientSession) -> Callable[..., Any]:
    """Start pods and workers: `async with stack(pods=2, workers=1, WEBHOOK_TIMEOUT="1s") as found`."""

    @asynccontextmanager
    async def start(*, serving: int = 1, workers: int = 1, **more: str) -> AsyncIterator[Stack]:
        env = own_servers.environment(
            **{
                "WEBHOOK_URL": master.url,
                "WEBHOOK_SECRET": WEBHOOK_SECRET,
                "WEBHOOK_RETRY_SCHEDULE": SCHEDULE,
                **more,
            }
        )
        async with pods(env, tmp_path, serving) as started:
            found = Stack(master, started, [], http, env, tmp_path)
            try:
                for _ in range(workers):
                    await found.start_worker()
                yield found
            finally:
                for worker in found.workers:
                    await worker.kill()

    return start
