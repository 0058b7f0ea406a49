"""The frames of WebSockets (RFC 6455, section 5): what clients send is read, whole or in pieces."""

import hypothesis
import pytest
from hypothesis import strategies

from app.realtime.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_LARGE,
    FrameError,
    close_frame,
    pong_frame,
    read_close,
    read_frame,
    text_frame,
)

MOST = 70_000
SIZES = [0, 1, 3, 4, 5, 124, 125, 126, 127, 65_535, 65_536, MOST]


def masked(first: int, payload: bytes, mask: bytes = b"\x01\xa2\x00\xff") -> bytes:
    """Write a frame as a client does, by the words of the RFC."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([first]) + length + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def test_what_the_rfc_shows_is_read_and_written():
    # Section 5.7.
    assert read_frame(bytes.fromhex("818537fa213d7f9f4d5158"), 0, MOST) == (0x81, b"Hello", 11)
    assert text_frame(b"Hello") == bytes.fromhex("810548656c6c6f")
    assert pong_frame(b"Hello") == bytes.fromhex("8a0548656c6c6f")
    assert close_frame(1000) == bytes.fromhex("880203e8")


@pytest.mark.parametrize("size", SIZES)
def test_a_payload_of_any_size_is_read_and_written(size):
    payload = bytes(place % 251 for place in range(size))
    data = b"before" + masked(FIN | TEXT, payload) + b"after"
    assert read_frame(data, 6, MOST) == (FIN | TEXT, payload, len(data) - 5)
    head, written = text_frame(payload)[:-size] if size else text_frame(b""), text_frame(payload)
    assert written.endswith(payload)
    assert head[:2] == written[:2]
    assert head[1] == (size if size < 126 else 126 if size < 65_536 else 127)
    assert size < 126 or int.from_bytes(head[2:], "big") == size


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_536])
def test_a_frame_that_is_not_whole_says_how_much_must_come(size):
    data = masked(FIN | BINARY, b"x" * size)
    for there in {*range(20), len(data) // 2, len(data) - 1} & {*range(len(data))}:
        wanted = read_frame(data[:there], 0, MOST)
        assert isinstance(wanted, int)
        assert there < wanted <= len(data)


@hypothesis.given(
    strategies.lists(strategies.tuples(strategies.binary(max_size=300), strategies.binary(min_size=4, max_size=4)))
)
def test_frames_that_follow_one_another_are_read_one_by_one(sent):
    data = b"".join(masked(FIN | TEXT, payload, mask) for payload, mask in sent)
    read, begin = [], 0
    while begin < len(data):
        frame = read_frame(data, begin, MOST)
        assert not isinstance(frame, int)
        read.append(frame.payload)
        begin = frame.end
    assert read == [payload for payload, _ in sent]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (text_frame(b"not masked"), PROTOCOL_ERROR),
        *((masked(FIN | reserved | TEXT, b"x"), PROTOCOL_ERROR) for reserved in (0x40, 0x20, 0x10)),
        *((masked(FIN | kind, b"x"), PROTOCOL_ERROR) for kind in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        *((masked(FIN | kind, b"x" * 126), PROTOCOL_ERROR) for kind in (CLOSE, PING, PONG)),
        *((masked(kind, b"x"), PROTOCOL_ERROR) for kind in (CLOSE, PING, PONG)),
        (masked(FIN | TEXT, b"x" * (MOST + 1))[:14], TOO_LARGE),
        (b"\x82\xff" + b"\x7f" + b"\xff" * 7 + b"mask", TOO_LARGE),
        (b"\x82\xff" + b"\xff" * 8 + b"mask", PROTOCOL_ERROR),
        (b"\x82\xfe" + (125).to_bytes(2, "big") + b"mask", PROTOCOL_ERROR),
        (b"\x82\xff" + (65_535).to_bytes(8, "big") + b"mask", PROTOCOL_ERROR),
    ],
)
def test_what_none_may_send_is_refused_before_it_is_whole(data, code):
    with pytest.raises(FrameError) as raised:
        read_frame(data, 0, MOST)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("first", "kind", "is_last"),
    [(TEXT, TEXT, False), (CONTINUATION, CONTINUATION, False), (FIN, CONTINUATION, True)],
)
def test_a_frame_tells_its_kind_and_whether_its_message_ends(first, kind, is_last):
    frame = read_frame(masked(first, b"part"), 0, MOST)
    assert not isinstance(frame, int)
    assert (frame.kind, frame.is_last, frame.payload) == (kind, is_last, b"part")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", 1000),
        *((code.to_bytes(2, "big"), code) for code in (1000, 1003, 1007, 1014, 3000, 4999)),
        ((1001).to_bytes(2, "big") + "tschüß".encode(), 1001),
    ],
)
def test_a_goodbye_says_why(payload, code):
    assert read_close(payload) == code


@pytest.mark.parametrize(
    "payload",
    [
        b"\x03",
        b"\x03\xe8\xff",
        *(code.to_bytes(2, "big") for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)),
    ],
)
def test_a_goodbye_that_none_may_say_is_refused(payload):
    with pytest.raises(ValueError, match=r"there is no such reason|invalid start byte"):
        read_close(payload)
