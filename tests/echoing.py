"""A listener whose sessions say back what they hear, and a client that writes its frames by hand."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from app.config.types import Secret
from app.realtime.engineio.engine import MAX_MESSAGE_BYTES, Engine
from app.realtime.engineio.session import Session
from app.realtime.engineio.websocket import WebSocket
from app.realtime.http.connection import HttpProtocol
from app.realtime.http.requests import Request, Response
from app.realtime.http.session_ids import SessionIds
from app.realtime.socketio.packets import acknowledgement, message_frame
from app.runtime.connections import Connections
from app.runtime.supervisor import Supervisor, supervised

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
MASK = b"\x5a\x00\xff\x17"
PATIENCE = 20


def digest(message: bytes) -> str:
    """Give what is said back of bytes: no server of ours writes any."""
    return hashlib.sha256(message).hexdigest()


def new_engine(supervisor: Supervisor) -> Engine:
    """Make an engine whose sessions are sockets from the start and say back what they hear."""
    receiver = SimpleNamespace(
        take_now=lambda *_: False, clip=lambda message: message, acknowledgement=acknowledgement
    )
    made = Engine(
        receiver,
        supervisor,
        SessionIds("pod", Secret("secret")),
        (),
        max_unsent_bytes=8 << 20,
        max_clients=10_000,
        max_anonymous=10_000,
    )

    async def echo(session: Session, message: str | bytes) -> None:
        said = message if isinstance(message, str) else digest(message)
        session.push(message_frame(said.encode()))

    async def forget(session: Session) -> None:
        session.socket = None
        made.anonymous.leave(session)

    receiver.on_message, receiver.on_end = echo, forget
    return made


class Gate:
    """Lets everybody in."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def body_limit(self, _: Request) -> int:
        return MAX_MESSAGE_BYTES

    async def answer(self, request: Request) -> Response:
        response: Response = await self._engine.handle_request(request)
        return response

    def upgrade(self, request: Request, transport: asyncio.Transport, ahead: bytes) -> None:
        session = self._engine.sockets.get(request.arguments.get("sid", ""))
        before = set(self._engine.sockets)
        WebSocket(self._engine, session, transport).take_over(request, ahead)
        for opened in set(self._engine.sockets) - before:
            self._engine.sockets[opened].socket = object()


@asynccontextmanager
async def echo_server() -> AsyncIterator[tuple[Engine, int]]:
    """Listen for the length of a block; gives the engine and the port."""
    async with supervised() as supervisor:
        engine = new_engine(supervisor)
        connections = Connections(lambda: 10_000)
        server = await asyncio.get_running_loop().create_server(
            lambda: HttpProtocol(Gate(engine), connections), "127.0.0.1", 0
        )
        try:
            yield engine, server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for session in list(engine.sockets.values()):
                await session.close()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, mask: bytes = MASK) -> bytes:
    """Write a frame as a client does."""
    size = len(payload)
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    pad = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return head + mask + masked.to_bytes(size, "big")


class RawSocket:
    """A WebSocket of which every byte is written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""

    async def send(self, chunks: Iterable[bytes]) -> None:
        """Send bytes, each chunk by itself."""
        for chunk in chunks:
            self.writer.write(chunk)
            await self.writer.drain()

    async def read(self) -> tuple[int, bytes] | None:
        """Read a frame; None where the connection is over, as a client that is not reset sees it."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.read(2)
            if not head:
                return None
            first, second = head if len(head) == 2 else head + await self.reader.readexactly(1)
            size = second
            if size >= 126:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
            assert first & 0x70 == 0
            assert first & 0x80
            return first & 0xF, await self.reader.readexactly(size)

    async def rest(self) -> list[tuple[int, bytes]]:
        """Read all frames until the connection is over."""
        frames = []
        while (found := await self.read()) is not None:
            frames.append(found)
        return frames


@asynccontextmanager
async def raw_socket(port: int, *, headers: bytes = b"", **options: Any) -> AsyncIterator[RawSocket]:
    """Open a WebSocket for the length of a block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4 << 20, **options)
    try:
        opened = RawSocket(reader, writer)
        writer.write(UPGRADE + headers + b"\r\n")
        opened.head = await reader.readuntil(b"\r\n\r\n")
        opening = await opened.read()
        assert opening is not None
        assert opening[1].startswith(b'0{"sid"')
        yield opened
    finally:
        writer.close()
