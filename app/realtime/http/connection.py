"""An HTTP connection of the socket listener: requests are answered in their order, until it ends or upgrades.

    connected ── request ──▶ answering ── answered ──▶ waiting for the next ── … ──▶ closed
        │                        └── refused, or the last one ──▶ parting ──▶ closed
        └── an upgrade to WebSocket: the transport changes hands, and this protocol is done

What comes while a request is answered is kept unread, and past a limit not taken from the kernel.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Protocol, cast

from app.realtime.http.requests import Request, RequestReader, Response, Stage, error, write
from app.runtime.connections import Connections

KEEP_ALIVE_TIMEOUT = 75.0
# How long each part of a request may take; a connection that was just opened waits for a head.
TIMEOUTS = {Stage.REQUEST: KEEP_ALIVE_TIMEOUT, Stage.HEAD: 10.0, Stage.BODY: 30.0}
# How long a client may take for an answer.
WRITE_TIMEOUT = 30.0
# What a client may go on sending after a refusal, so that it comes to read that, and for how long.
PARTING_TIMEOUT = 5.0
MAX_DISCARDED_BYTES = 2 << 20
# Past so much that is sent ahead of an answer a client is not read from.
MAX_AHEAD_BYTES = 16_384

_log = logging.getLogger(__name__)


class Gate(Protocol):
    """What answers requests; it raises nothing."""

    def body_limit(self, request: Request) -> int:
        """Tell by its head how many bytes the body of a request may have; without any it is answered at once."""

    async def answer(self, request: Request) -> Response: ...

    def upgrade(self, request: Request, transport: asyncio.Transport, ahead: bytes) -> Response | None:
        """Take over a connection that becomes a WebSocket, with what was read of it already, or refuse it."""


class HttpProtocol(asyncio.Protocol):
    """One connection, for as long as it speaks HTTP."""

    __slots__ = (
        "_ahead",
        "_connections",
        "_deadline",
        "_discarded",
        "_gate",
        "_is_parting",
        "_loop",
        "_reader",
        "_requests",
        "_stage",
        "_task",
        "_transport",
        "_writable",
    )

    def __init__(self, gate: Gate, connections: Connections) -> None:
        self._gate = gate
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        # None before the connection is made, and once it is over or somebody else's.
        self._transport: asyncio.Transport | None = None
        self._reader = RequestReader(gate.body_limit)
        self._requests: list[Request] = []
        self._task: asyncio.Task[None] | None = None
        # What came while a request was answered.
        self._ahead = b""
        self._deadline: asyncio.TimerHandle | None = None
        # The part of a request that the deadline is for.
        self._stage = Stage.HEAD
        # Set while the client does not take what is written.
        self._writable: asyncio.Future[None] | None = None
        self._is_parting = False
        self._discarded = 0

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._connections.enter(self):
            self.evict()
            return
        self._wait(TIMEOUTS[Stage.HEAD])

    def connection_lost(self, _: Exception | None) -> None:
        self._let_go()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        # A poll that nobody waits for ends, and its session with it; what was posted is carried out.
        if self._task is None:
            self._forget()
        elif self._requests and self._requests[0].method == "GET":
            self._task.cancel()

    def evict(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _let_go(self) -> None:
        self._transport = None
        self._connections.leave(self)
        self._stop_waiting()

    def _forget(self) -> None:
        """Let go of all that was read and is not needed."""
        self._reader.close()
        self._requests = []
        self._ahead = b""
        self._connections.release(self)

    def _wait(self, seconds: float) -> None:
        """End the connection unless what is waited for comes in time."""
        self._stop_waiting()
        self._deadline = self._loop.call_later(seconds, self.evict)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # Reading

    def data_received(self, data: bytes) -> None:
        if self._is_parting or self._reader.is_refused:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED_BYTES:
                self.evict()
        elif self._task is not None:
            self._keep(data)
        else:
            self._read(data)
            if self._requests:
                self._begin()

    def _keep(self, data: bytes) -> None:
        """Keep what was sent ahead of an answer for later."""
        self._ahead += data
        if not self._connections.hold(self, len(data)):
            self.evict()
        elif len(self._ahead) > MAX_AHEAD_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def _read(self, data: bytes) -> None:
        """Read requests, and wait for the rest of one that has begun."""
        reader = self._reader
        ahead = reader.feed(data)
        if ahead is not None:
            self._upgrade(ahead)
            return
        if reader.requests:
            self._requests, reader.requests = reader.requests, []
        if reader.refusal is not None:
            if not self._requests:
                self._refuse(reader.refusal)
        elif (reader.stage or _has_more(self._requests)) and not self._connections.hold(self, len(data)):
            self._refuse(error(HTTPStatus.SERVICE_UNAVAILABLE, "Too much is being read, try again"))
        elif not self._requests and self._task is None:
            self._go_on()

    def _go_on(self) -> None:
        """Wait for the rest of a request."""
        reader = self._reader
        if reader.stage > self._stage:
            self._stage = reader.stage
            self._wait(TIMEOUTS[reader.stage])
        if reader.expects_continue and self._transport is not None:
            reader.expects_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, response: Response) -> None:
        """Say what is wrong and close: where the next request begins cannot be told."""
        if self._transport is not None:
            write(self._transport, response, Request(keep_alive=False))
            self._part(is_sending=True)

    def _part(self, *, is_sending: bool) -> None:
        """Close after the last answer; what a client is still sending is thrown away until it has read that."""
        self._is_parting = True
        self._forget()
        if self._transport is None or self._transport.is_closing():
            return
        if is_sending:
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()
        self._wait(PARTING_TIMEOUT)

    def _upgrade(self, ahead: bytes) -> None:
        """Hand the connection over; nothing of it comes here any more, unless it is refused."""
        request, transport = self._reader.take_upgrade(), self._transport
        assert transport is not None
        if self._task is not None or self._requests:
            self._refuse(error(HTTPStatus.BAD_REQUEST, "An upgrade must not be sent ahead of an answer"))
            return
        self._let_go()
        self._forget()
        refusal = self._gate.upgrade(request, transport, ahead)
        if refusal is not None:
            self._transport = transport
            self._connections.enter(self)
            write(transport, refusal, request)
            self._part(is_sending=False)

    # Answering

    def _begin(self) -> None:
        """Answer what has come."""
        self._stop_waiting()
        self._connections.work(self)
        self._task = self._loop.create_task(self._answer_all())

    async def _answer_all(self) -> None:
        """Answer what has come, and what comes meanwhile."""
        try:
            while self._requests and self._transport is not None:
                await self._answer(self._requests[0])
        except Exception:  # noqa: BLE001 - it is logged, and is the end of this connection alone
            _log.exception("a connection ends: its request cannot be answered")
            self.evict()
        finally:
            self._task = None
            if self._transport is None:
                self._forget()
        if self._transport is not None and not self._is_parting:
            self._connections.wait(self)
            self._stage = self._reader.stage
            self._wait(TIMEOUTS[self._stage])
            self._go_on()

    async def _answer(self, request: Request) -> None:
        response = await self._gate.answer(request)
        if self._transport is None:
            return
        write(self._transport, response, request)
        await self._is_taken()
        if self._requests:
            del self._requests[0]
        if not request.keep_alive:
            self._part(is_sending=self._reader.is_refused)
        elif not self._requests:
            self._read_on()

    async def _is_taken(self) -> None:
        """Wait until the client takes what is written, so that no more than one answer waits for it."""
        if self._writable is not None and self._transport is not None:
            self._wait(WRITE_TIMEOUT)
            await asyncio.wait([self._writable])
            self._stop_waiting()

    def _read_on(self) -> None:
        """Read what came while requests were answered."""
        if self._reader.refusal is not None:
            self._refuse(self._reader.refusal)
            return
        if self._reader.stage is Stage.REQUEST:
            self._connections.release(self)
        if self._ahead and self._transport is not None:
            ahead, self._ahead = self._ahead, b""
            self._transport.resume_reading()
            self._read(ahead)


def _has_more(requests: list[Request]) -> bool:
    """Tell whether requests hold more than one head."""
    return len(requests) > 1 or (len(requests) == 1 and bool(requests[0].body))
