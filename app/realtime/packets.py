"""Socket.IO packets (protocol 5) as this service reads and writes them.

The arguments of an event stay the bytes that the client sent, so that `schemas.decode` reads them as it reads a
request body: one set of rules for both wires.
"""

from typing import Any

import msgspec
from socketio.packet import Packet

from app.events import Event
from app.schemas import encode

EVENT = "2"
DISCONNECT = "1"


class ClientEvent(str):
    """The name of an event that a client sent, which python-socketio's own events are not."""

    __slots__ = ()


MALFORMED = ClientEvent("")
TOO_LARGE = ClientEvent("\x00")


def event_packet(event: Event) -> str:
    """Write an event as the text of a Socket.IO packet."""
    return f'{EVENT}["{event.name}",{event.data.decode()}]'


class _Json:
    """The JSON of packets; it never raises on what a client sends."""

    def __init__(self, max_packet_bytes: int) -> None:
        self._max_packet_bytes = max_packet_bytes

    def loads(self, text: str) -> Any:
        """Read the payload of a packet: the arguments of an event, or what CONNECT carries."""
        if not text.startswith("["):
            return _read_object(text)
        if len(text) > self._max_packet_bytes or len(text.encode(errors="replace")) > self._max_packet_bytes:
            return [TOO_LARGE]
        return _read_event(text)

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        return encode(value).decode()


def packet_class(max_packet_bytes: int) -> type[Packet]:
    """Make python-socketio's packets with our JSON; larger ones than `max_packet_bytes` are not read."""
    return type("ServicePacket", (Packet,), {"json": _Json(max_packet_bytes)})


def _read_object(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _read_event(text: str) -> list[Any]:
    try:
        name, *arguments = msgspec.json.decode(text, type=list[msgspec.Raw])
        return [ClientEvent(msgspec.json.decode(name, type=str)), *arguments]
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return [MALFORMED]
