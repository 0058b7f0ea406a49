"""A hundred pages behind a load balancer without stickiness: each connects and upgrades the first time."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from balancer import balanced
from clients import somebody, token

WAVES = 10
CLIENTS = 10


@pytest.mark.timeout(240)
async def test_every_page_is_connected_and_upgraded_at_its_first_attempt(cluster, npm_socket):
    upgraded = 0
    async with balanced([pod.ws_port for pod in cluster]) as balancer:
        for _ in range(WAVES):
            async with AsyncExitStack() as stack:
                clients = await asyncio.gather(
                    *(
                        stack.enter_async_context(npm_socket(balancer.ws, token(somebody())))
                        for _ in range(CLIENTS)
                    )
                )
                for client in clients:
                    await client.wait_for("open", transport="polling")
                    await client.wait_for("connect")
                    await client.wait_for("upgrade", transport="websocket")
                    assert await client.call("presence:ping", {}) == {"ok": True}
                    assert client.of("connect_error") == client.of("disconnect") == client.of("reconnect") == []
                    upgraded += 1
    assert upgraded == WAVES * CLIENTS
