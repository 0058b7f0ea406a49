"""The promise: every listener has every message once and in order, whatever breaks meanwhile."""

import asyncio
import json
import re
from uuid import uuid4

import aiohttp
import pytest
from clients import somebody, token
from pods import until
from troubles import calm, messages_dropped, pod_killed, pubsub_killed, redis_stopped

SENDERS = 50
LISTENERS = 40
MESSAGES = 5_000
POLLING_LISTENERS = 4
PATIENCE = 90.0
SEQ = re.compile(rb'^42\["message:new",\{"id":"msg_[0-9a-f]{32}","conversationId":"[^"]+","seq":(\d+),')


class Listener:
    """A client that keeps what it heard of one room, comes back by itself, and syncs what it missed."""

    def __init__(self, started, user_id, room, first) -> None:
        self.pods = started
        self.user_id = user_id
        self.room = room
        self.turn = first
        self.heard: list[int] = []
        self.connected = asyncio.Event()

    @property
    def held(self) -> int:
        return self.heard[-1] if self.heard else 0

    async def listen(self) -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                try:
                    await self._one_connection(http)
                except (aiohttp.ClientError, OSError):
                    await asyncio.sleep(0.05)
                self.turn += 1

    async def _one_connection(self, http) -> None:
        pod = self.pods[self.turn % len(self.pods)]
        async with http.ws_connect(pod.ws + "/socket.io/?EIO=4&transport=websocket") as socket:
            await socket.send_str("40" + json.dumps({"token": token(self.user_id)}))
            waiting: list[int] = []
            syncing = bool(self.heard)
            held = 0
            async for message in socket:
                data = message.data.encode()
                if data == b"2":
                    await socket.send_str("3")
                elif data.startswith(b"40"):
                    self.connected.set()
                    if syncing:
                        await self._ask(socket)
                elif data.startswith(b"431["):
                    page = json.loads(data[3:])[0]["events"][self.room]
                    self.heard += [item["seq"] for item in page["items"]]
                    if page["hasMore"]:
                        await self._ask(socket)
                    else:
                        syncing = False
                        # A socket may start behind what the client holds: that much it drops.
                        held = self.held
                        self.heard += [seq for seq in waiting if seq > held]
                elif found := SEQ.match(data):
                    seq = int(found[1])
                    if syncing:
                        waiting.append(seq)
                    elif seq > held:
                        self.heard.append(seq)

    async def _ask(self, socket) -> None:
        await socket.send_str("421" + json.dumps(["sync", {"conversations": {self.room: self.held}}]))


class PollingListener(Listener):
    """The same over long polling; it is never disconnected."""

    async def _one_connection(self, http) -> None:
        pod = self.pods[self.turn % len(self.pods)]
        url = pod.ws + "/socket.io/?EIO=4&transport=polling"
        async with http.get(url) as response:
            url += "&sid=" + json.loads((await response.text())[1:])["sid"]
        async with http.post(url, data="40" + json.dumps({"token": token(self.user_id)})):
            pass
        while True:
            async with http.get(url) as response:
                packets = (await response.read()).split(b"\x1e")
            for packet in packets:
                if packet == b"2":
                    async with http.post(url, data="3"):
                        continue
                elif packet.startswith(b"40"):
                    self.connected.set()
                elif found := SEQ.match(packet):
                    self.heard.append(int(found[1]))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("trouble", [calm, pubsub_killed, redis_stopped, messages_dropped, pod_killed])
async def test_every_listener_has_every_message_once_and_in_order(servers, tmp_path, http, trouble):
    people = [somebody() for _ in range(SENDERS)]
    async with trouble(servers, tmp_path) as (started, make):
        body = {"type": "group", "participantIds": people}
        headers = {"Authorization": f"Bearer {token(people[0])}"}
        async with http.post(started[0].http + "/api/conversations", json=body, headers=headers) as response:
            room = (await response.json())["id"]
        kinds = [Listener] * LISTENERS if trouble is pod_killed else [PollingListener] * POLLING_LISTENERS
        kinds += [Listener] * (LISTENERS - len(kinds))
        listeners = [made(started, people[n], room, n) for n, made in enumerate(kinds)]
        async with asyncio.TaskGroup() as group:
            listening = [group.create_task(listener.listen()) for listener in listeners]
            await asyncio.gather(*(listener.connected.wait() for listener in listeners))
            making = group.create_task(make())
            await asyncio.gather(*(_talk(http, started, n, user_id, room) for n, user_id in enumerate(people)))
            await making

            async def is_whole():
                return all(listener.held >= MESSAGES for listener in listeners)

            await until(is_whole, "all messages with all listeners", PATIENCE)
            for task in listening:
                task.cancel()
        for listener in listeners:
            assert listener.heard == list(range(1, MESSAGES + 1))


async def _talk(http, started, number, user_id, room):
    """Send one's share, each message again through the other pod until it is acknowledged."""
    headers = {"Authorization": f"Bearer {token(user_id)}"}
    for n in range(MESSAGES // SENDERS):
        body = {"content": f"{number}-{n}", "clientMessageId": uuid4().hex}
        turn = number
        while True:
            url = f"{started[turn % 2].http}/api/conversations/{room}/messages"
            try:
                async with http.post(url, json=body, headers=headers) as response:
                    if response.status in {200, 201}:
                        break
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
            turn += 1
