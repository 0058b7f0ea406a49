"""Clients that poll, many at a time, behind a load balancer without stickiness: none loses its session."""

import asyncio
import json

import aiohttp
import pytest
from balancer import balanced
from clients import somebody, token
from pods import pods

POLLING = "/socket.io/?EIO=4&transport=polling"
# More than one client of HTTP has connections by default, several times.
CLIENTS = 250
LASTS = 8.0


class Poller:
    """A client that polls as socket.io-client does, each request on whatever connection is free."""

    def __init__(self, http, address):
        self._http = http
        self._address = address
        self.polls = 0

    async def open(self):
        async with self._http.get(self._address + POLLING) as response:
            assert response.status == 200
            self._url = f"{self._address}{POLLING}&sid={json.loads((await response.text())[1:])['sid']}"
        await self.say("40" + json.dumps({"token": token(somebody())}))
        assert (await self.poll()).startswith("40")

    async def say(self, packet):
        async with self._http.post(self._url, data=packet) as response:
            assert (response.status, await response.text()) == (200, "OK")

    async def poll(self):
        async with self._http.get(self._url) as response:
            assert response.status == 200, await response.text()
            self.polls += 1
            return await response.text()

    async def poll_on(self, until):
        """Poll until a time, with something to be told every now and then."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            polled = asyncio.create_task(self.poll())
            await asyncio.sleep(1)
            await self.say('421["presence:ping",{}]')
            while '431[{"ok":true}]' not in await polled:
                polled = asyncio.create_task(self.poll())


@pytest.mark.timeout(180)
async def test_many_clients_that_poll_keep_their_sessions_whichever_pod_they_reach(servers, tmp_path):
    async with (
        pods(servers.environment(), tmp_path, 2) as both,
        balanced([pod.ws_port for pod in both]) as balancer,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        pollers = [Poller(http, balancer.ws) for _ in range(CLIENTS)]
        for begin in range(0, CLIENTS, 50):
            await asyncio.gather(*(poller.open() for poller in pollers[begin : begin + 50]))
        # All wait for something at the same time, and half of them through the other pod.
        await asyncio.gather(*(poller.poll_on(asyncio.get_running_loop().time() + LASTS) for poller in pollers))
        assert min(poller.polls for poller in pollers) >= 2
