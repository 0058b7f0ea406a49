"""A client that connects and then reads nothing any more."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from clients import token
from pods import Pod
from proxy import close

HANDSHAKE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
NO_MASK = b"\0\0\0\0"


@asynccontextmanager
async def stuck_client(pod: Pod, user_id: str) -> AsyncIterator[None]:
    """Open a WebSocket that is not read beyond its handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.ws_port, limit=2048)
    try:
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        packet = ("40" + json.dumps({"token": token(user_id)})).encode()
        writer.write(bytes([0x81, 0x80 | 126]) + len(packet).to_bytes(2) + NO_MASK + packet)
        yield
    finally:
        await close(writer)
