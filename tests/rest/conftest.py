"""The master, and the database itself: for what no user can bring about."""

from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from clients import Master
from databases import new_database
from pods import Pod, pods


@pytest.fixture
def master(http: aiohttp.ClientSession, cluster: list[Pod]) -> Master:
    return Master(http, cluster[0].http, "master", "")


@pytest.fixture
async def own_servers(servers):
    """Give a database in which no other pods do anything."""
    async with new_database(servers.database_url) as url:
        yield replace(servers, database_url=url)


@pytest.fixture(scope="session")
async def small(servers, tmp_path_factory) -> AsyncIterator[list[Pod]]:
    """Run two pods to which five people are all that a group may have, and three are a large one."""
    env = servers.environment(MAX_PARTICIPANTS="5", LARGE_GROUP="2")
    async with pods(env, tmp_path_factory.mktemp("small"), 2) as started:
        yield started
        assert [line for pod in started for line in pod.errors()] == []
