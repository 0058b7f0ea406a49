"""Wire format of pub/sub between pods.

On the channel of a conversation go the events for its sockets: `pod seq committed traceparent name data`. On
that of a user goes what is to become of their sockets: `pod kind subject number name data`. Each begins with the
pod that wrote it, so that this one knows its own.
"""

from typing import NamedTuple
from uuid import UUID

import msgspec

from app.contract.events import Change, Event

CONVERSATION_CHANNEL = "chat:c:"
USER_CHANNEL = "chat:u:"

# What an order asks for: let the user's sockets into a conversation, send them an event, end all of those whose
# token was issued up to a second, or end one of them.
INVITE, SEND, EXPEL, EVICT = b"invite", b"tell", b"expel", b"evict"
# The seq of an event that has none.
UNNUMBERED = 0
# Where there is no event to send: the order is all.
NOTHING = Event("-", b"")
_NO_NAME = NOTHING.name.encode()

_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Order(NamedTuple):
    """What is to become of a user's sockets; `subject` and `number` are those of the kind."""

    kind: bytes
    subject: str = "-"
    number: int = 0
    event: Event = NOTHING


def conversation_channel(conversation_id: UUID) -> str:
    return CONVERSATION_CHANNEL + conversation_id.hex


def user_channel(user_id: str) -> str:
    return USER_CHANNEL + user_id


def origin(payload: bytes) -> bytes:
    """Read which pod wrote something."""
    return payload[: payload.index(b" ")]


def write_change(pod: bytes, change: Change, traceparent: str | None) -> bytes:
    trace = b"-" if traceparent is None else traceparent.encode()
    event = change.event
    return b"%b %d %.3f %b %b %b" % (pod, change.seq, change.committed, trace, event.name.encode(), event.data)


def read_change(channel: str, payload: bytes) -> tuple[Change, str]:
    """Read a change, and the trace that led to it; raises ValueError."""
    _, seq, committed, trace, name, data = payload.split(b" ", 5)
    conversation_id = UUID(hex=channel.removeprefix(CONVERSATION_CHANNEL))
    return Change(conversation_id, int(seq), _read_event(name, data), float(committed)), trace.decode()


def write_order(pod: bytes, order: Order) -> bytes:
    kind, subject, number, event = order
    return b"%b %b %b %d %b %b" % (pod, kind, subject.encode(), number, event.name.encode(), event.data)


def read_order(channel: str, payload: bytes) -> tuple[str, Order]:
    """Read whom an order is about, and what it asks for; raises ValueError."""
    _, kind, subject, number, name, data = payload.split(b" ", 5)
    order = Order(kind, subject.decode(), int(number), _read_event(name, data))
    return channel.removeprefix(USER_CHANNEL), order


def _read_event(name: bytes, data: bytes) -> Event:
    """Read an event; what is no JSON must reach no socket, whatever release wrote it."""
    if name != _NO_NAME:
        _check_json(data)
        if not data.isascii():
            data.decode()
    return Event(name.decode(), data)
