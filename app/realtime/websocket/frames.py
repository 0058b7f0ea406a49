"""The frames of WebSockets (RFC 6455, section 5): those of clients are read, those of servers written."""

from typing import NamedTuple

FIN = 0x80
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
# A message of text that is not in parts: nearly all that clients send.
WHOLE_TEXT = FIN | TEXT

# Why a connection is closed (section 7.4.1).
NORMAL_CLOSURE = 1000
PROTOCOL_ERROR = 1002
INVALID_TEXT = 1007
TOO_LARGE = 1009

# Those that may be sent, and those that others may give a meaning (section 7.4.2).
_CODES = frozenset({*range(1000, 1004), *range(1007, 1015)})
_FIRST_CODE_OF_OTHERS, _LAST_CODE = 3000, 4999

_OPCODE = 0x0F
_RESERVED = 0x70
_IS_CONTROL = 0x08
_MASKED = 0x80
_KINDS = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
# Two bytes and a mask of four.
_SHORTEST = 6
# The length of a longer payload stands in the bytes that follow.
_MOST_IN_ONE_BYTE = 125
_IN_TWO_BYTES = 126
_LEAST_IN_EIGHT_BYTES = 1 << 16


class FrameError(ValueError):
    """That a client sent what none may send; `code` tells it why the connection is closed."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ClientFrame(NamedTuple):
    """A frame; `first` is its first byte, `end` is where the next one begins."""

    first: int
    payload: bytes
    end: int

    @property
    def kind(self) -> int:
        return self.first & _OPCODE

    @property
    def is_last(self) -> bool:
        """Whether its message ends with it."""
        return bool(self.first & FIN)


def read_frame(data: bytes, begin: int, max_payload: int) -> ClientFrame | int:
    """Read the frame that begins at a place, or tell up to where more must have come first; raises FrameError."""
    there = len(data)
    if there < begin + 2:
        return begin + 2
    first, second = data[begin], data[begin + 1]
    size = second & ~_MASKED
    if not second & _MASKED or first & _RESERVED or first & _OPCODE not in _KINDS:
        raise FrameError(PROTOCOL_ERROR, "it is not masked, or of no kind that there is")
    if first & _IS_CONTROL and (size > _MOST_IN_ONE_BYTE or not first & FIN):
        raise FrameError(PROTOCOL_ERROR, "a control frame is short and whole")
    start = begin + _SHORTEST
    if size > _MOST_IN_ONE_BYTE:
        wide = 2 if size == _IN_TWO_BYTES else 8
        start += wide
        if there < start:
            return start
        size = int.from_bytes(data[begin + 2 : begin + 2 + wide], "big")
        if size <= _MOST_IN_ONE_BYTE or (wide > 2 and not _LEAST_IN_EIGHT_BYTES <= size < 1 << 63):
            raise FrameError(PROTOCOL_ERROR, "a length is written as shortly as it can be")
        if size > max_payload:
            raise FrameError(TOO_LARGE, f"it is larger than {max_payload} bytes")
    end = start + size
    if there < end:
        return end
    return ClientFrame(first, _unmask(data[start:end], data[start - 4 : start]), end)


def read_close(payload: bytes) -> int:
    """Read why a client says goodbye; raises FrameError, and UnicodeDecodeError for words that are no text."""
    if not payload:
        return NORMAL_CLOSURE
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not (code in _CODES or _FIRST_CODE_OF_OTHERS <= code <= _LAST_CODE):
        raise FrameError(PROTOCOL_ERROR, "there is no such reason")
    payload[2:].decode()
    return code


def _unmask(payload: bytes, mask: bytes) -> bytes:
    # As two large numbers: byte by byte it would take a hundred times as long.
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


def text_frame(payload: bytes) -> bytes:
    """Write a message of text."""
    size = len(payload)
    if size <= _MOST_IN_ONE_BYTE:
        return bytes((WHOLE_TEXT, size)) + payload
    if size < _LEAST_IN_EIGHT_BYTES:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def pong_frame(payload: bytes) -> bytes:
    """Answer a ping with what it said."""
    return bytes((FIN | PONG, len(payload))) + payload


def close_frame(code: int) -> bytes:
    """Say goodbye, and why."""
    return bytes((FIN | CLOSE, 2)) + code.to_bytes(2, "big")
