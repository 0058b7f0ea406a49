"""WebSockets (RFC 6455): a connection whose upgrade was read becomes one, and a session takes what it says."""

import asyncio
import hashlib
from base64 import b64encode

from app.realtime import frames
from app.realtime.engine import MAX_MESSAGE_BYTES, Engine
from app.realtime.frames import ClientFrame, FrameError, read_frame
from app.realtime.requests import Request
from app.realtime.session import Session

# So many frames of one client are taken before anybody else has a turn.
MAX_FRAMES = 256

_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nVary: Origin\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)
# By what a server shows that it has understood (RFC 6455, section 1.3).
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocket(asyncio.Protocol):
    """One WebSocket, and the session that it carries or is about to carry."""

    __slots__ = (
        "_engine",
        "_is_held",
        "_is_resting",
        "_is_text",
        "_message",
        "_session",
        "_unread",
        "_wanted",
        "transport",
    )

    def __init__(self, engine: Engine, session: Session | None, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._engine = engine
        self._session = session
        # What came and is not taken yet, and how much of it there must be before it is looked at.
        self._unread = bytearray()
        self._wanted = 0
        # Whether its session wants nothing more for now, and whether others have their turn.
        self._is_held = False
        self._is_resting = False
        # What came of a fragmented message.
        self._message: bytearray | None = None
        self._is_text = False

    def take_over(self, request: Request, ahead: bytes) -> None:
        """Answer an upgrade and go on with the connection; `ahead` was read of it already."""
        self.transport.set_protocol(self)
        self.transport.set_write_buffer_limits(high=self._engine.max_unsent_bytes)
        key = request.headers["sec-websocket-key"].encode("latin-1")
        answer = _ANSWER % b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        if self._session is None:
            self._session = self._engine.open_over(self, answer)
        else:
            self.transport.write(answer)
            self._session.upgrade_to(self)
        if ahead:
            self.data_received(ahead)

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        if self._unread:
            self._unread += data
            if self._is_stopped or len(self._unread) < self._wanted:
                return
            data, self._unread, self._wanted = bytes(self._unread), bytearray(), 0
        try:
            taken = self._take_frames(data)
        except FrameError as error:
            self._close(error.code)
        except UnicodeDecodeError:
            self._close(frames.INVALID_TEXT)
        else:
            if taken < len(data):
                self._unread += data[taken:]

    def connection_lost(self, _: Exception | None) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.detach(self)

    def pause_writing(self) -> None:
        """Cut a client that cannot keep up: more waits for it than MAX_UNSENT_BYTES."""
        if self._session is not None:
            self._session.cut()

    def resume_writing(self) -> None:
        """Leave a client that was cut alone."""

    # What its session calls

    def hold(self) -> None:
        """Take nothing more of the client for now."""
        self._is_held = True
        self.transport.pause_reading()

    def go_on(self) -> None:
        """Take what the client sends again, where it was held, first what had come already."""
        if self._is_held:
            self._is_held = False
            self._read_on()

    def close(self) -> None:
        """Send what was written, say goodbye and close."""
        self._close(frames.NORMAL_CLOSURE)

    def _close(self, code: int) -> None:
        if self.transport.is_closing():
            return
        if self._session is not None:
            self._session.part(self)
        self.transport.write(frames.close_frame(code))
        self.transport.close()

    # Reading

    @property
    def _is_stopped(self) -> bool:
        return self._is_held or self._is_resting

    def _rest(self) -> None:
        self._is_resting = True
        self.transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._is_resting = False
        self._read_on()

    def _read_on(self) -> None:
        if not self._is_stopped:
            self.data_received(b"")
        if not self._is_stopped and not self.transport.is_closing():
            self.transport.resume_reading()

    def _take_frames(self, data: bytes) -> int:
        """Take frames, for as long as that may be; gives where the rest begins.

        Raises FrameError, and UnicodeDecodeError for text that is none.
        """
        begin, ping = 0, None
        for _ in range(MAX_FRAMES):
            if begin == len(data) or self._session is None or self._is_held or self.transport.is_closing():
                break
            frame = read_frame(data, begin, MAX_MESSAGE_BYTES)
            if isinstance(frame, int):
                self._wanted = frame - begin
                break
            begin = frame.end
            if frame.first == frames.WHOLE_TEXT and self._message is None:
                self._take_packet(self._session, frame.payload.decode())
            elif frame.kind == frames.PING:
                ping = frame.payload
            else:
                self._take_other(self._session, frame)
        else:
            self._rest()
        if ping is not None:
            # The last one stands for those before it (RFC 6455, section 5.5.3).
            self.transport.write(frames.pong_frame(ping))
        return begin

    def _take_other(self, session: Session, frame: ClientFrame) -> None:
        if frame.kind == frames.CLOSE:
            self._close(frames.read_close(frame.payload))
        elif frame.kind != frames.PONG:
            self._take_part(session, frame)

    def _take_part(self, session: Session, frame: ClientFrame) -> None:
        """Put a fragmented message together; raises FrameError where that cannot be."""
        if (frame.kind == frames.CONTINUATION) is (self._message is None):
            raise FrameError(frames.PROTOCOL_ERROR, "this is a part of no message, or one within another")
        if self._message is None:
            self._message, self._is_text = bytearray(), frame.kind == frames.TEXT
        self._message += frame.payload
        if len(self._message) > MAX_MESSAGE_BYTES:
            raise FrameError(frames.TOO_LARGE, f"the message is larger than {MAX_MESSAGE_BYTES} bytes")
        if frame.is_last:
            message, self._message = self._message, None
            if self._is_text:
                self._take_packet(session, message.decode())
            elif session.upgrading:
                self.close()
            else:
                session.take_message(bytes(message))

    def _take_packet(self, session: Session, packet: str) -> None:
        """Take a packet of Engine.IO."""
        kind = packet[:1]
        if session.upgrading:
            self._take_upgrading(session, packet)
        elif kind == "4":
            session.take_message(packet[1:])
        elif kind == "3":
            session.schedule_ping()
        elif kind == "1":
            session.end()

    def _take_upgrading(self, session: Session, packet: str) -> None:
        if packet == "2probe":
            self.transport.write(frames.text_frame(b"3probe"))
            session.release_poll()
        elif packet.startswith("5"):
            session.attach(self)
        else:
            self.close()
