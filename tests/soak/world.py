"""The processes of the soak: databases, links before them, pods, workers, a balancer and the webhook receiver."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from balancer import balanced
from pods import Pod, Process, Worker, environment
from receiver import WEBHOOK_SECRET, receiver

from app.config.types import Url
from app.dev.embedded import EmbeddedError, EmbeddedServer
from app.dev.postgres import start_postgres
from app.dev.valkey import start_valkey
from app.postgres import migrate
from soak.control import HarnessError
from soak.journal import Journal
from soak.links import Link, Links, running_links
from soak.master import Master

PODS = 3
WORKERS = 2
LARGE_GROUP = 12
REST_TIMEOUT = 15.0
SETTINGS = {
    "LARGE_GROUP": f"{LARGE_GROUP}",
    "WEBHOOK_SECRET": WEBHOOK_SECRET,
    "WEBHOOK_TIMEOUT": "3s",
    # Nothing may die: what is dead at the end was given up by mistake.
    "WEBHOOK_RETRY_SCHEDULE": ",".join(["1s", "1s", "2s"] + ["3s"] * 60),
}


class Caller(Protocol):
    id: str
    token: str
    rng: random.Random


@dataclass
class Member:
    """A process, and the links before its databases; `busy` while a fault has it in its hands."""

    name: str
    process: Process
    to_postgres: Link
    to_redis: Link
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass
class World:
    """All that runs."""

    folder: Path
    http: aiohttp.ClientSession
    master: Master
    postgres: EmbeddedServer
    valkey: EmbeddedServer
    members: list[Member] = field(default_factory=list)
    balancer_url: str = ""
    # Conversations that nobody ever enters or leaves.
    stable: set[str] = field(default_factory=set)

    @property
    def pods(self) -> list[Pod]:
        return [member.process for member in self.members if isinstance(member.process, Pod)]

    @property
    def links(self) -> list[Link]:
        return [link for member in self.members for link in (member.to_postgres, member.to_redis)]

    def somewhere_to_connect(self, rng: random.Random) -> str:
        """Give where to open a socket: a pod, or the balancer, which sticks to none."""
        return rng.choice([*(pod.ws for pod in self.pods), self.balancer_url])

    async def rest(self, who: Caller, method: str, path: str, body: Any = None, pod: Pod | None = None) -> Any:
        """Call a pod over REST; gives the status and the answer. Raises what `connection.AWAY` names."""
        base = (pod or who.rng.choice(self.pods)).http
        headers = {"Authorization": f"Bearer {who.token}"}
        async with (
            asyncio.timeout(REST_TIMEOUT),
            self.http.request(method, base + path, json=body, headers=headers) as response,
        ):
            text = await response.read()
            return response.status, await response.json() if text else None

    async def restart_postgres(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Stop PostgreSQL by a function, and start it again on the same data."""
        await stop()
        await asyncio.to_thread(self.postgres.stop)
        self.postgres = await _started(start_postgres, self.folder / "postgres")
        for member in self.members:
            await member.to_postgres.point_to(self.postgres.url)

    async def restart_valkey(self) -> None:
        self.valkey = await _started(start_valkey, self.folder / "valkey")
        for member in self.members:
            await member.to_redis.point_to(self.valkey.url)


@asynccontextmanager
async def running(journal: Journal) -> AsyncIterator[World]:
    """Run a world for the length of a block, with its logs in the folder of the journal."""
    folder = journal.folder
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        )
        # A poll that is repeated unseen loses what the first one was answered; socket.io-client repeats none.
        http._retry_connection = False
        master = Master(await stack.enter_async_context(receiver()), journal)
        postgres = await _started(start_postgres, folder / "postgres")
        world = World(folder, http, master, postgres, postgres)
        stack.callback(lambda: world.postgres.stop())  # noqa: PLW0108 - it is another after a restart
        world.valkey = await _started(start_valkey, folder / "valkey")
        stack.callback(lambda: world.valkey.stop())  # noqa: PLW0108 - the same
        await migrate.migrate(Url(world.postgres.url))
        links = await stack.enter_async_context(running_links())
        for number in range(PODS + WORKERS):
            world.members.append(await _member(links, world, number))
        stack.push_async_callback(_kill_all, world)
        await asyncio.gather(*(member.process.start() for member in world.members))
        balancer = await stack.enter_async_context(balanced([pod.ws_port for pod in world.pods]))
        world.balancer_url = balancer.ws
        yield world


async def _started(start: Callable[[Path], EmbeddedServer], folder: Path) -> EmbeddedServer:
    """Start a server of the harness; raises HarnessError where it does not start."""
    try:
        return await asyncio.to_thread(start, folder)
    except EmbeddedError as error:
        raise HarnessError(str(error)) from error


async def _member(links: Links, world: World, number: int) -> Member:
    name = f"pod-{number}" if number < PODS else f"worker-{number - PODS}"
    to_postgres = await links.open(f"{name} to PostgreSQL", world.postgres.url)
    to_redis = await links.open(f"{name} to Redis", world.valkey.url)
    env = environment(to_postgres.url, to_redis.url, WEBHOOK_URL=world.master.receiver.url, **SETTINGS)
    kind = Pod if number < PODS else Worker
    return Member(name, kind(env, world.folder / f"{name}.log"), to_postgres, to_redis)


async def _kill_all(world: World) -> None:
    await asyncio.gather(*(member.process.kill() for member in world.members))
