"""What a WebSocket makes of what its client sends, and what it leaves of the loop to others."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from echoing import frame
from pods import until

from app.config.types import Secret
from app.realtime.engineio.engine import Engine
from app.realtime.engineio.inbox import MAX_WAITING, MAX_WAITING_BYTES
from app.realtime.engineio.incoming import MAX_FIRST_BYTES, MAX_TURN, NotEngineIOError
from app.realtime.engineio.session import Session
from app.realtime.engineio.websocket import MAX_DISCARDED, MAX_FRAMES, WebSocket
from app.realtime.http.requests import Request
from app.realtime.http.session_ids import SessionIds
from app.realtime.socketio.packets import acknowledgement
from app.realtime.websocket.frames import BINARY, CLOSE, FIN, PING, PONG, TEXT, TOO_LARGE, text_frame
from app.runtime.supervisor import supervised

BURST = 2 * MAX_WAITING
REQUEST = Request(headers={"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="})


class Transport:
    """In the place of a connection: what was written, and whether it is read from."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_read = True
        self.is_over = False

    def write(self, data: bytes) -> None:
        assert not self.is_over
        self.written.append(data)

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        self.is_over = True

    abort = close

    def write_eof(self) -> None:
        self.has_written_all = True

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int) -> None:
        self.most = high


def masked(first: int, payload: bytes) -> bytes:
    assert len(payload) < 126
    return bytes((first, 0x80 | len(payload))) + b"\0\0\0\0" + payload


def said(text: str) -> bytes:
    return masked(FIN | TEXT, text.encode())


@pytest.fixture
async def engine():
    async with supervised() as supervisor:
        receiver = SimpleNamespace(
            take_now=lambda *_: False, clip=lambda message: message, acknowledgement=acknowledgement
        )
        made = Engine(
            receiver,
            supervisor,
            SessionIds("pod", Secret("secret")),
            (),
            max_unsent_bytes=1 << 20,
            max_clients=10,
            max_anonymous=10,
        )
        made.handled = []
        made.gate = asyncio.Event()

        async def handle(_, message):
            await made.gate.wait()
            made.handled.append(message)

        async def forget(_):
            pass

        receiver.on_message, receiver.on_end = handle, forget
        yield made


@pytest.fixture
def websocket(engine):
    made = WebSocket(engine, None, Transport())
    made.take_over(REQUEST, b"")
    made.transport.written.clear()
    return made


async def is_over(engine):
    return not engine.sockets


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_answer_to_an_upgrade_is_that_of_the_rfc_and_goes_with_what_opens_the_session(engine):
    made = WebSocket(engine, None, Transport())
    made.take_over(REQUEST, b"")
    (written,) = made.transport.written
    # Section 1.3.
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in written
    assert b'0{"sid":"pod.' in written.partition(b"\r\n\r\n")[2]


async def test_others_have_their_turn_while_one_sends_tiny_frames_by_the_thousand(engine, websocket):
    websocket.data_received(said("4x") * BURST)
    assert not websocket.transport.is_read
    inbox = next(iter(engine.sockets.values())).inbox
    assert len(inbox._waiting) == MAX_FRAMES
    # It goes on by itself, until the inbox is full.
    await turns(8)
    assert len(inbox._waiting) == MAX_WAITING + 1
    engine.gate.set()

    async def is_all_handled():
        return len(engine.handled) == BURST and websocket.transport.is_read

    await until(is_all_handled, "all that was sent")


async def test_pings_that_come_together_are_answered_by_one_pong_for_the_last(websocket):
    websocket.data_received(b"".join(masked(FIN | PING, f"{number}".encode()) for number in range(MAX_FRAMES)))
    assert websocket.transport.written == [bytes((FIN | PONG, 2)) + b"63"]


async def test_what_was_to_be_written_goes_before_the_goodbye_and_nothing_after_it(engine, websocket):
    session = next(iter(engine.sockets.values()))
    session.write(text_frame(b"4first"))
    session.write(text_frame(b"4second"))
    websocket.data_received(masked(FIN | CLOSE, b"\x03\xe8") + masked(FIN | CLOSE, b"\x03\xe8"))
    session.write(text_frame(b"4late"))
    await turns(3)
    goodbye = bytes((FIN | CLOSE, 2)) + b"\x03\xe8"
    assert websocket.transport.written == [text_frame(b"4first") + text_frame(b"4second"), goodbye]
    assert session.closed
    assert not engine.sockets


