"""Clients that poll through a pod that does not have their sessions, many at a time: none loses its own."""

import asyncio
import json

import aiohttp
import pytest
from clients import somebody, token
from pods import pods

POLLING = "/socket.io/?EIO=4&transport=polling"
# Of each pod half of them: more than a client of HTTP has connections by default.
CLIENTS = 280
LASTS = 6.0


class Poller:
    """A client that polls as socket.io-client does, each request on whatever connection is free."""

    def __init__(self, http, owner, other):
        self._http = http
        self._owner = owner
        self._other = other
        self.polls = 0

    async def open(self):
        async with self._http.get(self._owner.ws + POLLING) as response:
            assert response.status == 200
            self._url = f"{self._other.ws}{POLLING}&sid={json.loads((await response.text())[1:])['sid']}"
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
async def test_many_clients_that_poll_through_another_pod_keep_their_sessions(servers, tmp_path):
    async with (
        pods(servers.environment(), tmp_path, 2) as both,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        pollers = [Poller(http, *both[:: (-1) ** number]) for number in range(CLIENTS)]
        for begin in range(0, CLIENTS, 50):
            await asyncio.gather(*(poller.open() for poller in pollers[begin : begin + 50]))
        # All wait for something at the same time.
        await asyncio.gather(*(poller.poll_on(asyncio.get_running_loop().time() + LASTS) for poller in pollers))
        assert min(poller.polls for poller in pollers) >= 2
