"""The cases of the fuzzing client of the Autobahn TestSuite, by its numbers, adapted to Engine.IO.

What is said back is a message of Engine.IO, text that begins with a 4; of bytes the digest is said back. The
limits (section 9) are those of this service: a packet of more than 1 MiB ends the connection.
"""

import pytest
from echoing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    digest,
    echo_server,
    frame,
    raw_socket,
)

from app.realtime.engineio.engine import MAX_MESSAGE_BYTES

NORMAL, PROTOCOL_ERROR, INVALID, TOO_LARGE = 1000, 1002, 1007, 1009
BYE = frame(CLOSE, NORMAL.to_bytes(2, "big"))
# Its second letter is one of three bytes.
KOSME = bytes.fromhex("cebae1bdb9cf83cebcceb5")
EDITED = b"-edited"


@pytest.fixture(scope="module")
async def port():
    async with echo_server() as (_, found):
        yield found


def text(payload=b"", **more):
    return frame(TEXT, b"4" + payload, **more)


def more(payload=b"", *, fin=True):
    return frame(CONTINUATION, payload, fin=fin)


def said(payload=b""):
    return TEXT, b"4" + payload


def heard(payload):
    return TEXT, b"4" + digest(payload).encode()


def pong(payload=b""):
    return PONG, payload


def closed(code):
    return CLOSE, code.to_bytes(2, "big")


def chopped(data, size):
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


def fragments(opcode, payload, size):
    parts = chopped(payload, size)
    last = len(parts) - 1
    return [frame(CONTINUATION if n else opcode, part, fin=n == last) for n, part in enumerate(parts)]


async def expect(port, sent, expected):
    """Send chunks and read to the end of the connection."""
    async with raw_socket(port) as socket:
        await socket.send(sent)
        assert await socket.rest() == expected


async def expect_echo(port, sent, expected):
    """Send chunks, read as many frames as are expected, then say goodbye."""
    async with raw_socket(port) as socket:
        await socket.send(sent)
        assert [await socket.read() for _ in expected] == expected
        await socket.send([BYE])
        assert await socket.rest() == [closed(NORMAL)]


SIZES = [0, 125, 126, 127, 128, 65_535, 65_536]

