"""The socket listener: start, drain and stop of Socket.IO and its health check."""

import asyncio
import logging
import socket as sockets

from app.realtime.gate import SocketGate
from app.realtime.http.capacity import Capacity
from app.realtime.http.connection import HttpProtocol
from app.realtime.http.forwarding import SessionForwarding
from app.realtime.http.session_ids import SessionIds
from app.realtime.socketio.protocol import SocketIO
from app.runtime.connections import Connections
from app.runtime.health import Health
from app.runtime.supervisor import Supervisor
from app.usecases.deps import Deps

BACKLOG = 4096
# The last of the drain time is for what closing a connection takes.
DRAIN_SHARE = 0.8

_log = logging.getLogger(__name__)


class RealtimeServer:
    """Accepts sockets until it drains."""

    def __init__(
        self,
        deps: Deps,
        health: Health,
        supervisor: Supervisor,
        foreign: SessionForwarding,
        session_ids: SessionIds,
        capacity: Capacity,
    ) -> None:
        self._deps = deps
        self._foreign = foreign
        self._capacity = capacity
        self._io = SocketIO(deps, supervisor, session_ids, capacity.anonymous)
        engine = self._io.eio
        supervisor.loop("heartbeat", engine.heartbeat.beat_forever)
        self._gate = SocketGate(deps.settings, health, engine, foreign)
        self._connections = Connections(self._most_connections)
        self._server: asyncio.Server | None = None

    async def start(self, listening: sockets.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: HttpProtocol(self._gate, self._connections), sock=listening, backlog=BACKLOG
        )

    def _most_connections(self) -> int:
        """Tell how many connections may speak HTTP beside all else that is open."""
        taken = len(self._io.eio.sockets) + self._foreign.open_files
        return min(self._capacity.http, self._capacity.files - taken)

    async def drain(self) -> None:
        """Close all transports, spread over the drain time, so that their clients move to other pods."""
        open_sockets = list(self._io.namespace.sockets.values())
        if not open_sockets:
            return
        _log.info("moving %d sockets to other pods", len(open_sockets))
        loop = asyncio.get_running_loop()
        pause = self._deps.settings.drain_timeout * DRAIN_SHARE / len(open_sockets)
        due = loop.time()
        async with asyncio.TaskGroup() as closing:
            for socket in open_sockets:
                await asyncio.sleep(max(0.0, due - loop.time()))
                due += pause
                closing.create_task(socket.link.close())

    async def stop(self) -> None:
        """Take no connections any more and end those that are left."""
        if self._server is not None:
            self._server.close()
        async with asyncio.TaskGroup() as closing:
            for session in list(self._io.eio.sockets.values()):
                closing.create_task(session.close())
        self._connections.close()
        await self._foreign.close()
