"""Clients that keep what they heard of one room, come back by themselves, and sync what they missed."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol
from uuid import uuid4

import aiohttp
from clients import token
from pods import Pod, until

PATIENCE = 90.0
SEQ = re.compile(rb'^42\["message:new",\{"id":"msg_[0-9a-f]{32}","conversationId":"[^"]+","seq":(\d+),')


class Ledger:
    """The seqs of one room that a client has: it connects first, then syncs, and drops what it holds."""

    def __init__(self, room: str) -> None:
        self.room = room
        self.heard: list[int] = []
        self.connected = asyncio.Event()
        self._waiting: list[int] = []
        self._is_syncing = False
        self._start = 0

    @property
    def held(self) -> int:
        return self.heard[-1] if self.heard else 0

    @property
    def question(self) -> dict[str, Any]:
        return {"conversations": {self.room: self.held}}

    def connect(self) -> None:
        """Begin anew on a new connection, on which `question` is to be asked."""
        self._is_syncing = True
        self._waiting = []
        self.connected.set()

    def answer(self, answer: dict[str, Any]) -> bool:
        """Take in an answer to `question`; True where it is to be asked again."""
        if not answer["ok"]:
            return True
        page = answer["events"][self.room]
        self.heard += [item["seq"] for item in page["items"]]
        if page["hasMore"]:
            return True
        self._is_syncing = False
        # A socket may start behind what the client holds: that much it drops.
        self._start = self.held
        self.heard += [seq for seq in self._waiting if seq > self._start]
        return False

    def hear(self, seq: int) -> None:
        if self._is_syncing:
            self._waiting.append(seq)
        elif seq > self._start:
            self.heard.append(seq)


class Listener(Protocol):
    """A client that listens until it is cancelled."""

    ledger: Ledger

    async def listen(self) -> None: ...


class WebSocketListener:
    """A client of the service over a WebSocket, to the next pod each time."""

    def __init__(self, started: list[Pod], user_id: str, room: str, first: int) -> None:
        self._pods = started
        self._auth = json.dumps({"token": token(user_id)})
        self._turn = first
        self.ledger = Ledger(room)

    async def listen(self) -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                pod = self._pods[self._turn % len(self._pods)]
                try:
                    await self._one_connection(http, pod.ws + "/socket.io/?EIO=4&transport=")
                except (aiohttp.ClientError, OSError):
                    await asyncio.sleep(0.05)
                self._turn += 1

    async def _one_connection(self, http: aiohttp.ClientSession, url: str) -> None:
        async with http.ws_connect(url + "websocket") as socket:
            await socket.send_str("40" + self._auth)
            async for message in socket:
                for reply in self._replies(message.data.encode()):
                    await socket.send_str(reply)

    def _replies(self, packet: bytes) -> list[str]:
        """Take in a packet; gives what is to be sent."""
        if packet == b"2":
            return ["3"]
        if packet.startswith(b"40"):
            self.ledger.connect()
            return [self._question()]
        if packet.startswith(b"431["):
            if self.ledger.answer(json.loads(packet[3:])[0]):
                return [self._question()]
        elif found := SEQ.match(packet):
            self.ledger.hear(int(found[1]))
        return []

    def _question(self) -> str:
        return "421" + json.dumps(["sync", self.ledger.question])


class PollingListener(WebSocketListener):
    """The same over long polling."""

    async def _one_connection(self, http: aiohttp.ClientSession, url: str) -> None:
        url += "polling"
        async with http.get(url, raise_for_status=True) as response:
            url += "&sid=" + json.loads((await response.text())[1:])["sid"]
        await self._post(http, url, "40" + self._auth)
        while True:
            async with http.get(url, raise_for_status=True) as response:
                packets = (await response.read()).split(b"\x1e")
            for packet in packets:
                for reply in self._replies(packet):
                    await self._post(http, url, reply)

    async def _post(self, http: aiohttp.ClientSession, url: str, packet: str) -> None:
        async with http.post(url, data=packet, raise_for_status=True):
            pass


async def talk(
    http: aiohttp.ClientSession, started: list[Pod], user_id: str, room: str, is_enough: Callable[[int], bool]
) -> int:
    """Send until it is enough, each message again through another pod until it is acknowledged; gives how many."""
    headers = {"Authorization": f"Bearer {token(user_id)}"}
    sent = 0
    turn = ord(user_id[-1])
    while not is_enough(sent):
        body = {"content": f"{user_id}-{sent}", "clientMessageId": uuid4().hex}
        while True:
            url = f"{started[turn % len(started)].http}/api/conversations/{room}/messages"
            try:
                async with http.post(url, json=body, headers=headers) as response:
                    if response.status in {200, 201}:
                        break
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
            turn += 1
        sent += 1
    return sent


async def everybody_hears_everything(
    listeners: Sequence[Listener], making: Coroutine[Any, Any, None], talks: Sequence[Coroutine[Any, Any, int]]
) -> int:
    """Let people talk while trouble is made, and all listen; gives how much was said."""
    async with asyncio.TaskGroup() as group:
        listening = [group.create_task(listener.listen()) for listener in listeners]
        await asyncio.gather(*(listener.ledger.connected.wait() for listener in listeners))
        trouble = group.create_task(making)
        said = sum(await asyncio.gather(*talks))
        await trouble

        async def is_whole() -> bool:
            return all(listener.ledger.held >= said for listener in listeners)

        await until(is_whole, "all messages with all listeners", PATIENCE)
        for task in listening:
            task.cancel()
    for listener in listeners:
        assert listener.ledger.heard == list(range(1, said + 1))
    return said
