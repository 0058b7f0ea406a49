"""How bytes reach a client, and how its connection ends: all that is known of Engine.IO's sessions stands here.

Written for python-engineio 4.15.
"""

import asyncio
import contextlib
from typing import Any

import engineio
from aiohttp import web
from engineio.exceptions import SocketIsClosedError
from engineio.packet import MESSAGE, Packet

from app.realtime.packets import DISCONNECT
from app.realtime.session_ids import SessionIds

# A client that is not told to come back by itself has this long to read why.
GRACE_AFTER_REFUSAL = 0.5
# Above this a client is behind: what is of use only now is not queued for it.
BEHIND_BYTES = 65_536


class ByteQueue(asyncio.Queue[Any]):
    """A session's queue, which knows how many bytes wait in it."""

    def _init(self, maxsize: int) -> None:
        self.bytes = 0
        super()._init(maxsize)

    def _put(self, item: Any) -> None:
        self.bytes += _size(item)
        super()._put(item)

    def _get(self) -> Any:
        item = super()._get()
        self.bytes -= _size(item)
        return item

    def discard(self) -> None:
        """Let go of all that waits."""
        while not self.empty():
            self.get_nowait()
            self.task_done()


def _size(item: Any) -> int:
    data = getattr(item, "data", None)
    return len(data) if isinstance(data, str | bytes) else 0


class Transport:
    """One client's Engine.IO session."""

    __slots__ = ("_engine", "_first", "_is_cut", "_most", "_session", "session_id")

    def __init__(self, engine: "Engine", session_id: str, first: web.Request | None) -> None:
        self._engine = engine
        self._session: Any = engine.sockets[session_id]
        self._most = engine.max_unsent_bytes
        self._first = first
        self._is_cut = False
        self.session_id = session_id

    @property
    def is_closed(self) -> bool:
        return bool(self._session.closed or self._session.closing)

    def push(self, packet: str) -> None:
        """Queue the text of a Socket.IO packet; a client that cannot keep up is cut."""
        queue = self._session.queue
        if self._session.closed or self._is_cut:
            return
        if queue.bytes + len(packet) > self._most:
            self._cut()
        else:
            queue.put_nowait(Packet(MESSAGE, packet))

    def push_if_idle(self, packet: str) -> None:
        """Queue a packet that is of use only now, unless the client is behind."""
        if self._session.queue.bytes < BEHIND_BYTES:
            self.push(packet)

    def push_disconnect(self) -> None:
        """Queue the packet after which socket.io-client does not come back by itself."""
        self.push(DISCONNECT)

    def _cut(self) -> None:
        """End the connection of a client that reads too slowly, and forget what it has not read."""
        self._is_cut = True
        self._session.queue.discard()
        self._engine.cut(self.session_id, self._first)
        self._session.queue.put_nowait(None)

    async def close(self) -> None:
        """End the connection, once what is queued was written; socket.io-client connects again by itself."""
        with contextlib.suppress(SocketIsClosedError):
            await self._session.close(wait=False, reason=self._engine.reason.SERVER_DISCONNECT)
        # Ends the writer of a WebSocket, which then closes it, and answers a poll that waits.
        self._session.queue.put_nowait(None)


class Engine(engineio.AsyncServer):  # type: ignore[misc]
    """Engine.IO's server with measured queues, ids that name their pod, and connections that can be cut."""

    max_unsent_bytes: int
    session_ids: SessionIds

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The connections of WebSockets that began as polling; the others are those of their first request.
        self.upgrades: dict[str, web.Request] = {}

    def create_queue(self, *_: Any, **__: Any) -> ByteQueue:
        return ByteQueue()

    def generate_id(self) -> str:
        return self.session_ids.new()

    def cut(self, session_id: str, first: web.Request | None) -> None:
        """Abort the connection of a session, whatever it is at."""
        request = self.upgrades.get(session_id, first)
        if request is not None and request.transport is not None:
            request.transport.abort()
