"""The WebSocket of a session (RFC 6455): frames, fragments, control frames and close codes."""

import asyncio
import codecs
import hashlib
from base64 import b64encode

from app.realtime.engineio.engine import Engine
from app.realtime.engineio.incoming import MAX_PACKETS
from app.realtime.engineio.session import Session
from app.realtime.http.requests import Request
from app.realtime.websocket import frames
from app.realtime.websocket.frames import ClientFrame, FrameError, read_frame

# So many frames of one client are taken before anybody else has a turn.
MAX_FRAMES = MAX_PACKETS
# A refused client has so many seconds, and may send so many bytes, until it knows: a connection that is closed
# while something of it is unread is reset, and the client never reads why.
REFUSAL_TIMEOUT = 1.0
MAX_DISCARDED = 4 << 20

_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nVary: Origin\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)
# By what a server shows that it has understood (RFC 6455, section 1.3).
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


_new_decoder = codecs.getincrementaldecoder("utf-8")


class Fragments:
    """A message that comes in parts; text that is none is known by the first part in which it shows."""

    __slots__ = ("_decoder", "message")

    def __init__(self, *, is_text: bool) -> None:
        self.message = bytearray()
        self._decoder = _new_decoder() if is_text else None

    def add(self, part: bytes, *, is_last: bool) -> None:
        """Add a part; raises UnicodeDecodeError."""
        self.message += part
        if self._decoder is not None:
            self._decoder.decode(part, final=is_last)

    @property
    def is_text(self) -> bool:
        return self._decoder is not None


