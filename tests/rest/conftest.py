"""The master, and the database itself: for what no user can bring about."""

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
from clients import Master
from pods import Pod, pods

from app import database
from app.setting_types import Url


@pytest.fixture
def master(http: aiohttp.ClientSession, cluster: list[Pod]) -> Master:
    return Master(http, cluster[0].http, "master", "")


@pytest.fixture
async def own_servers(servers):
    """Give a database in which no other pods do anything."""
    name = f"chat_own_{uuid4().hex[:8]}"
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"CREATE DATABASE {name}")
    url = servers.database_url.rsplit("/", 1)[0] + f"/{name}"
    try:
        await database.migrate(Url(url))
        yield replace(servers, database_url=url)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


@pytest.fixture(scope="session")
async def small(servers, tmp_path_factory) -> AsyncIterator[list[Pod]]:
    """Run two pods to which five people are all that a group may have, and three are a large one."""
    env = servers.environment(MAX_PARTICIPANTS="5", LARGE_GROUP="2")
    async with pods(env, tmp_path_factory.mktemp("small"), 2) as started:
        yield started
        assert [line for pod in started for line in pod.errors()] == []
