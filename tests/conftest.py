"""What every test stands on: a real PostgreSQL, a real Valkey, two pods that share them, and npm packages."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
import redis.asyncio as redis
from clients import Rest, somebody, token
from databases import new_database
from npm import install
from pods import Pod, environment, pods

from app.dev.postgres import start_postgres
from app.dev.valkey import start_valkey

NODE_FOLDER = Path(__file__).parent / "node"


@dataclass(frozen=True)
class Servers:
    """The databases: those that DATABASE_URL and REDIS_URL name, else embedded ones."""

    database_url: str
    redis_url: str

    def environment(self, **more: str) -> dict[str, str]:
        return environment(self.database_url, self.redis_url, **more)


@pytest.fixture(scope="session")
def server_urls() -> Iterator[tuple[str, str]]:
    given = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    # Not pytest's folder, which is closed to the user that PostgreSQL runs as for root.
    folder = Path(tempfile.mkdtemp(prefix="chat-tests-"))
    folder.chmod(0o711)
    started = []
    try:
        if not given[0]:
            started.append(start_postgres(folder / "postgres"))
        if not given[1]:
            started.append(start_valkey(folder / "valkey"))
        urls = iter(server.url for server in started)
        yield given[0] or next(urls), given[1] or next(urls)
    finally:
        for server in started:
            server.stop()
        shutil.rmtree(folder)


@asynccontextmanager
async def new_servers(server_urls: tuple[str, str], place: int) -> AsyncIterator[Servers]:
    """Give a new database with the migrations applied, and one of this process's two databases of Redis."""
    database_url, redis_url = server_urls
    # Processes that run tests at the same time may have been given one Redis for all.
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    async with new_database(database_url) as own:
        yield Servers(own, urlsplit(redis_url)._replace(path=f"/{2 * process + place}").geturl())


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that the user of PostgreSQL may pass through, which pytest's own may not be."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="session")
async def servers(server_urls: tuple[str, str]) -> AsyncIterator[Servers]:
    """Give what this run keeps its data in."""
    async with new_servers(server_urls, place=0) as found:
        yield found


@pytest.fixture
async def sql(servers) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(servers.database_url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="session")
async def own_servers(server_urls: tuple[str, str]) -> AsyncIterator[Servers]:
    """Give a database and a Redis in which no pods but those of the tests of webhooks write."""
    async with new_servers(server_urls, place=1) as found, redis.from_url(found.redis_url) as own:
        await own.flushdb()
        yield found


@pytest.fixture(scope="session")
async def cluster(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Pod]]:
    """Two pods for tests that do them no harm; at the end neither may have logged an error."""
    async with pods(servers.environment(), tmp_path_factory.mktemp("cluster"), 2) as started:
        yield started
        await asyncio.gather(*(pod.stop() for pod in started))
        assert [line for pod in started for line in pod.errors()] == []


@pytest.fixture(scope="session")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def user(http: aiohttp.ClientSession, cluster: list[Pod]) -> Callable[..., Rest]:
    """Make up a user, who speaks to the first pod unless told otherwise."""

    def make(name: str = "user", pod: Pod | None = None) -> Rest:
        user_id = somebody(name)
        return Rest(http, (pod or cluster[0]).http, user_id, token(user_id))

    return make


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Install what node/package-lock.json names, unless that was done since it last changed."""
    install(NODE_FOLDER)
    return NODE_FOLDER / "node_modules"
