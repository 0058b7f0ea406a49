"""The one PostgreSQL and the one Valkey that all sides share, each side with a database of its own."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from app.dev.postgres import start_postgres
from app.dev.valkey import start_valkey


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Give a connection for the length of a block."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@dataclass(frozen=True)
class Databases:
    """Where they are; `folder` is also for logs and what else a run leaves while it lasts."""

    folder: Path
    postgres_url: str
    redis_url: str

    async def create(self, name: str) -> str:
        """Make an empty database and give its URL."""
        async with connected(self.postgres_url) as admin:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            await admin.execute(f"CREATE DATABASE {name}")
        return self.postgres_url.rpartition("/")[0] + f"/{name}"

    async def version(self) -> str:
        async with connected(self.postgres_url) as admin:
            return str(await admin.fetchval("SHOW server_version"))


@contextmanager
def databases(folder: Path) -> Iterator[Databases]:
    """Run both servers for the length of a block, with fsync as in production; the data are forgotten afterwards.

    The folder must be on a disk: in a file system in memory a commit would cost nothing.
    """
    postgres = start_postgres(folder)
    try:
        valkey = start_valkey(folder)
        try:
            yield Databases(folder, postgres.url, valkey.url)
        finally:
            valkey.stop()
    finally:
        postgres.stop()
        shutil.rmtree(folder)
