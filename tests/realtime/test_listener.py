"""The listener, byte by byte: what clients other than browsers and libraries may send."""

import asyncio
import json
import re
from contextlib import asynccontextmanager

import aiohttp
import pytest
from clients import ear, somebody, token, wire
from pods import until

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"
WEBSOCKET = "/socket.io/?EIO=4&transport=websocket"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "13",
}
TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE = 1, 2, 0, 9, 10, 8


@asynccontextmanager
async def connection(pod):
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.ws_port)
    try:
        yield reader, writer
    finally:
        writer.close()


def request(method, target, headers=None, body=b""):
    lines = [f"{method} {target} HTTP/1.1", "Host: x"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "\r\n"]).encode() + body


async def response(reader):
    """Read a response: its status, its headers in lower case, its body."""
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(status.split()[1]), headers, body


def frame(opcode, payload, *, fin=True):
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    mask = b"\x5a\x00\xff\x17"
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return bytes([(0x80 if fin else 0) | opcode]) + length + mask + masked


async def frames(reader):
    """Read frames until the connection is over."""
    while True:
        try:
            async with asyncio.timeout(20):
                first, second = await reader.readexactly(2)
                size = second & 0x7F
                if size == 126:
                    size = int.from_bytes(await reader.readexactly(2), "big")
                yield first & 0xF, await reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return


async def is_stored(reader, room, count):
    return len((await reader.get(f"/api/conversations/{room}/messages")).json["items"]) == count


@asynccontextmanager
async def websocket(pod):
    async with connection(pod) as (reader, writer):
        writer.write(request("GET", WEBSOCKET, UPGRADE))
        status, headers, _ = await response(reader)
        assert (status, headers["vary"]) == (101, "Origin")
        told = frames(reader)
        opcode, packet = await anext(told)
        assert (opcode, packet[:1]) == (TEXT, b"0")
        yield told, writer


async def test_requests_of_one_connection_are_answered_in_their_order(cluster):
    async with connection(cluster[0]) as (reader, writer):
        writer.write(request("GET", "/health/ready") + request("GET", "/nothing") + request("GET", HANDSHAKE))
        assert [(await response(reader))[0] for _ in range(3)] == [200, 404, 200]
        writer.write(request("GET", "/health/ready"))
        assert (await response(reader))[0] == 200


async def test_a_request_may_come_in_pieces(cluster):
    async with connection(cluster[0]) as (reader, writer):
        for byte in request("GET", "/health/ready"):
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await response(reader))[0] == 200


async def test_a_connection_ends_where_its_client_says_so(cluster):
    async with connection(cluster[0]) as (reader, writer):
        writer.write(request("GET", "/health/ready", {"Connection": "close"}))
        status, headers, _ = await response(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await reader.read() == b""


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / SPDY/3\r\n\r\n", 400),
        (request("GET", "/", {"X-Long": "x" * 16_384}), 413),
        (request("GET", "/" + "x" * 16_384), 413),
        (b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 20_000, 413),
        (request("GET", "/", {f"X-{number}": "x" * 100 for number in range(200)}), 413),
        (request("GET", "/health/ready") * 40, 400),
        (request("POST", HANDSHAKE, body=b"x" * (1 << 20 | 1)), 413),
        (request("POST", "/health/ready"), 405),
        (request("DELETE", "/socket.io/"), 405),
        (request("GET", "/socket.io/?EIO=3&transport=polling"), 400),
        (request("GET", "/socket.io/?EIO=4&transport=pigeon"), 400),
        (request("GET", "/socket.io/?EIO=4&transport=websocket"), 400),
        (request("POST", "/socket.io/?EIO=4&transport=websocket", UPGRADE), 400),
        (request("GET", "/socket.io/?EIO=4&transport=polling", UPGRADE), 400),
        (request("GET", "/socket.io/?EIO=4&transport=websocket&sid=unknown", UPGRADE), 400),
        (request("GET", "/socket.io/?transport=websocket", UPGRADE), 400),
        (request("GET", "/elsewhere", UPGRADE), 404),
        (request("GET", WEBSOCKET, {**UPGRADE, "Upgrade": "h2c"}), 400),
        (request("GET", WEBSOCKET, {**UPGRADE, "Sec-WebSocket-Key": "short"}), 400),
        (request("GET", WEBSOCKET, {**UPGRADE, "Sec-WebSocket-Version": "8"}), 400),
        (request("GET", WEBSOCKET, {**UPGRADE, "Origin": "https://evil.example"}), 403),
    ],
)
async def test_what_is_wrong_is_told_in_the_shape_of_all_errors(cluster, sent, status):
    async with connection(cluster[0]) as (reader, writer):
        writer.write(sent)
        answers = [await response(reader)]
        while answers[-1][0] == 200:
            answers.append(await response(reader))
        told, headers, body = answers[-1]
        assert told == status
        assert set(json.loads(body)) == {"code", "message"}
        assert ("allow" in headers) is (status == 405)
        assert headers["vary"] == "Origin"
        assert not [name for name in headers if name.startswith("access-control")]


