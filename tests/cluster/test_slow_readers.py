"""Clients that stop reading are cut: they cost little, hold up nobody, and are whole again after `sync`."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from clients import ear
from memory import Growth, on_linux
from pods import pods, until
from scraping import series
from stuck import stuck_client

MAX_UNSENT_BYTES = 1 << 20
STUCK = 5
ROUND = 20
CONTENT = "x" * 8000
# What the kernel takes from the pod for each connection, by its own settings, is some megabytes.
MOST_MESSAGES = 5000


@on_linux
@pytest.mark.timeout(240)
async def test_clients_that_do_not_read_are_cut_and_cost_what_may_wait_for_them(servers, tmp_path, user):
    env = servers.environment(MAX_UNSENT_BYTES=str(MAX_UNSENT_BYTES))
    async with pods(env, tmp_path, 1) as (pod,):
        anna, *others = [user(pod=pod) for _ in range(STUCK + 1)]
        room = await anna.group(*(other.user_id for other in others))

        async def online():
            return set((await anna.get(f"/api/conversations/{room}/presence")).json["online"])

        async with ear(pod, anna.user_id) as reader:

            async def talk() -> int:
                """Say a round more, which the one who reads hears at once; gives how much was said in all."""
                heard_before = len(reader.of("message:new"))
                await asyncio.gather(*(anna.say(room, CONTENT) for _ in range(ROUND)))
                return len(await reader.wait_for("message:new", heard_before + ROUND))

            # As much as the test may take: from here on only those who do not read can make the pod grow.
            while await talk() < 1000:
                continue
            async with AsyncExitStack() as stack:
                for other in others:
                    await stack.enter_async_context(stuck_client(pod, other.user_id))

                async def are_all_there():
                    return await online() == {anna.user_id, *(other.user_id for other in others)}

                await until(are_all_there, "the stuck clients are online")
                growth = Growth(pod.process.pid)
                while await online() != {anna.user_id}:
                    assert await talk() < MOST_MESSAGES, "they are never cut"
            said = list(range(1, await talk() + 1))
            # What may wait for each of them, and as much once more for all else.
            assert growth.peak <= (STUCK + 1) * MAX_UNSENT_BYTES
            assert [message["seq"] for message in reader.of("message:new")] == said
            assert (await series(anna.session, pod.http))["chat_slow_consumers_total",] == STUCK
        for other in others:
            async with ear(pod, other.user_id) as again:
                assert await synced(again, room) == said


async def synced(socket, room):
    """Give all seqs of a conversation as `sync` tells them."""
    held = []
    while True:
        answer = await socket.call("sync", {"conversations": {room: held[-1] if held else 0}})
        page = answer["events"][room]
        held += [item["seq"] for item in page["items"]]
        if not page["hasMore"]:
            return held