@pytest.mark.parametrize("goodbye", [said("1"), masked(FIN | CLOSE, b"")])
async def test_all_that_was_read_before_a_goodbye_is_handled_though_it_was_held(engine, websocket, goodbye):
    messages = [f"{number}" for number in range(2 * MAX_WAITING)]
    websocket.data_received(b"".join(said(f"4{message}") for message in messages) + goodbye)
    engine.gate.set()
    await until(lambda: is_over(engine), "the end of the session")
    assert engine.handled == messages


async def test_all_that_was_read_is_handled_though_the_connection_is_lost_in_the_middle_of_a_burst(
    engine, websocket
):
    messages = [f"{number}" for number in range(3 * MAX_WAITING)]
    websocket.data_received(b"".join(said(f"4{message}") for message in messages))
    await turns(8)
    session = next(iter(engine.sockets.values()))
    assert session.is_held
    websocket.transport.close()
    websocket.connection_lost(ConnectionResetError())
    # Nothing is written any more.
    session.write(text_frame(b"4late"))
    engine.gate.set()
    await until(lambda: is_over(engine), "the end of the session")
    assert engine.handled == messages
    assert session.wire is None


async def test_a_client_is_held_by_what_waits_of_it_in_bytes(engine, websocket):
    size = 60_000
    message = "x" * size
    for _ in range(20):
        websocket.data_received(frame(TEXT, f"4{message}".encode()))
        await turns(3)
        session = next(iter(engine.sockets.values()))
        session.socket = session.socket or object()
    assert not websocket.transport.is_read
    assert session.inbox._waiting_bytes <= MAX_WAITING_BYTES + size + 100
    assert len(websocket._unread) > 10 * size
    engine.gate.set()

    async def is_all_handled():
        return engine.handled == [message] * 20 and websocket.transport.is_read

    await until(is_all_handled, "all that was sent")


async def test_others_have_their_turn_while_what_one_sent_takes_long(engine, websocket):
    engine.gate.set()
    ticks = 0

    def tick():
        nonlocal ticks
        ticks += 1
        if len(engine.handled) < 20:
            asyncio.get_running_loop().call_soon(tick)

    async def handle(*_):
        # Work that blocks the loop for longer than a turn.
        end = time.perf_counter() + 2 * MAX_TURN
        while time.perf_counter() < end:
            pass
        engine.handled.append(ticks)

    engine.receiver.on_message = handle
    websocket.data_received(said("4x") * 20)
    asyncio.get_running_loop().call_soon(tick)
    await until(lambda: is_handled(engine, 20), "all that was sent")
    assert len(set(engine.handled)) == 20


async def is_handled(engine, count):
    return len(engine.handled) == count


async def test_a_client_that_is_held_is_pinged_and_not_taken_for_silent(engine, websocket):
    session = next(iter(engine.sockets.values()))
    session.has_asked = True
    session.on_due()
    assert session.last_ping
    websocket.data_received(b"".join(said("4x") for _ in range(2 * MAX_WAITING)) + said("3"))
    await turns(8)
    for number in range(3):
        session.on_due()
        await turns(3)
        # socket.io-client ends a connection that was not pinged for 45 s, whatever else came on it.
        assert b"".join(websocket.transport.written).count(text_frame(b"2")) == 2 + number
    assert not session.closed
    engine.gate.set()
    await until(lambda: is_handled(engine, 2 * MAX_WAITING), "all that was sent")
    # From here on it must answer again.
    session.on_due()
    session.on_due()
    await until(lambda: is_over(engine), "the end of one that is silent")


@pytest.fixture
def polling(engine):
    session = Session(engine, engine.generate_id())
    session.begin_polling()
    session.socket = object()
    engine.sockets[session.sid] = session
    return session


def posted(session, *packets):
    body = SimpleNamespace(read=None)

    async def read(_):
        return "\x1e".join(packets).encode()

    body.read = read
    return asyncio.ensure_future(session.handle_post_request({"wsgi.input": body}))