async def test_whoever_does_not_send_a_request_in_time_is_closed(cluster):
    async with connection(cluster[0]) as (silent, _), connection(cluster[0]) as (slow, writer):
        writer.write(b"GET /health/ready HTTP/1.1\r\nX-Slow: ")
        async with asyncio.timeout(20):
            assert await silent.read() == b""
            assert await slow.read() == b""


async def test_frames_of_a_message_are_put_together(cluster):
    async with websocket(cluster[0]) as (told, writer):
        connect = b"40" + json.dumps({"token": token(somebody())}).encode()
        writer.write(
            frame(TEXT, connect[:9], fin=False) + frame(PING, b"between") + frame(CONTINUATION, connect[9:])
        )
        answers = [await anext(told), await anext(told)]
        assert [(opcode, packet[:2]) for opcode, packet in sorted(answers)] == [(TEXT, b"40"), (10, b"be")]


@pytest.mark.parametrize("pieces", [1, 7, 1000])
async def test_frames_may_come_in_any_pieces(cluster, pieces):
    connect = b"40" + json.dumps({"token": token(somebody()), "more": "x" * 2000}).encode()
    sent = (
        frame(PING, b"first") + frame(TEXT, connect[:999], fin=False) + frame(PING, b"") + frame(0, connect[999:])
    )
    async with websocket(cluster[0]) as (told, writer):
        for begin in range(0, len(sent), pieces):
            writer.write(sent[begin : begin + pieces])
            await writer.drain()
        answers = [await anext(told)]
        while answers[-1][0] != TEXT:
            answers.append(await anext(told))
        # Pings that come together may be answered as one.
        assert {opcode for opcode, _ in answers[:-1]} <= {PONG}
        assert answers[-1][1].startswith(b"40")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(CONTINUATION, b"x"), 1002),
        (frame(TEXT, b"4", fin=False) + frame(TEXT, b"0"), 1002),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"\xff", fin=False) + frame(CONTINUATION, b"\xfe"), 1007),
        (frame(TEXT, b"4" + b"x" * (1 << 20)), 1009),
        (frame(TEXT, b"4" + b"x" * 1_000_000, fin=False) + frame(CONTINUATION, b"x" * 100_000), 1009),
        (frame(TEXT, b"49"), 1000),
        (frame(TEXT, b"4nonsense"), 1000),
        (frame(BINARY, b"nobody asked for it"), 1000),
        (frame(3, b"there is no such frame"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CLOSE, b"\x03\xe8"), 1000),
        (frame(CLOSE, b"\x0b\xb8gone home"), 3000),
        (frame(CLOSE, b""), 1000),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        (frame(CLOSE, b"\x03\xe8") + frame(3, b"after the end") + frame(PING, b"and more"), 1000),
        (b"\x81\x01x", 1002),
    ],
)
async def test_what_is_no_message_ends_the_connection_and_nothing_else(cluster, sent, code):
    async with websocket(cluster[0]) as (told, writer):
        writer.write(sent)
        packets = [(opcode, packet) async for opcode, packet in told]
        assert packets in ([(CLOSE, code.to_bytes(2, "big"))], [(TEXT, b"1"), (CLOSE, code.to_bytes(2, "big"))])
    async with ear(cluster[0], somebody()) as other:
        assert await other.call("presence:ping", {}) == {"ok": True}


async def test_a_session_ends_with_the_poll_that_its_client_gave_up(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)

    async def is_online():
        return ben.user_id in (await anna.get(f"/api/conversations/{room}/presence")).json["online"]

    async with aiohttp.ClientSession() as http:
        async with http.get(cluster[0].ws + HANDSHAKE) as opened:
            url = f"{cluster[0].ws}{HANDSHAKE}&sid={json.loads((await opened.text())[1:])['sid']}"
        connect = "40" + json.dumps({"token": token(ben.user_id)})
        async with http.post(url, data=connect) as posted, http.get(url) as polled:
            assert (posted.status, (await polled.text())[:2]) == (200, "40")
        await until(is_online, "the one who polls is online")
        async with connection(cluster[0]) as (_, writer):
            writer.write(request("GET", url.removeprefix(cluster[0].ws)))
            await writer.drain()
            async with http.post(url, data="3") as response:
                assert response.status == 200

        async def is_gone():
            async with http.post(url, data="3") as response:
                return response.status == 400

        await until(is_gone, "the end of the session", 15)


