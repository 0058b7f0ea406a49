"""Redis stops for longer than a lease, or comes back empty: who stays causes no event, who leaves goes once."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio
from clients import ear
from pods import pods, until

from app.dev.valkey import start_valkey
from app.presence.presence import LEASE_MS

HEALED_WITHIN = 30


@pytest.fixture
def valkeys(folder):
    """Give what starts a Valkey, empty, where there was one before."""
    started = []

    def start():
        started.append(start_valkey(Path(folder)))
        return started[-1]

    try:
        yield start
    finally:
        started[-1].stop()


async def pause(server):
    """Nothing is answered for longer than a lease."""
    client = redis.asyncio.from_url(server.url)
    await client.execute_command("CLIENT", "PAUSE", LEASE_MS + 2_000, "ALL")
    await client.aclose()


@pytest.mark.parametrize("how", ["paused", "restarted empty"])
async def test_who_stays_causes_no_event_and_who_leaves_meanwhile_goes_once(servers, valkeys, tmp_path, user, how):
    server = valkeys()
    env = {**servers.environment(), "REDIS_URL": server.url}
    async with pods(env, tmp_path, 2) as (one, two):
        anna, ben, carl = user("anna", one), user("ben", two), user("carl", one)
        room = await ben.group(anna.user_id, carl.user_id)

        async def online():
            return set((await ben.get(f"/api/conversations/{room}/presence")).json["online"])

        async with ear(two, ben.user_id) as far, AsyncExitStack() as annas:
            await annas.enter_async_context(ear(one, anna.user_id))
            async with ear(one, carl.user_id):
                await far.wait_for("user:online", 2)
                if how == "paused":
                    await pause(server)
                else:
                    await asyncio.to_thread(server.stop)
            # He has left, and Redis could not be told.
            if how != "paused":
                await asyncio.to_thread(valkeys)

            async def is_healed():
                return await online() == {anna.user_id, ben.user_id}

            async def is_told():
                return bool(far.of("user:offline"))

            # He is offline for Redis as well, who is empty or silent, before it is decided.
            await until(is_told, "his leaving is told", LEASE_MS / 1000 + HEALED_WITHIN)
            await until(is_healed, "presence", HEALED_WITHIN)
            # A real one closes the list: nothing was told in vain.
            await annas.aclose()
            await far.wait_for("user:offline", 2)
            assert [(heard.event, heard.data["userId"]) for heard in far.presence][2:] == [
                ("user:offline", carl.user_id),
                ("user:offline", anna.user_id),
            ]


async def test_typing_ends_when_the_pod_of_who_types_dies(servers, tmp_path, user):
    async with pods(servers.environment(), tmp_path, 2) as (one, two):
        anna, ben = user("anna", two), user("ben", two)
        room = await anna.direct(ben.user_id)
        async with ear(two, ben.user_id) as far, ear(one, anna.user_id) as near:
            await near.call("typing:start", {"conversationId": room})
            await far.wait_for("user:typing")
            one.signal(signal.SIGKILL)
            await one.exit_code()
            _, ended = await far.wait_for("user:typing", 2)
            assert ended == {"conversationId": room, "userId": anna.user_id, "isTyping": False}