class WebSocket(asyncio.Protocol):
    """One WebSocket, and the session that it carries or is about to carry.

    open ── goodbye, or a refusal ──▶ over: nothing more is taken
     └── the connection is lost ──▶ lost: what was read of it is still taken, as fast as the session takes it
    """

    __slots__ = (
        "_discarded",
        "_engine",
        "_fragments",
        "_is_held",
        "_is_lost",
        "_is_over",
        "_is_resting",
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
        self._unread: bytearray | bytes = b""
        self._wanted = 0
        # Whether its session wants nothing more for now, and whether others have their turn.
        self._is_held = False
        self._is_resting = False
        # Whether nothing more is taken, and whether the connection is gone.
        self._is_over = False
        self._is_lost = False
        self._discarded = 0
        # What came of a fragmented message.
        self._fragments: Fragments | None = None

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
        if self._is_over:
            self._discard(data)
            return
        if self._unread:
            self._unread += data
            if self._is_stopped or len(self._unread) < self._wanted:
                return
            data, self._unread, self._wanted = bytes(self._unread), b"", 0
        try:
            taken = self._take_frames(data)
        except FrameError as error:
            self._refuse(error.code)
        except UnicodeDecodeError:
            self._refuse(frames.INVALID_TEXT)
        else:
            if taken < len(data) and not self._is_over:
                self._unread = bytearray(data[taken:])

    def connection_lost(self, _: Exception | None) -> None:
        self._is_lost = True
        if self._session is None or self._session.upgrading:
            self._end()
        else:
            self._session.mute(self)
            self._read_on()

    def pause_writing(self) -> None:
        """Cut a client that cannot keep up: more waits for it than MAX_UNSENT_BYTES."""
        if self._session is not None:
            self._session.cut()

    def resume_writing(self) -> None:
        """Leave a client that was cut alone."""

    # What its session calls

    def abort(self) -> None:
        """End the connection at once, and take nothing more of it."""
        self._end()
        self.transport.abort()

    def hold(self) -> None:
        """Take nothing more of the client for now."""
        self._is_held = True
        self._pause()

    def go_on(self) -> None:
        """Take what the client sends again, where it was held, first what had come already."""
        if self._is_held:
            self._is_held = False
            self._read_on()

    def close(self) -> None:
        """Send what was written, say goodbye and close."""
        if self._send_close(frames.NORMAL_CLOSURE):
            self.transport.close()

    def _refuse(self, code: int) -> None:
        """Say why the connection ends, and close it once the client has had the time to read that."""
        if self._send_close(code):
            self.transport.write_eof()
            self.transport.resume_reading()
            asyncio.get_running_loop().call_later(REFUSAL_TIMEOUT, self.transport.abort)

    def _send_close(self, code: int) -> bool:
        """Take nothing more and say why; False where nobody is there any more, or it was said."""
        if self._is_over:
            return False
        if self._session is not None:
            self._session.part(self)
        self._end()
        if self._is_lost or self.transport.is_closing():
            return False
        self.transport.write(frames.close_frame(code))
        return True

    def _end(self) -> None:
        self._is_over = True
        self._unread = b""
        self._fragments = None
        if self._is_lost:
            self._leave()

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.detach(self)

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > MAX_DISCARDED:
            self.transport.abort()

    # Reading

    @property
    def _is_stopped(self) -> bool:
        return self._is_held or self._is_resting

    def _pause(self) -> None:
        if not self._is_lost:
            self.transport.pause_reading()

    def _rest(self) -> None:
        self._is_resting = True
        self._pause()
        asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._is_resting = False
        self._read_on()

    def _read_on(self) -> None:
        """Take what was read already, then what comes."""
        if not self._is_stopped:
            if not self._is_over:
                self.data_received(b"")
            self._read_more()

    def _read_more(self) -> None:
        """Take what comes, unless that must wait; end with a connection of which nothing comes any more."""
        if self._is_stopped:
            return
        if self._is_lost:
            self._leave()
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def _take_frames(self, data: bytes) -> int:
        """Take frames, for as long as that may be; gives where the rest begins.

        Raises FrameError, and UnicodeDecodeError for text that is none.
        """
        session = self._session
        if session is None:
            return len(data)
        begin, ping, max_payload = 0, None, session.max_packet_bytes
        for _ in range(MAX_FRAMES):
            if begin == len(data) or self._is_held or self._is_over:
                break
            frame = read_frame(data, begin, max_payload)
            if isinstance(frame, int):
                self._wanted = frame - begin
                break
            begin = frame.end
            if frame.first == frames.WHOLE_TEXT and self._fragments is None:
                self._take_packet(session, frame.payload.decode())
            elif frame.kind == frames.PING:
                ping = frame.payload
            else:
                self._take_other(session, frame)
        else:
            self._rest()
        if ping is not None and not self._is_over and not self._is_lost:
            # The last one stands for those before it (RFC 6455, section 5.5.3).
            self.transport.write(frames.pong_frame(ping))
        return begin

    def _take_other(self, session: Session, frame: ClientFrame) -> None:
        if frame.kind == frames.CLOSE:
            if self._send_close(frames.read_close(frame.payload)):
                self.transport.close()
        elif frame.kind != frames.PONG:
            self._take_part(session, frame)

    def _take_part(self, session: Session, frame: ClientFrame) -> None:
        """Put a fragmented message together; raises FrameError where that cannot be, and UnicodeDecodeError."""
        if (frame.kind == frames.CONTINUATION) is (self._fragments is None):
            raise FrameError(frames.PROTOCOL_ERROR, "this is a part of no message, or one within another")
        fragments = self._fragments
        if fragments is None:
            fragments = self._fragments = Fragments(is_text=frame.kind == frames.TEXT)
        most = session.max_packet_bytes
        if len(fragments.message) + len(frame.payload) > most:
            raise FrameError(frames.TOO_LARGE, f"the message is larger than {most} bytes")
        fragments.add(frame.payload, is_last=frame.is_last)
        if frame.is_last:
            self._fragments = None
            if fragments.is_text:
                self._take_packet(session, fragments.message.decode())
            elif session.upgrading:
                self.close()
            else:
                session.take_message(bytes(fragments.message))

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
