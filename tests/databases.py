"""Databases of a test's own, on the server that all tests share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg

from app.config.types import Url
from app.postgres import migrate


@asynccontextmanager
async def empty_database(server_url: str) -> AsyncIterator[str]:
    """Make a database for the length of a block; gives its URL."""
    name = f"chat_test_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(server_url)
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        yield server_url.rsplit("/", 1)[0] + f"/{name}"
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


@asynccontextmanager
async def new_database(server_url: str) -> AsyncIterator[str]:
    """Make a database with all migrations applied."""
    async with empty_database(server_url) as url:
        await migrate.migrate(Url(url))
        yield url
