"""Where each pod is reached: from where it reaches Redis, and as long as anybody can know."""

import asyncio
from dataclasses import replace

import pytest
from pods import environment, until
from refusing import refusing

from app.config.settings import Settings
from app.config.types import Url
from app.redis import connection as redis_connection
from app.redis.addresses import Addresses

REFUSES = "READONLY You can't write against a read only replica."


@pytest.fixture
async def proxy(servers):
    async with refusing(servers.redis_url) as found:
        yield found


@pytest.fixture
async def addresses(proxy, monkeypatch):
    monkeypatch.setattr("app.redis.addresses.RENEWAL", 0.05)
    monkeypatch.setattr("app.redis.addresses.CACHED", 0.0)
    settings = replace(Settings.read(environment("postgres://x", proxy.url)), ws_host="0.0.0.0")
    redis = redis_connection.connect(Url(proxy.url))
    found = Addresses(redis, settings)
    announcing = asyncio.create_task(found.announce_forever("here"))
    yield found, redis, settings.ws_port
    announcing.cancel()
    await redis.delete("chat:address:here")
    await redis.aclose()


async def test_a_pod_is_reached_where_it_reaches_redis_from(addresses):
    found, _, port = addresses

    async def is_known():
        return await found.of("here") == f"127.0.0.1:{port}"

    await until(is_known, "the address")


async def test_a_lease_that_could_not_be_renewed_proves_nobody_gone(addresses, proxy):
    found, redis, port = addresses
    await redis.set("chat:address:there", "10.0.0.1:4001")
    assert await found.of("there") == "10.0.0.1:4001"
    proxy.refuse(iter(lambda: REFUSES, None), "SET")

    async def is_refused():
        return found._is_refused

    await until(is_refused, "that it is refused")
    await redis.delete("chat:address:there")
    assert await found.of("there") == "10.0.0.1:4001"
    assert await found.of("nobody") is None
    # Whoever does not answer is asked for anew.
    found.forget("there")
    assert await found.of("there") is None
    proxy.allow()

    async def is_renewed():
        return not found._is_refused and await found.of("here") == f"127.0.0.1:{port}"

    await until(is_renewed, "that it is taken again")


async def test_an_address_is_remembered_for_a_while_and_read_anew_after_it(addresses, monkeypatch):
    found, redis, _ = addresses
    await redis.set("chat:address:moving", "10.0.0.1:4001")
    assert await found.of("moving") == "10.0.0.1:4001"
    # What was read is out of date at once.
    monkeypatch.setattr("app.redis.addresses.CACHED", 600.0)
    await redis.set("chat:address:moving", "10.0.0.2:4001")
    assert await found.of("moving") == "10.0.0.2:4001"
    # And now it is not.
    await redis.delete("chat:address:moving")
    assert await found.of("moving") == "10.0.0.2:4001"
    found.forget("moving")
    assert await found.of("moving") is None
