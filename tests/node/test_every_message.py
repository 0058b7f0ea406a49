"""The promise, with the npm client: every listener has every message once and in order, whatever breaks."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from balancer import balanced
from clients import Rest, somebody, token
from delivery import PollingListener, WebSocketListener, everybody_hears_everything, talk
from npm_client import TRANSPORTS, NpmListener
from troubles import calm, messages_dropped, pod_killed, pubsub_killed, redis_stopped

SENDERS = 4
LEAST = 100
KINDS = [*TRANSPORTS.values()] * 2


@pytest.mark.timeout(240)
@pytest.mark.parametrize("trouble", [calm, pubsub_killed, redis_stopped, messages_dropped, pod_killed])
async def test_every_listener_has_every_message_once_and_in_order(servers, tmp_path, http, npm_socket, trouble):
    people = [somebody() for _ in KINDS]
    is_over = asyncio.Event()

    def is_enough(sent: int) -> bool:
        return sent >= LEAST and is_over.is_set()

    async with AsyncExitStack() as stack:
        started, make = await stack.enter_async_context(trouble(servers, tmp_path))
        balancer = await stack.enter_async_context(balanced([pod.ws_port for pod in started]))
        room = await Rest(http, started[0].http, people[0], token(people[0])).group(*people[1:])
        clients = [
            await stack.enter_async_context(npm_socket(balancer.ws, token(user_id), **options))
            for user_id, options in zip(people, KINDS, strict=True)
        ]

        async def make_trouble() -> None:
            await make()
            is_over.set()

        listeners = [NpmListener(client, user_id, room) for client, user_id in zip(clients, people, strict=True)]
        listeners += [kind(started, people[0], room, 0) for kind in (WebSocketListener, PollingListener)]
        talks = [talk(http, started, user_id, room, is_enough) for user_id in people[:SENDERS]]
        await everybody_hears_everything(listeners, make_trouble(), talks)
        # None was told to stay away.
        assert [one for client in clients for one in client.of("disconnect") if not one["active"]] == []
