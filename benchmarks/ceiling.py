"""A server that does next to nothing, to see how much the load generator can take by itself.

It speaks just enough Socket.IO to pass for a room in which nothing is checked, stored or awaited: what is sent
in one turn of the loop goes to everybody as one write.
"""

import asyncio
import os
import struct
from typing import cast

import uvloop

from benchmarks.load import Client, Load
from benchmarks.machine import SERVER_CORES
from benchmarks.processes import PYTHON, start

SOCKETS = 1000
IN_FLIGHT = 64
TOKEN = "none"
ROOM = "room"


async def measure(load: Load, warm_up: float, seconds: float) -> float:
    """Give how many deliveries per second the load generator takes."""
    server = await start([PYTHON, "-m", "benchmarks.ceiling"], {}, load.folder / "ceiling.log", SERVER_CORES[0])
    try:
        clients = [Client(server.ws_port, TOKEN, ROOM)] * SOCKETS
        options = {"in_flight": IN_FLIGHT, "sender_every": SOCKETS, "warm_up": warm_up, "seconds": seconds}
        measured = await load.run("rooms", clients, [server], **options)
    finally:
        await server.stop()
    return measured["delivered_per_second"]


def _frame(text: bytes) -> bytes:
    head = struct.pack("!BB", 0x81, len(text)) if len(text) < 126 else struct.pack("!BBH", 0x81, 126, len(text))
    return head + text


def _texts(unread: bytearray) -> list[bytes]:
    """Take whole frames off what a client has sent; none of them is longer than 64 KiB."""
    texts = []
    while len(unread) >= 8:
        length, head = unread[1] & 127, 2
        if length == 126:
            length, head = int.from_bytes(unread[2:4], "big"), 4
        if len(unread) < head + 4 + length:
            break
        mask = unread[head : head + 4] * (length // 4 + 1)
        masked = unread[head + 4 : head + 4 + length]
        texts.append(bytes(a ^ b for a, b in zip(masked, mask, strict=False)))
        del unread[: head + 4 + length]
    return texts


class Room:
    """Everybody who is connected, and what was sent in this turn of the loop."""

    def __init__(self) -> None:
        self.members: list[asyncio.WriteTransport] = []
        self._seq = 0
        self._sent: list[bytes] = []

    def send(self, content: bytes) -> None:
        if not self._sent:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._seq += 1
        self._sent.append(_frame(b'42["message:new",{"seq":%d,"sent":%s}]' % (self._seq, content)))

    def _deliver(self) -> None:
        joined = b"".join(self._sent)
        self._sent.clear()
        for member in self.members:
            member.write(joined)


class Connection(asyncio.Protocol):
    """One client; a request that is no upgrade is answered with 200."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._unread = bytearray()
        self._is_upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's by class.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if self._is_upgraded:
            for text in _texts(self._unread):
                self._on_text(text)
        elif b"\r\n\r\n" in self._unread:
            self._on_request()

    def _on_request(self) -> None:
        if b"Upgrade" not in self._unread:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self._transport.close()
            return
        self._is_upgraded = True
        self._unread.clear()
        upgraded = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        self._transport.write(upgraded + _frame(b"0{}"))

    def _on_text(self, text: bytes) -> None:
        if text.startswith(b"42"):
            number, _, content = text[2:].partition(b"[")
            self._transport.write(_frame(b'43%s[{"ok":true}]' % number))
            self._room.send(b"[" + content)
        elif text.startswith(b"40"):
            self._transport.write(_frame(b'40{"sid":"none"}'))
            self._room.members.append(self._transport)


async def _serve() -> None:
    room = Room()
    loop = asyncio.get_running_loop()
    for setting in ("HTTP_PORT", "WS_PORT"):
        await loop.create_server(lambda: Connection(room), "127.0.0.1", int(os.environ[setting]))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