ECHOED = [
    *((f"1.1.{n}", [text(b"*" * size)], [said(b"*" * size)]) for n, size in enumerate(SIZES, 1)),
    ("1.1.8", chopped(text(b"*" * 65_536), 997), [said(b"*" * 65_536)]),
    *((f"1.2.{n}", [frame(BINARY, b"\xfe" * size)], [heard(b"\xfe" * size)]) for n, size in enumerate(SIZES, 1)),
    ("1.2.8", chopped(frame(BINARY, b"\xfe" * 65_536), 997), [heard(b"\xfe" * 65_536)]),
    ("2.1", [frame(PING)], [pong()]),
    ("2.2", [frame(PING, b"Hello, world!")], [pong(b"Hello, world!")]),
    ("2.3", [frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")], [pong(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")]),
    ("2.4", [frame(PING, b"\xfe" * 125)], [pong(b"\xfe" * 125)]),
    ("2.6", chopped(frame(PING, b"\xfe" * 125), 1), [pong(b"\xfe" * 125)]),
    ("2.7", [frame(PONG)], []),
    ("2.8", [frame(PONG, b"unsolicited")], []),
    ("2.9", [frame(PONG, b"unsolicited"), frame(PING, b"ping")], [pong(b"ping")]),
    # Pings that come together may be answered by one pong, for the last (RFC 6455, section 5.5.3).
    ("2.10", [b"".join(frame(PING, f"payload-{n}".encode()) for n in range(10))], [pong(b"payload-9")]),
    ("3.1 without the bits", [text(b"Hello, world!")], [said(b"Hello, world!")]),
    ("5.3", [text(b"fragment1", fin=False) + more(b"fragment2")], [said(b"fragment1fragment2")]),
    ("5.4", [text(b"fragment1", fin=False), more(b"fragment2")], [said(b"fragment1fragment2")]),
    ("5.5", chopped(text(b"fragment1", fin=False) + more(b"fragment2"), 1), [said(b"fragment1fragment2")]),
    *(
        (
            f"5.{n}",
            chop(text(b"fragment1", fin=False) + frame(PING, b"ping") + more(b"fragment2")),
            [pong(b"ping"), said(b"fragment1fragment2")],
        )
        for n, chop in (
            (6, lambda data: [data]),
            (7, lambda data: chopped(data, 7)),
            (8, lambda data: chopped(data, 1)),
        )
    ),
    ("6.1.1", [text()], [said()]),
    ("6.1.2", [text(fin=False), more(fin=False), more()], [said()]),
    (
        "6.1.3",
        [text(fin=False), more(b"middle frame payload", fin=False), more()],
        [said(b"middle frame payload")],
    ),
    ("6.2.1", [text("Hello-µ@ßöäüàá-UTF-8!!".encode())], [said("Hello-µ@ßöäüàá-UTF-8!!".encode())]),
    (
        "6.2.2",
        [text("Hello-µ@ßöä".encode(), fin=False), more("üàá-UTF-8!!".encode())],
        [said("Hello-µ@ßöäüàá-UTF-8!!".encode())],
    ),
    (
        "6.2.3",
        fragments(TEXT, b"4" + "Hello-µ@ßöäüàá-UTF-8!!".encode(), 1),
        [said("Hello-µ@ßöäüàá-UTF-8!!".encode())],
    ),
    ("6.2.4", fragments(TEXT, b"4" + KOSME, 1), [said(KOSME)]),
    *(
        (f"9.1 {size}", [text(b"*" * size)], [said(b"*" * size)])
        for size in (65_536, 262_144, MAX_MESSAGE_BYTES - 1)
    ),
    *(
        (f"9.2 {size}", [frame(BINARY, b"*" * size)], [heard(b"*" * size)])
        for size in (65_536, 262_144, MAX_MESSAGE_BYTES)
    ),
    *(
        (
            f"9.3 {size}",
            fragments(TEXT, b"4" + b"*" * (MAX_MESSAGE_BYTES - 1), size),
            [said(b"*" * (MAX_MESSAGE_BYTES - 1))],
        )
        for size in (64, 4096, 262_144)
    ),
    *(
        (f"9.4 {size}", fragments(BINARY, b"*" * MAX_MESSAGE_BYTES, size), [heard(b"*" * MAX_MESSAGE_BYTES)])
        for size in (64, 4096, 262_144)
    ),
    *(
        (
            f"9.5 {size}",
            chopped(text(b"*" * (MAX_MESSAGE_BYTES - 1)), size),
            [said(b"*" * (MAX_MESSAGE_BYTES - 1))],
        )
        for size in (64, 512, 2048)
    ),
    ("9.7", [text(b"*" * 64)] * 500, [said(b"*" * 64)] * 500),
    ("9.8", [frame(BINARY, b"*" * 1024)] * 500, [heard(b"*" * 1024)] * 500),
    ("7.1.1", [text(b"Hello World!")], [said(b"Hello World!")]),
    ("10.1.1", fragments(TEXT, b"4" + b"*" * 65_536, 1300), [said(b"*" * 65_536)]),
]


def cases(table):
    return pytest.mark.parametrize(
        ("sent", "expected"), [case[1:] for case in table], ids=[case[0] for case in table]
    )


@cases(ECHOED)
async def test_what_is_right_is_taken_and_said_back(port, sent, expected):
    await expect_echo(port, sent, expected)


@pytest.mark.parametrize("at_once", [True, False], ids=["5.19", "5.20"])
async def test_pings_among_the_fragments_of_a_message_are_answered(port, at_once):
    begin = [text(b"fragment1", fin=False), more(b"fragment2", fin=False), frame(PING, b"pongme 1!")]
    end = [
        more(b"fragment3", fin=False),
        more(b"fragment4", fin=False),
        frame(PING, b"pongme 2!"),
        more(b"fragment5"),
    ]
    async with raw_socket(port) as socket:
        await socket.send([b"".join(begin)] if at_once else begin)
        assert await socket.read() == pong(b"pongme 1!")
        await socket.send([b"".join(end)] if at_once else end)
        assert await socket.read() == pong(b"pongme 2!")
        assert await socket.read() == said(b"fragment1fragment2fragment3fragment4fragment5")


