"""The npm client comes back by itself wherever the service ends a connection, and is whole after `sync`."""

import asyncio
import secrets
import signal
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from balancer import balanced
from clients import Rest, somebody, token
from gate import gated
from npm_client import TRANSPORT_REASONS, TRANSPORTS, NpmListener
from pods import pods, until

OUTAGE = 5.0
ROUND = 20
# What the kernel takes from the pod for each connection, by its own settings, is some megabytes.
MOST_MESSAGES = 5000


@pytest.fixture
def listeners(npm_socket, http):
    """Run an npm client of each kind, all in one room with somebody who speaks to a pod: gives her and them."""

    @asynccontextmanager
    async def run(pod, url):
        anna, *others = [somebody() for _ in range(len(TRANSPORTS) + 1)]
        speaker = Rest(http, pod.http, anna, token(anna))
        speaker.room = await speaker.group(*others)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            made = []
            for user_id, options in zip(others, TRANSPORTS.values(), strict=True):
                client = await stack.enter_async_context(npm_socket(url, token(user_id), **options))
                made.append(NpmListener(client, user_id, speaker.room))
            listening = [group.create_task(listener.listen()) for listener in made]
            for listener, kind in zip(made, TRANSPORTS, strict=True):
                await listener.client.wait_for("upgrade" if kind == "upgrade" else "connect")
            yield speaker, made
            for task in listening:
                task.cancel()

    return run


async def all_have(listeners, count):
    """Wait until all have so much, each once and in order."""

    async def is_whole():
        return all(listener.ledger.held >= count for listener in listeners)

    await until(is_whole, "all messages with all listeners", 30)
    for listener in listeners:
        assert listener.ledger.heard == list(range(1, count + 1))


def ends(listener):
    return listener.client.of("disconnect")


async def test_clients_move_over_when_their_pod_drains(servers, tmp_path, listeners):
    async with (
        pods(servers.environment(), tmp_path, 2) as (leaving, staying),
        balanced([leaving.ws_port, staying.ws_port]) as balancer,
        listeners(staying, balancer.ws) as (anna, balanced_ones),
        listeners(staying, leaving.ws) as (ben, moved_ones),
    ):
        await anna.say(anna.room, "before")
        await ben.say(ben.room, "before")
        leaving.signal(signal.SIGTERM)
        for number in range(20):
            await anna.say(anna.room, f"{number}")
            await ben.say(ben.room, f"{number}")
        assert await leaving.exit_code() == 0
        # Behind a balancer they find the other pod.
        await anna.say(anna.room, "after")
        await all_have(balanced_ones, 22)
        for listener in moved_ones:
            await listener.client.wait_for("disconnect")
        await leaving.start()
        await ben.say(ben.room, "after")
        await all_have(moved_ones, 22)
        for listener in (*balanced_ones, *moved_ones):
            assert {end["reason"] for end in ends(listener)} <= TRANSPORT_REASONS
            assert [end for end in ends(listener) if not end["active"]] == []
        assert leaving.errors() == staying.errors() == []


async def test_clients_that_were_cut_for_not_reading_come_back(servers, tmp_path, listeners):
    async with (
        pods(servers.environment(), tmp_path, 1) as (pod,),
        gated(pod.ws + "/") as gate,
        listeners(pod, gate.url.rstrip("/")) as (anna, stuck),
    ):
        gate.hold()
        # One that polls holds no connection: when it is gone is another matter.
        on_websocket = {
            listener.user_id for listener, kind in zip(stuck, TRANSPORTS, strict=True) if kind != "polling"
        }

        async def online():
            return set((await anna.get(f"/api/conversations/{anna.room}/presence")).json["online"])

        said = 0
        while await online() & on_websocket:
            # What the client's extension of WebSocket cannot compress.
            await asyncio.gather(*(anna.say(anna.room, secrets.token_urlsafe(6000)) for _ in range(ROUND)))
            said += ROUND
            assert said < MOST_MESSAGES, "they are never cut"
        gate.release()
        for listener in stuck:
            await listener.client.wait_for("connect", 2)
        await anna.say(anna.room, "after")
        await all_have(stuck, said + 1)
        for listener in stuck:
            (end,) = ends(listener)
            assert end["reason"] in TRANSPORT_REASONS
            assert end["active"] is True


async def test_clients_keep_their_sockets_while_postgresql_is_away(servers, tmp_path, listeners):
    async with (
        gated(servers.database_url) as gate,
        pods({**servers.environment(), "DATABASE_URL": gate.url}, tmp_path, 1) as (pod,),
        listeners(pod, pod.ws) as (anna, kept),
    ):
        await anna.say(anna.room, "before")
        await all_have(kept, 1)
        gate.shut()
        await asyncio.sleep(OUTAGE)
        for listener in kept:
            # Beside the numbers of `sync`, which the listener asks for itself.
            answer = await listener.client.call("message:send", {"conversationId": anna.room, "content": "during"})
            assert answer["error"]["code"] == "SERVICE_UNAVAILABLE"
        gate.open()

        async def is_ready():
            return (await anna.get("/health/ready")).status == 200

        await until(is_ready, "ready again")
        await anna.say(anna.room, "after")
        await all_have(kept, 2)
        for listener in kept:
            assert (ends(listener), len(listener.client.of("connect"))) == ([], 1)
            page = (await listener.client.call("sync", {"conversations": {anna.room: 0}}))["events"][anna.room]
            assert [item["seq"] for item in page["items"]] == listener.ledger.heard