async def test_what_a_client_sends_ahead_of_the_answer_to_its_upgrade_is_heard(cluster):
    async with connection(cluster[0]) as (reader, writer):
        connect = b"40" + json.dumps({"token": token(somebody())}).encode()
        writer.write(request("GET", WEBSOCKET, UPGRADE) + frame(TEXT, connect))
        assert (await response(reader))[0] == 101
        told = frames(reader)
        assert [(await anext(told))[1][:1], (await anext(told))[1][:2]] == [b"0", b"40"]


async def test_an_upgrade_that_comes_to_nothing_leaves_the_session_polling(cluster):
    async with aiohttp.ClientSession() as http:
        async with http.get(cluster[0].ws + HANDSHAKE) as opened:
            session_id = json.loads((await opened.text())[1:])["sid"]
        url = f"{cluster[0].ws}{HANDSHAKE}&sid={session_id}"
        upgrade = f"{cluster[0].ws}{WEBSOCKET}&sid={session_id}"
        async with http.ws_connect(upgrade) as probe:
            await probe.send_str("2probe")
            assert await probe.receive_str() == "3probe"
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await http.ws_connect(upgrade)
        connect = "40" + json.dumps({"token": token(somebody())})

        async def is_connected():
            async with http.post(url, data=connect) as posted, http.get(url) as polled:
                assert posted.status == 200
                return "40" in await polled.text()

        await until(is_connected, "the session goes on polling")


async def test_many_sends_of_one_socket_are_stored_and_acknowledged_in_their_order(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    async with wire(cluster[0], json.dumps({"token": token(anna.user_id)})) as by_hand:
        await by_hand.read_until("40")
        for number in range(50):
            command = json.dumps({"conversationId": room, "content": str(number)})
            await by_hand.write(f'42{number}["message:send",{command}]')
        acknowledged = [await by_hand.read_until("43") for _ in range(50)]
        assert [int(re.match(r"43(\d+)", packet)[1]) for packet in acknowledged] == list(range(50))
        stored = (await anna.get(f"/api/conversations/{room}/messages")).json["items"]
        assert [message["content"] for message in reversed(stored)] == [str(number) for number in range(50)]


async def test_a_client_that_says_more_at_once_than_is_read_ahead_is_answered_in_order(cluster):
    async with websocket(cluster[0]) as (told, writer):
        connect = b"40" + json.dumps({"token": token(somebody())}).encode()
        said = [f'42{number}["presence:ping"]'.encode() for number in range(2000)]
        writer.write(b"".join(frame(TEXT, packet) for packet in [connect, *said]))
        answered = []
        while len(answered) < len(said):
            packet = (await anext(told))[1]
            if packet.startswith(b"43"):
                answered.append(int(re.match(rb"43(\d+)", packet)[1]))
        assert answered == list(range(2000))


@pytest.mark.parametrize("goodbye", [frame(TEXT, b"1"), frame(CLOSE, b"\x03\xe8")])
async def test_all_of_a_burst_is_carried_out_where_its_client_leaves_at_once(user, cluster, goodbye):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    async with websocket(cluster[0]) as (told, writer):
        writer.write(frame(TEXT, b"40" + json.dumps({"token": token(anna.user_id)}).encode()))
        assert (await anext(told))[1].startswith(b"40")
        # Pings fill the inbox, so that the message behind them is read when the client is gone.
        said = [frame(TEXT, b'42["presence:ping"]')] * 600
        last = f'42["message:send",{{"conversationId":"{room}","content":"the last word"}}]'.encode()
        writer.write(b"".join([*said, frame(TEXT, last), goodbye]))
        await writer.drain()

        await until(lambda: is_stored(ben, room, 1), "the last word")


async def test_a_websocket_says_nothing_after_its_goodbye(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    async with websocket(cluster[0]) as (told, writer):
        writer.write(frame(TEXT, b"40" + json.dumps({"token": token(anna.user_id)}).encode()))
        assert (await anext(told))[1].startswith(b"40")
        send = f'421["message:send",{{"conversationId":"{room}","content":"quick"}}]'.encode()
        writer.write(frame(TEXT, send) * 3 + frame(TEXT, b'422["nothing"]') + frame(CLOSE, b"\x03\xe8"))
        assert [opcode async for opcode, _ in told][-1:] == [CLOSE]
        await until(lambda: is_stored(ben, room, 3), "what was said before the goodbye")


async def test_what_was_sent_before_the_end_of_a_connection_is_carried_out(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    async with wire(cluster[0], json.dumps({"token": token(anna.user_id)})) as by_hand:
        await by_hand.read_until("40")
        for number in range(20):
            await by_hand.write(f'42["message:send",{{"conversationId":"{room}","content":"{number}"}}]')

    async def is_stored():
        stored = (await anna.get(f"/api/conversations/{room}/messages")).json["items"]
        return [message["content"] for message in reversed(stored)] == [str(number) for number in range(20)]

    await until(is_stored, "all that was sent")