# What is refused: the message before it may be said back, nothing after it is heard.
REFUSED = [
    ("2.5", [frame(PING, b"\xfe" * 126)], PROTOCOL_ERROR),
    *((f"3.{bits}", [frame(TEXT, b"4x", reserved=bits)], PROTOCOL_ERROR) for bits in range(1, 8)),
    ("3.5 binary", [frame(BINARY, b"x", reserved=5)], PROTOCOL_ERROR),
    ("3.6 ping", [frame(PING, b"x", reserved=6)], PROTOCOL_ERROR),
    ("3.7 close", [frame(CLOSE, b"", reserved=7)], PROTOCOL_ERROR),
    *((f"4.1.{n}", [frame(2 + n)], PROTOCOL_ERROR) for n in range(1, 6)),
    *((f"4.1.{n} payload", [frame(2 + n, b"x") + frame(PING)], PROTOCOL_ERROR) for n in range(1, 6)),
    *((f"4.2.{n}", [frame(10 + n)], PROTOCOL_ERROR) for n in range(1, 6)),
    *((f"4.2.{n} payload", [frame(10 + n, b"x") + frame(PING)], PROTOCOL_ERROR) for n in range(1, 6)),
    ("5.1", [frame(PING, b"x", fin=False), more(b"y")], PROTOCOL_ERROR),
    ("5.2", [frame(PONG, b"x", fin=False), more(b"y")], PROTOCOL_ERROR),
    ("5.9", [more(b"non-continuation") + text(b"Hello")], PROTOCOL_ERROR),
    ("5.10", [more(b"non-continuation"), text(b"Hello")], PROTOCOL_ERROR),
    ("5.11", chopped(more(b"non-continuation") + text(b"Hello"), 1), PROTOCOL_ERROR),
    ("5.12", [more(b"non-continuation", fin=False) + text(b"Hello")], PROTOCOL_ERROR),
    ("5.13", [more(b"non-continuation", fin=False), text(b"Hello")], PROTOCOL_ERROR),
    ("5.14", chopped(more(b"non-continuation", fin=False) + text(b"Hello"), 1), PROTOCOL_ERROR),
    ("5.16", [more(b"f1", fin=False), text(b"f2", fin=False), more(b"f3")] * 2, PROTOCOL_ERROR),
    ("5.17", [more(b"f1"), text(b"f2", fin=False), more(b"f3")] * 2, PROTOCOL_ERROR),
    ("5.18", [text(b"fragment1", fin=False), text(b"fragment2")], PROTOCOL_ERROR),
    ("not masked", [b"\x81\x024x"], PROTOCOL_ERROR),
    ("a length that is longer than it need be", [b"\x81\xfe\x00\x02" + b"\0\0\0\0" + b"4x"], PROTOCOL_ERROR),
    ("a length of more than 63 bits", [b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0"], PROTOCOL_ERROR),
    ("6.3.1", [text(KOSME + b"\xed\xa0\x80" + EDITED)], INVALID),
    ("6.3.2", fragments(TEXT, b"4" + KOSME + b"\xed\xa0\x80" + EDITED, 1), INVALID),
    ("9.1 too large", [text(b"*" * MAX_MESSAGE_BYTES)], TOO_LARGE),
    ("9.1 far too large", [text(b"*" * (3 << 20))], TOO_LARGE),
    ("9.2 too large", [frame(BINARY, b"*" * (MAX_MESSAGE_BYTES + 1))], TOO_LARGE),
    ("9.3 too large", fragments(TEXT, b"4" + b"*" * MAX_MESSAGE_BYTES, 4096), TOO_LARGE),
    ("9.4 too large", fragments(BINARY, b"*" * (MAX_MESSAGE_BYTES + 1), 4096), TOO_LARGE),
    ("12.1 and 13.1", [frame(TEXT, b"4x", reserved=4)], PROTOCOL_ERROR),
]


@cases(REFUSED)
async def test_what_is_wrong_ends_the_connection_and_its_reason_is_read(port, sent, expected):
    await expect(port, [*sent, frame(PING, b"too late")], [closed(expected)])


@cases([(f"{case[0]} after a message", *case[1:]) for case in REFUSED])
async def test_what_came_before_it_was_taken(port, sent, expected):
    async with raw_socket(port) as socket:
        await socket.send([text(b"before")])
        assert await socket.read() == said(b"before")
        await socket.send([*sent, text(b"too late")])
        assert await socket.rest() == [closed(expected)]


async def test_5_15_a_part_of_no_message_ends_the_connection_after_one_that_was_whole(port):
    async with raw_socket(port) as socket:
        await socket.send([text(b"fragment1", fin=False), more(b"fragment2")])
        assert await socket.read() == said(b"fragment1fragment2")
        await socket.send([more(b"fragment3", fin=False), text(b"fragment4")])
        assert await socket.rest() == [closed(PROTOCOL_ERROR)]


@pytest.mark.parametrize(
    "broken",
    [
        # 6.4.1 and 6.4.2, which differ in what they break.
        b"\xf4\x90\x80\x80",
        b"\xed\xa0\x80",
        b"\xff",
        b"\xc0",
    ],
)
async def test_6_4_text_that_is_none_is_refused_before_its_message_is_whole(port, broken):
    async with raw_socket(port) as socket:
        await socket.send([text(KOSME, fin=False), more(broken, fin=False)])
        assert await socket.rest() == [closed(INVALID)]


async def test_6_4_a_character_may_be_split_between_fragments_but_must_be_whole_in_the_last(port):
    async with raw_socket(port) as socket:
        await socket.send([text(b"\xf0\x9f", fin=False), more(b"\x98\x80", fin=False), more(b"\xf0\x9f")])
        assert await socket.rest() == [closed(INVALID)]


def several(*starts):
    return [bytes.fromhex(start) for start in starts]


# By the sections of Markus Kuhn's test of decoders, from which the suite has them.
TEXTS = {
    "6.5": several("ceba", "cebae1bdb9cf83cebcceb5"),
    "6.6": [KOSME[:end] for end in (2, 5, 7, 9, 11)],
    "6.7": several("00", "c280", "e0a080", "f0908080"),
    "6.9": several("7f", "dfbf", "efbfbf", "f48fbfbf"),
    "6.11": several("ed9fbf", "ee8080", "efbfbd", "f48fbfbf"),
    "6.22": [chr(plane << 16 | last).encode() for plane in range(17) for last in (0xFFFE, 0xFFFF)],
    "6.23": [chr(code).encode() for code in range(0xFFF9, 0x10000)],
}
NO_TEXTS = {
    "6.6": [KOSME[:end] for end in (1, 3, 4, 6, 8, 10)],
    "6.8": several("f888808080", "fc8480808080"),
    "6.10": several("f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf"),
    "6.11": several("f4908080"),
    "6.12": [b"\x80", b"\xbf", *[(b"\x80\xbf" * 4)[:end] for end in range(2, 8)], bytes(range(0x80, 0xC0))],
    "6.13": [
        b"".join(bytes((first, 0x20)) for first in range(*firsts))
        for firsts in ((0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8), (0xF8, 0xFC), (0xFC, 0xFE))
    ],
    "6.14": several(
        "c0", "e080", "f08080", "f8808080", "fc80808080", "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf"
    ),
    "6.15": several("c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf"),
    "6.16": several("fe", "ff", "fefeffff"),
    "6.17": several("c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"),
    "6.18": several("c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf"),
    "6.19": several("c080", "e08080", "f0808080", "f880808080", "fc8080808080"),
    "6.20": several("eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf"),
    "6.21": several(
        "eda080edb080",
        "eda080edbfbf",
        "edadbfedb080",
        "edadbfedbfbf",
        "edae80edb080",
        "edae80edbfbf",
        "edafbfedb080",
        "edafbfedbfbf",
    ),
}


def numbered(texts):
    found = [(f"{section}.{n}", one) for section, all_of_it in texts.items() for n, one in enumerate(all_of_it, 1)]
    return pytest.mark.parametrize("payload", [one for _, one in found], ids=[name for name, _ in found])


@numbered(TEXTS)
async def test_text_is_said_back_however_it_is_split(port, payload):
    sent = [text(payload), *fragments(TEXT, b"4" + payload, 1)]
    await expect_echo(port, sent, [said(payload)] * 2)


@numbered(NO_TEXTS)
async def test_text_that_is_none_is_refused_however_it_is_split(port, payload):
    await expect(port, [text(payload)], [closed(INVALID)])
    await expect(port, fragments(TEXT, b"4" + payload, 1), [closed(INVALID)])


# 7, how connections are closed.

GOODBYES = [
    ("7.1.2", [BYE, BYE], [closed(NORMAL)]),
    ("7.1.3", [BYE, frame(PING)], [closed(NORMAL)]),
    ("7.1.4", [BYE, text(b"Hello World!")], [closed(NORMAL)]),
    ("7.1.5", [text(b"fragment1", fin=False), BYE, more(b"fragment2")], [closed(NORMAL)]),
    ("7.3.1", [frame(CLOSE)], [closed(NORMAL)]),
    ("7.3.2", [frame(CLOSE, b"a")], [closed(PROTOCOL_ERROR)]),
    ("7.3.3", [frame(CLOSE, b"\x03\xe8")], [closed(NORMAL)]),
    ("7.3.4", [frame(CLOSE, b"\x03\xe8Hello World!")], [closed(NORMAL)]),
    ("7.3.5", [frame(CLOSE, b"\x03\xe8" + b"*" * 123)], [closed(NORMAL)]),
    ("7.3.6", [frame(CLOSE, b"\x03\xe8" + b"*" * 124)], [closed(PROTOCOL_ERROR)]),
    ("7.5.1", [frame(CLOSE, b"\x03\xe8" + KOSME + b"\xed\xa0\x80" + EDITED)], [closed(INVALID)]),
    *(
        (f"7.7 {code}", [frame(CLOSE, code.to_bytes(2, "big"))], [closed(code)])
        for code in (
            1000,
            1001,
            1002,
            1003,
            1007,
            1008,
            1009,
            1010,
            1011,
            1012,
            1013,
            1014,
            3000,
            3999,
            4000,
            4999,
        )
    ),
    *(
        (f"{section} {code}", [frame(CLOSE, code.to_bytes(2, "big") + words)], [closed(PROTOCOL_ERROR)])
        for section, codes in (
            ("7.9", (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999)),
            ("7.13", (5000, 65_535)),
        )
        for code in codes
        for words in (b"", b"reason")
    ),
]


@cases(GOODBYES)
async def test_a_goodbye_is_answered_and_nothing_is_heard_after_it(port, sent, expected):
    await expect(port, [b"".join(sent)], expected)


async def test_7_1_6_what_was_said_before_a_goodbye_is_taken(port):
    async with raw_socket(port) as socket:
        await socket.send([text(b"*" * 262_144) + text(b"Hello World!") + BYE + frame(PING)])
        told = await socket.rest()
        assert told[-1] == closed(NORMAL)
        assert PONG not in {opcode for opcode, _ in told}


@pytest.mark.parametrize(
    "offer", ["permessage-deflate", "permessage-deflate; client_max_window_bits", "x-webkit-deflate-frame"]
)
async def test_12_and_13_an_extension_that_is_offered_is_not_taken(port, offer):
    async with raw_socket(port, headers=f"Sec-WebSocket-Extensions: {offer}\r\n".encode()) as socket:
        assert b"sec-websocket-extensions" not in socket.head.lower()
        await socket.send([text(b"plain")])
        assert await socket.read() == said(b"plain")
