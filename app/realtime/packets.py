"""Socket.IO packets (protocol 5) as this service reads and writes them.

The arguments of an event stay the bytes that the client sent, so that `codec.decode` reads them as it reads a
request body: one set of rules for both wires.
"""

import re
from typing import Any

import msgspec
from msgspec import Raw
from socketio.packet import Packet

from app.codec import encode
from app.events import Event
from app.realtime.frames import text_frame
from app.rooms import Frame
from app.schemas import SocketSendMessage

DISCONNECT = b"1"
MAX_BYTES_PER_CHARACTER = 4
# What may stand before a value (RFC 8259, section 2).
WHITESPACE = " \t\n\r"
# No event of ours has any; what comes with some is answered with an error.
MAX_ATTACHMENTS = 16


class ClientEvent(str):
    """The name of an event that a client sent, which python-socketio's own events are not."""

    __slots__ = ()


class TooLargeEvent(ClientEvent):
    """The name of an event whose packet is too large to be read."""

    __slots__ = ()


class MalformedEvent(ClientEvent):
    """In the place of a name, where a packet is no event."""

    __slots__ = ()


# One with a payload, as it is written by every client; others are read with more care.
_PLAIN_CONNECT = "0{"
# An event without attachments, with or without a number: python-socketio reads one of up to 100 digits.
_PLAIN_EVENT = re.compile(r"2([0-9]{0,18})(?=\[)")
_SEND = re.compile(r'2([0-9]{0,18})\["message:send",(\{.*\})\]', re.DOTALL)
_command = msgspec.json.Decoder(SocketSendMessage)
_arguments = msgspec.json.Decoder(list[Raw])
_name = msgspec.json.Decoder(str)
_object = msgspec.json.Decoder(dict[str, Any])

_NAME = re.compile(r'\[\s*"([^"\\]{0,64})"\s*(?:,(.*))?', re.DOTALL)


def event_frame(event: Event) -> Frame:
    """Write an event for all who get it, whether they poll or not."""
    return message_frame(b'2["%b",%b]' % (event.name.encode(), event.data))


def message_frame(packet: bytes) -> Frame:
    """Write a Socket.IO packet for whoever gets it."""
    return Frame(packet, text_frame(b"4" + packet))


def acknowledgement(number: str, answer: bytes) -> Frame:
    """Write the acknowledgement, which is JSON, of the event to which a client gave a number."""
    return message_frame(b"3%b[%b]" % (number.encode(), answer))


def read_send(packet: str, max_bytes: int) -> tuple[str, SocketSendMessage] | None:
    """Read a message that a client sends, as most clients write it: the number of the event, and the command.

    Gives None for all else, and for what is wrong: these are read with more care.
    """
    found = _SEND.fullmatch(packet)
    if found is None or len(packet) * MAX_BYTES_PER_CHARACTER > max_bytes:
        return None
    try:
        return found[1], _command.decode(found[2])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def read_event(packet: str, max_bytes: int) -> tuple[str, ClientEvent, list[Raw]] | None:
    """Read an event of the namespace `/`: the number that it is acknowledged by, or none, its name, its arguments.

    Gives None for all other packets, for what may be too large and for what is not quite right: these are read
    with more care.
    """
    found = _PLAIN_EVENT.match(packet)
    if found is None or len(packet) * MAX_BYTES_PER_CHARACTER > max_bytes:
        return None
    try:
        name, *arguments = _arguments.decode(packet[found.end() :])
        return found[1], ClientEvent(_name.decode(name)), arguments
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return None


def connect_frame(socket_id: str) -> Frame:
    """Write that a client is in; the id is text that JSON has as it is."""
    return message_frame(b'0{"sid":"%b"}' % socket_id.encode())


def refusal_frame(message: str) -> Frame:
    """Write that a client is not let in, by a word that JSON has as it is."""
    return message_frame(b'4{"message":"%b"}' % message.encode())


def read_connect(packet: str | bytes) -> dict[str, Any] | None:
    """Read what a client hands in that asks for a socket of the namespace `/`; None for all other packets."""
    return _read_object(packet[1:]) if isinstance(packet, str) and packet.startswith(_PLAIN_CONNECT) else None


class _Json:
    """The JSON of packets; it never raises on what a client sends."""

    def __init__(self, max_packet_bytes: int) -> None:
        self._max_packet_bytes = max_packet_bytes

    def loads(self, text: str) -> Any:
        """Read the payload of a packet: the arguments of an event, or what CONNECT carries."""
        text = text.lstrip(WHITESPACE)
        if not text.startswith("["):
            return _read_object(text)
        if len(text) > self._max_packet_bytes or len(text.encode(errors="replace")) > self._max_packet_bytes:
            found = _NAME.match(text)
            return [TooLargeEvent(found[1] if found else "")]
        return _read_event(text)

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        return encode(value).decode()


def packet_class(max_packet_bytes: int) -> type[Packet]:
    """Make python-socketio's packets with our JSON; what is larger than `max_packet_bytes` is not read."""

    class ServicePacket(Packet):  # type: ignore[misc]
        json = _Json(max_packet_bytes)
        data: Any

        def decode(self, encoded_packet: str) -> int:
            count = int(super().decode(encoded_packet) or 0)
            if count > MAX_ATTACHMENTS:
                raise ValueError("too many attachments")
            return count

        def add_attachment(self, attachment: bytes) -> bool:
            if sum(map(len, self.attachments)) + len(attachment) > max_packet_bytes:
                self.data, attachment = [TooLargeEvent(self.data[0])], b""
            return bool(super().add_attachment(attachment))

    return ServicePacket


def _read_object(text: str) -> dict[str, Any] | None:
    try:
        return _object.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _read_event(text: str) -> list[Any]:
    try:
        name, *arguments = msgspec.json.decode(text, type=list[Raw])
        return [ClientEvent(msgspec.json.decode(name, type=str)), *arguments]
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return _read_broken_event(text)


def _read_broken_event(text: str) -> list[Any]:
    """Find the name at least, so that whoever reads the payload says what is wrong with it."""
    found = _NAME.match(text)
    if found is None or found[2] is None:
        return [MalformedEvent()]
    return [ClientEvent(found[1]), Raw(found[2].rstrip().removesuffix("]").encode(errors="surrogatepass"))]
