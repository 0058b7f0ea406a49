"""Socket.IO packets (protocol 5) as this service reads and writes them.

The arguments of an event stay the bytes that the client sent, so that `codec.decode` reads them as it reads a
request body: one set of rules for both wires. Every reader takes time that is linear in what it reads.
"""

import re
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw
from socketio.packet import BINARY_EVENT, CONNECT, DISCONNECT, EVENT, Packet

from app.contract.events import Event
from app.contract.schemas import SocketSendMessage
from app.delivery.rooms import Frame
from app.realtime.websocket.frames import text_frame

# The one namespace that there is.
ROOT = "/"
MAX_NAMESPACE = 128
# That a client is out.
DISCONNECTED = b"1"
MAX_BYTES_PER_CHARACTER = 4
# What may stand before a value (RFC 8259, section 2).
WHITESPACE = " \t\n\r"
# No event of ours has any; what comes with some is answered with an error.
MAX_ATTACHMENTS = 16
# Of what is larger than any packet may be so much is kept: its kind, its number and its name.
MAX_CLIPPED = 256


class ClientEvent(str):
    """The name of an event that a client sent."""

    __slots__ = ()


class TooLargeEvent(ClientEvent):
    """The name of an event whose packet is too large to be read."""

    __slots__ = ()


class MalformedEvent(ClientEvent):
    """In the place of a name, where a packet is no event."""

    __slots__ = ()


class BinaryEvent(ClientEvent):
    """The name of an event that came with binary attachments, or should have."""

    __slots__ = ()


class ClippedPacket(str):
    """The start of a packet that is too large to be read."""

    __slots__ = ()


class PacketError(ValueError):
    """What a client sent is no packet that it may send."""


class _Packet(Packet):  # type: ignore[misc]
    """The head of a packet as python-socketio reads it: its kind, attachments, namespace and number."""

    class json:  # noqa: N801 - python-socketio's name
        """Leaves the payload as text: what it may be is decided here."""

        @staticmethod
        def loads(text: str) -> str:
            return text


class Connect(NamedTuple):
    """A client asks for a socket; `auth` is the object that it hands in, if it is one."""

    namespace: str
    auth: dict[str, Any] | None


class Disconnect(NamedTuple):
    """A client leaves a namespace."""

    namespace: str


class ClientPacket(NamedTuple):
    """An event of the namespace `/`: the number that it is acknowledged by, or none, its name, its arguments."""

    number: str
    name: ClientEvent
    arguments: list[Raw]


class Attachments:
    """An event whose binary attachments are still to come: they are counted, and not kept."""

    __slots__ = ("_left", "_max_bytes", "_size", "name", "number")

    def __init__(self, number: str, name: str, count: int, max_bytes: int) -> None:
        self.number = number
        self.name: ClientEvent = BinaryEvent(name)
        self._left = count
        self._size = 0
        self._max_bytes = max_bytes

    def add(self, attachment: bytes) -> bool:
        """Count an attachment; True where it is the last one."""
        self._left -= 1
        self._size += len(attachment)
        if self._size > self._max_bytes:
            self.name = TooLargeEvent(self.name)
        return self._left <= 0


# One with a payload, as it is written by every client; others are read with more care.
_PLAIN_CONNECT = "0{"
# An event without attachments, with or without a number.
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


def connect_frame(socket_id: str) -> Frame:
    """Write that a client is in; the id is text that JSON has as it is."""
    return message_frame(b'0{"sid":"%b"}' % socket_id.encode())


def refusal_frame(message: str, namespace: str = ROOT) -> Frame:
    """Write that a client is not let in, by a word that JSON has as it is."""
    place = b"" if namespace == ROOT else namespace.encode() + b","
    return message_frame(b'4%b{"message":"%b"}' % (place, message.encode()))


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


def read_event(packet: str, max_bytes: int) -> ClientPacket | None:
    """Read an event of the namespace `/`.

    Gives None for all other packets, for what may be too large and for what is not quite right: these are read
    with more care.
    """
    if len(packet) * MAX_BYTES_PER_CHARACTER > max_bytes:
        return None
    found = _PLAIN_EVENT.match(packet)
    if found is None:
        return None
    try:
        name, *arguments = _arguments.decode(packet[found.end() :])
        return ClientPacket(found[1], ClientEvent(_name.decode(name)), arguments)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return None


def read_packet(packet: str, max_bytes: int) -> Connect | Disconnect | ClientPacket | Attachments:
    """Read any packet that a client may send; raises PacketError.

    An event that is malformed is an event of a kind of its own, and so is one of more than `max_bytes`.
    """
    if packet.startswith(_PLAIN_CONNECT):
        return Connect(ROOT, _read_object(packet[1:]))
    try:
        read = _Packet(encoded_packet=packet or "none")
    except ValueError as error:
        raise PacketError("it is no packet of Socket.IO") from error
    namespace, payload = read.namespace or ROOT, (read.data or "").lstrip(WHITESPACE)
    if len(namespace) > MAX_NAMESPACE:
        raise PacketError("the name of its namespace is too long")
    if read.packet_type == CONNECT:
        return Connect(namespace, _read_object(payload))
    if read.packet_type == DISCONNECT:
        return Disconnect(namespace)
    is_binary, count = read.packet_type == BINARY_EVENT, read.attachment_count
    if not (is_binary or (read.packet_type == EVENT and not count)) or namespace != ROOT:
        raise PacketError("it is none that a client may send")
    number = "" if read.id is None else str(read.id)
    name, arguments = _read_event(payload, max_bytes, is_clipped=isinstance(packet, ClippedPacket))
    if not is_binary or type(name) is not ClientEvent:
        return ClientPacket(number, name, arguments)
    if not 0 < count <= MAX_ATTACHMENTS:
        return ClientPacket(number, BinaryEvent(name), [])
    return Attachments(number, name, count, max_bytes)


def clip(packet: str, max_bytes: int) -> str:
    """Give a packet, or its start where it is larger than any that is read."""
    return packet if len(packet) <= max_bytes else ClippedPacket(packet[:MAX_CLIPPED])


def _read_object(text: str) -> dict[str, Any] | None:
    try:
        return _object.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _read_event(text: str, max_bytes: int, *, is_clipped: bool) -> tuple[ClientEvent, list[Raw]]:
    if is_clipped or len(text) > max_bytes or len(text.encode(errors="replace")) > max_bytes:
        found = _NAME.match(text)
        return TooLargeEvent(found[1] if found else ""), []
    try:
        name, *arguments = _arguments.decode(text)
        return ClientEvent(_name.decode(name)), arguments
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return _read_broken_event(text)


def _read_broken_event(text: str) -> tuple[ClientEvent, list[Raw]]:
    """Find the name at least, so that whoever reads the payload says what is wrong with it."""
    found = _NAME.match(text)
    if found is None or found[2] is None:
        return MalformedEvent(), []
    broken = found[2].rstrip().removesuffix("]").encode(errors="surrogatepass")
    return ClientEvent(found[1]), [Raw(broken)]
