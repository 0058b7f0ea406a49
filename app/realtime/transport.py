"""How bytes reach a client, and how its connection ends: all that is known of Engine.IO stands here."""

import contextlib
from typing import Any

import engineio
from engineio.exceptions import SocketIsClosedError
from engineio.packet import MESSAGE, Packet

from app.realtime.packets import DISCONNECT

# A client that is not told to come back by itself has this long to read why.
GRACE_AFTER_REFUSAL = 0.5


class Transport:
    """One client's Engine.IO session; written for python-engineio 4.15."""

    __slots__ = ("_server", "_session")

    def __init__(self, server: engineio.AsyncServer, session_id: str) -> None:
        self._server = server
        self._session: Any = server.sockets[session_id]

    def push(self, packet: str) -> None:
        """Queue the text of a Socket.IO packet."""
        if not self._session.closed:
            self._session.queue.put_nowait(Packet(MESSAGE, packet))

    def push_disconnect(self) -> None:
        """Queue the packet after which socket.io-client does not come back by itself."""
        self.push(DISCONNECT)

    async def close(self) -> None:
        """End the connection, once what is queued was written; socket.io-client connects again by itself."""
        with contextlib.suppress(SocketIsClosedError):
            await self._session.close(wait=False, reason=self._server.reason.SERVER_DISCONNECT)
        # Ends the writer of a WebSocket, which then closes it, and answers a poll that waits.
        self._session.queue.put_nowait(None)
