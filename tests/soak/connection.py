"""One Socket.IO connection by hand: lean, so that forty of them leave the machine to the service.

It behaves as socket.io-client does: polling, WebSocket, or polling that is upgraded; it answers pings, notices
silence, and never mends what the service sends.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp

HANDSHAKE_TIMEOUT = 10.0
POST_TIMEOUT = 15.0
# The service ends the transport of who has said goodbye within a second.
GOODBYE_TIMEOUT = 2.0
# Longer than a pod stands still, twice, and than any deadline of the service.
ACK_TIMEOUT = 60.0
PACKETS_PER_POST = 16
SEPARATOR = "\x1e"
TRANSPORTS = ("websocket", "polling", "upgrade")
# What aiohttp and the kernel raise when a connection cannot be had, or ends.
AWAY = (aiohttp.ClientError, OSError, TimeoutError)


class LostError(Exception):
    """The connection ended; what was asked on it may have been done or not."""


class SilenceError(LostError):
    """No acknowledgement came, while the connection goes on."""


class RefusedError(Exception):
    """The service ended the connection by a packet, after which socket.io-client does not come back."""


class Connection:
    """Open it, use it until `over` is done, close it."""

    def __init__(
        self, http: aiohttp.ClientSession, base: str, token: str, hear: Callable[[str, Any], None]
    ) -> None:
        self._http = http
        self._url = base + "/socket.io/?EIO=4&transport="
        self._token = token
        self._hear = hear
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._patience = HANDSHAKE_TIMEOUT
        self._tasks: list[asyncio.Task[None]] = []
        self._connected = asyncio.get_running_loop().create_future()
        self._polls = False
        self._posting = asyncio.Lock()
        self.sid = ""
        # Set, or failed with RefusedError, when the connection has ended.
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.why = ""

    async def open(self, transport: str) -> None:
        """Connect; raises LostError and RefusedError."""
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                if transport == "websocket":
                    await self._open_websocket()
                else:
                    await self._open_polling()
                self._outgoing.put_nowait("40" + json.dumps({"token": self._token}))
                await asyncio.wait([self._connected, self.over], return_when=asyncio.FIRST_COMPLETED)
                self._raise_if_over()
        except AWAY as error:
            await self.close()
            raise LostError(f"{type(error).__name__}: {error}") from error
        except (LostError, RefusedError):
            await self.close()
            raise
        if transport == "upgrade":
            self._run(self._upgrade)

    def _raise_if_over(self) -> None:
        if self.over.done():
            self.over.result()
            raise LostError("the connection ended before CONNECT")

    async def _open_websocket(self) -> None:
        self._socket = await self._http.ws_connect(self._url + "websocket", max_msg_size=0)
        self._take((await self._socket.receive()).data)
        self._run(self._read_websocket, self._socket)
        self._run(self._write_websocket, self._socket)

    async def _open_polling(self) -> None:
        self._polls = True
        async with self._http.get(self._url + "polling", raise_for_status=True) as response:
            self._take(await response.text())
        self._run(self._poll)
        self._run(self._post)

    async def _read_websocket(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await socket.receive(timeout=self._patience)
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise LostError(f"the WebSocket ended: {message.type.name} {message.data}")
            self._take(message.data)

    async def _write_websocket(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await socket.send_str(await self._outgoing.get())

    async def _poll(self) -> None:
        url = f"{self._url}polling&sid={self.sid}"
        while self._polls:
            async with asyncio.timeout(self._patience), self._http.get(url, raise_for_status=True) as response:
                packets = await response.text()
            for packet in packets.split(SEPARATOR):
                self._take(packet)

    async def _post(self) -> None:
        url = f"{self._url}polling&sid={self.sid}"
        while self._polls:
            packets = [await self._outgoing.get()]
            while not self._outgoing.empty() and len(packets) < PACKETS_PER_POST:
                packets.append(self._outgoing.get_nowait())
            async with self._posting:
                body = SEPARATOR.join(packets)
                async with asyncio.timeout(POST_TIMEOUT), self._http.post(url, data=body, raise_for_status=True):
                    pass

    async def _upgrade(self) -> None:
        """Move to a WebSocket, as socket.io-client does; where that cannot be had, polling goes on."""
        poll, post = self._tasks[:2]
        socket = None
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                socket = await self._http.ws_connect(f"{self._url}websocket&sid={self.sid}", max_msg_size=0)
                await socket.send_str("2probe")
                is_answered = (await socket.receive()).data == "3probe"
        except AWAY:
            is_answered = False
        if socket is None or not is_answered:
            if socket is not None:
                await _close(socket)
            return
        self._polls = False
        # The service answers the pending poll, so that nothing is under way when the transport changes.
        await asyncio.wait([poll])
        async with self._posting:
            post.cancel()
        self._socket = socket
        await socket.send_str("5")
        self._run(self._write_websocket, socket)
        await self._read_websocket(socket)

    def _take(self, packet: Any) -> None:
        """Take in an Engine.IO packet."""
        if not isinstance(packet, str):
            raise LostError(f"not a packet: {packet!r}")
        if packet == "2":
            self._outgoing.put_nowait("3")
        elif packet.startswith("4"):
            self._take_message(packet[1:])
        elif packet.startswith("0"):
            told = json.loads(packet[1:])
            self.sid = told["sid"]
            self._patience = (told["pingInterval"] + told["pingTimeout"]) / 1000
        elif packet == "1":
            raise LostError("the service closed the session")

    def _take_message(self, packet: str) -> None:
        """Take in a Socket.IO packet."""
        kind, rest = packet[:1], packet[1:]
        if kind == "2":
            event, *data = json.loads(rest)
            self._hear(event, data[0] if data else None)
        elif kind == "3":
            start = rest.index("[")
            asked = self._asked.pop(int(rest[:start]), None)
            if asked is not None and not asked.done():
                asked.set_result(json.loads(rest[start:])[0])
        elif kind == "0":
            if not self._connected.done():
                self._connected.set_result(None)
        elif kind in "14":
            raise RefusedError(packet)

    def ask(self, event: str, data: Any) -> "asyncio.Future[Any]":
        """Emit an event now; the future gets its acknowledgement, or LostError."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.over.done():
            answer.set_exception(LostError("the connection is over"))
            return answer
        self._number += 1
        self._asked[self._number] = answer
        self._outgoing.put_nowait(f"42{self._number}" + json.dumps([event, data], separators=(",", ":")))
        return answer

    async def call(self, event: str, data: Any) -> Any:
        """Emit and wait for the acknowledgement; raises LostError, and SilenceError where none comes in time."""
        try:
            async with asyncio.timeout(ACK_TIMEOUT):
                return await self.ask(event, data)
        except TimeoutError as error:
            raise SilenceError(f"no acknowledgement of {event} within {ACK_TIMEOUT:g} s") from error

    async def close(self, *, politely: bool = False) -> None:
        """End it, by a DISCONNECT packet or by going away."""
        if politely and not self.over.done():
            self._outgoing.put_nowait("41")
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_TIMEOUT):
                    await asyncio.wait([self.over])
        self._end(None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            await _close(self._socket)

    def _run(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        async def supervised() -> None:
            try:
                await work(*arguments)
            except (LostError, *AWAY) as error:
                self._end(None, error)
            except RefusedError as error:
                self._end(error)

        self._tasks.append(asyncio.create_task(supervised()))

    def _end(self, refusal: RefusedError | None, why: BaseException | None = None) -> None:
        if self.over.done():
            return
        self.why = repr(refusal or why)
        if refusal is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(refusal)
            # Whoever waits gets it; nobody need.
            self.over.exception()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(LostError(f"the connection ended: {self.why}"))
                asked.exception()
        self._asked.clear()


async def _close(socket: aiohttp.ClientWebSocketResponse) -> None:
    with suppress(*AWAY):
        async with asyncio.timeout(1):
            await socket.close()
