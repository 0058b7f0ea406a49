"""Sockets come and go, whenever it happens: each is taken out once, and nothing of it stays."""

import asyncio
import gc
import json
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from echoing import CLOSE, TEXT, echo_server, frame, raw_socket
from pods import until

from app.config.types import Secret
from app.contract.errors import Conflict, ServiceUnavailable, Unauthorized
from app.identity.actor import Actor
from app.realtime.engineio.inbox import Inbox
from app.realtime.engineio.session import Session
from app.realtime.engineio.websocket import WebSocket
from app.realtime.http.requests import Request
from app.realtime.http.session_ids import SessionIds
from app.realtime.socketio import namespace
from app.realtime.socketio.namespace import Socket
from app.realtime.socketio.protocol import SocketIO
from app.runtime.supervisor import supervised

REQUEST = Request(headers={"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="})
OURS = (Session, WebSocket, Socket, Inbox)


class Transport:
    """In the place of a connection: what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_over = False

    def write(self, data: bytes) -> None:
        assert not self.is_over
        self.written += data

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_over = True

    def ignore(self, *_: object, **__: object) -> None:
        pass

    abort = close
    write_eof = pause_reading = resume_reading = set_protocol = set_write_buffer_limits = ignore


class Sessions:
    """In the place of the use-cases: who is in."""

    def __init__(self) -> None:
        self.inside = []
        self.taken_out = []
        self.too_many = []
        self.failure = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.subscriber = None

    async def authenticate_socket(self, _, token):
        if token == "wrong":
            raise Unauthorized("no")
        return Actor(
            user_id="anna", can_read=True, can_write=True, expires_at=time.time() + 60, issued_at=time.time()
        )

    async def connect(self, _, __, socket):
        self.subscriber = socket
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.inside.append(socket.socket_id)
        return self.too_many

    async def disconnect(self, _, socket):
        self.inside.remove(socket.socket_id)
        self.taken_out.append(socket.socket_id)

    def make_room(self, _, __, too_many):
        for one in too_many:
            if one == self.subscriber.socket_id:
                self.subscriber.evict()


@pytest.fixture
async def usecases(monkeypatch):
    made = Sessions()
    monkeypatch.setattr(namespace, "sessions", made)
    monkeypatch.setattr(namespace, "GRACE_AFTER_REFUSAL", 0.01)
    return made


@pytest.fixture
async def io(usecases):
    async with supervised() as supervisor:

        class Database:
            is_away = False

            def deadline(self):
                return nullcontext()

            async def serve(self, use_case):
                return await use_case()

        settings = SimpleNamespace(max_body_bytes=262_144, max_unsent_bytes=1 << 20, max_sockets=100)
        fanout = SimpleNamespace(detach=lambda socket: usecases.taken_out.append(f"detached {socket.socket_id}"))
        deps = SimpleNamespace(settings=settings, database=Database(), fanout=fanout)
        yield SocketIO(deps, supervisor, SessionIds("pod", Secret("secret")), 100)


def said(text):
    return frame(TEXT, text.encode())


CONNECT = said('40{"token":"right"}')


def open_websocket(io):
    websocket = WebSocket(io.eio, None, Transport())
    websocket.take_over(REQUEST, b"")
    return websocket, list(io.eio.sockets.values())[-1]


async def is_quiet(io, usecases):
    return not io.eio.sockets and not usecases.inside and not io.namespace.sockets


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("goodbye", [said("1"), said("41"), frame(CLOSE, b"\x03\xe8"), frame(3, b"")])
async def test_a_socket_whose_client_leaves_while_it_connects_is_taken_out_once(io, usecases, goodbye):
    usecases.gate.clear()
    websocket, session = open_websocket(io)
    websocket.data_received(CONNECT)
    await settle()
    websocket.data_received(goodbye)
    await settle()
    usecases.gate.set()
    await until(lambda: is_quiet(io, usecases), "all is as before")
    assert usecases.taken_out.count(session.sid) == 1


async def test_a_socket_whose_connection_is_lost_while_it_connects_is_taken_out_once(io, usecases):
    usecases.gate.clear()
    websocket, session = open_websocket(io)
    websocket.data_received(CONNECT)
    await settle()
    websocket.transport.close()
    websocket.connection_lost(ConnectionResetError())
    usecases.gate.set()
    await until(lambda: is_quiet(io, usecases), "all is as before")
    assert usecases.taken_out == [session.sid]


async def test_a_session_that_is_closed_while_it_connects_is_taken_out_once(io, usecases):
    usecases.gate.clear()
    websocket, session = open_websocket(io)
    websocket.data_received(CONNECT)
    await settle()
    await session.close()
    usecases.gate.set()
    await settle()
    assert usecases.taken_out == [session.sid]
    assert await is_quiet(io, usecases)
    assert b'40{"sid"' not in websocket.transport.written


@pytest.mark.parametrize("failure", [Unauthorized("no"), ServiceUnavailable(), RuntimeError("a defect")])
async def test_a_socket_that_cannot_be_let_in_is_never_in(io, usecases, failure):
    usecases.failure = failure
    websocket, _ = open_websocket(io)
    websocket.data_received(CONNECT + said('42["presence:ping"]'))
    await until(lambda: is_quiet(io, usecases), "all is as before")
    assert websocket.transport.is_over
    assert usecases.taken_out == []


async def test_one_too_many_that_is_on_its_way_in_is_told_so_once_it_is_in(io, usecases):
    usecases.gate.clear()
    websocket, session = open_websocket(io)
    websocket.data_received(CONNECT)
    await settle()
    usecases.subscriber.evict()
    assert b"41" not in websocket.transport.written
    usecases.gate.set()
    await until(lambda: is_quiet(io, usecases), "it is taken out")
    written = websocket.transport.written
    assert written.index(b'40{"sid"') < written.index(b'42["error"') < written.index(b"41")
    assert b'"CONFLICT"' in written
    assert usecases.taken_out == [f"detached {session.sid}", session.sid]


async def test_a_socket_that_is_ended_again_and_again_is_told_once_and_let_go_by_one_task(io, usecases):
    websocket, session = open_websocket(io)
    websocket.data_received(CONNECT)
    await settle()
    socket = session.socket
    before = len(asyncio.all_tasks())
    for _ in range(100):
        socket.end(Conflict("too many"))
        socket.reconnect()
    # Nothing is heard of it any more.
    websocket.data_received(said('421["presence:ping"]') * 10)
    assert len(asyncio.all_tasks()) <= before + 2
    await until(lambda: is_quiet(io, usecases), "it is taken out")
    assert websocket.transport.written.count(b'"CONFLICT"') == 1
    assert b"431" not in websocket.transport.written


@pytest.mark.parametrize("first", ['42["x"]', "41", '451-["x"]', "4", "4x", "43[]", "4" + "9" * 1000])
async def test_before_it_asks_for_a_socket_a_client_may_say_nothing_else(io, usecases, first):
    websocket, session = open_websocket(io)
    websocket.data_received(said(first) + CONNECT)
    await settle()
    assert session.closed
    assert websocket.transport.is_over
    assert await is_quiet(io, usecases)


async def test_a_refused_client_is_not_heard_any_more(io, usecases):
    websocket, session = open_websocket(io)
    websocket.data_received(said('40{"token":"wrong"}') + CONNECT * 3 + said('42["x"]'))
    await settle()
    assert session.socket is None
    assert usecases.inside == []
    await until(lambda: is_quiet(io, usecases), "it is closed")
    assert websocket.transport.written.count(b'44{"message":"unauthorized"}') == 1


@pytest.fixture
def counted():
    """Count what there is of a socket without the help of the collector."""
    gc.collect()
    gc.disable()

    def count():
        found = [type(one).__name__ for one in gc.get_objects() if isinstance(one, OURS)]
        return {kind.__name__: found.count(kind.__name__) for kind in OURS}

    yield count
    gc.enable()


ENDS = {
    "a goodbye": lambda websocket, _: websocket.data_received(frame(CLOSE, b"\x03\xe8")),
    "the end of the session": lambda websocket, _: websocket.data_received(said("1")),
    "a DISCONNECT": lambda websocket, _: websocket.data_received(said("41")),
    "what is no frame": lambda websocket, _: websocket.data_received(frame(3)),
    "the middle of a message": lambda websocket, _: websocket.data_received(frame(TEXT, b"4", fin=False)),
    "the middle of a burst": lambda websocket, _: websocket.data_received(said('42["x"]') * 2000),
    "attachments that do not come": lambda websocket, _: websocket.data_received(said('451-["x"]')),
    "one socket too many": lambda _, session: session.socket.evict(),
    "a client that does not read": lambda _, session: session.cut(),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_nothing_of_a_socket_stays_without_the_collector(io, usecases, counted, end):
    before = counted()

    async def come_and_go():
        websocket, session = open_websocket(io)
        websocket.data_received(CONNECT + said('421["nothing"]'))
        await until(lambda: is_in(session), "it is in")
        end(websocket, session)
        await settle()
        websocket.transport.close()
        websocket.connection_lost(None)

    async def is_in(session):
        return session.socket is not None and session.inbox is None

    for _ in range(3):
        await come_and_go()
    usecases.subscriber = None
    await until(lambda: is_quiet(io, usecases), "all is as before", 30)

    async def is_gone():
        # The clock lets go of each when its second has come.
        io.eio.heartbeat._due.clear()
        return counted() == before

    await until(is_gone, f"of {before} there is more")


async def test_nothing_of_a_real_connection_stays_without_the_collector(counted):
    async with echo_server() as (engine, port):
        before = counted()
        for number in range(5):
            async with raw_socket(port) as socket:
                await socket.send([frame(TEXT, b"4" + json.dumps(number).encode())])
                assert await socket.read() is not None

        async def is_gone():
            engine.heartbeat._due.clear()
            return counted() == before

        await until(is_gone, f"of {before} there is more")