async def test_a_request_of_a_client_that_polls_waits_while_too_much_of_it_waits(engine, polling):
    messages = [f"{number}" for number in range(10 * MAX_WAITING)]
    post = posted(polling, *(f"4{message}" for message in messages))
    await turns(30)
    assert not post.done()
    assert len(polling.inbox._waiting) == MAX_WAITING + 1
    engine.gate.set()
    await post
    await until(lambda: is_handled(engine, len(messages)), "all that was sent")
    assert engine.handled == messages


async def test_a_client_that_polls_posts_one_payload_after_the_other(engine, polling):
    first = posted(polling, *["4x"] * (2 * MAX_WAITING))
    await turns(10)
    with pytest.raises(NotEngineIOError):
        await posted(polling, "4y")
    engine.gate.set()
    await first
    await posted(polling, "4z")
    await until(lambda: is_handled(engine, 2 * MAX_WAITING + 1), "all that was sent")
    assert "y" not in engine.handled


async def test_a_request_that_waits_ends_with_its_session(polling):
    post = posted(polling, *["4x"] * (2 * MAX_WAITING))
    await turns(10)
    await polling.close()
    await post
    assert polling.room is None


@pytest.mark.parametrize("packet", ["5", "6", "0", "2", "7", "", "x", "b?", "b" + "A" * 5])
async def test_what_a_client_that_polls_may_not_post_is_refused_and_leaves_nothing(polling, packet):
    with pytest.raises(NotEngineIOError):
        await posted(polling, *[packet] * 100_000, "")
    assert polling.queue.empty()
    assert polling.inbox is None


async def test_pongs_by_the_thousand_leave_others_their_turn(polling):
    post = posted(polling, *["3"] * (10 * MAX_FRAMES))
    await turns(5)
    assert not post.done()
    await post
    assert polling.queue.empty()


async def test_a_client_without_a_socket_says_little(engine, polling):
    polling.socket = None
    with pytest.raises(NotEngineIOError):
        await posted(polling, "4" + "x" * MAX_FIRST_BYTES)
    websocket = WebSocket(engine, None, Transport())
    websocket.take_over(REQUEST, b"")
    websocket.data_received(frame(TEXT, b"4" + b"x" * MAX_FIRST_BYTES))
    assert websocket.transport.written[-1] == bytes((FIN | CLOSE, 2)) + TOO_LARGE.to_bytes(2, "big")


async def test_of_a_client_that_is_refused_and_goes_on_only_so_much_is_read(websocket):
    websocket.data_received(masked(FIN | 3, b""))
    assert websocket.transport.has_written_all
    assert not websocket.transport.is_over
    for _ in range(MAX_DISCARDED >> 16):
        websocket.data_received(b"x" * (1 << 16))
    assert not websocket.transport.is_over
    websocket.data_received(b"x")
    assert websocket.transport.is_over
    assert not websocket._unread


async def test_a_client_that_says_goodbye_again_and_again_is_let_go_by_one_task(engine, websocket):
    before = len(asyncio.all_tasks())
    websocket.data_received(said("1") * 100)
    assert len(asyncio.all_tasks()) == before + 1
    await until(lambda: is_over(engine), "the end of the session")


async def test_answers_that_nobody_asked_for_cost_the_clock_nothing(engine, websocket):
    session = next(iter(engine.sockets.values()))
    due = session.due
    websocket.data_received(said("3") * 100)
    assert session.due == due
    assert sum(map(len, engine.heartbeat._due.values())) == 1


@pytest.fixture
def upgrading(engine):
    session = Session(engine, engine.generate_id())
    session.begin_polling()
    engine.sockets[session.sid] = session
    made = WebSocket(engine, session, Transport())
    made.take_over(REQUEST, b"")
    return session, made


async def test_a_probe_ends_the_poll_that_waits_however_often_it_comes(upgrading):
    session, websocket = upgrading
    websocket.data_received(said("2probe") * 100)
    assert session.queue.qsize() == 1


async def test_bytes_ahead_of_the_upgrade_end_the_websocket_and_leave_the_session_polling(engine, upgrading):
    session, websocket = upgrading
    websocket.data_received(masked(FIN | BINARY, b"too soon"))
    websocket.connection_lost(None)
    assert websocket.transport.is_over
    assert session.inbox is None
    assert session.may_upgrade
    assert session.sid in engine.sockets
