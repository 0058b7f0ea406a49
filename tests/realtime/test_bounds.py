"""What one client may cost: memory, the loop's time and lines of the log, whatever it sends."""

import asyncio
import io
import json
import re
import socket
import struct
import time
from contextlib import AsyncExitStack, suppress

import pytest
from clients import Rest, ear, somebody, token, wire
from echoing import CLOSE, TEXT, frame, raw_socket
from memory import Growth, on_linux
from pods import pods, until

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"
SEPARATOR = "\x1e"
MIB = 1 << 20


def connect(user_id):
    return "40" + json.dumps({"token": token(user_id)})


async def open_polling(http, pod, user_id=None):
    """Open a session that polls; gives its URL."""
    async with http.get(pod.ws + HANDSHAKE) as opened:
        url = f"{pod.ws}{HANDSHAKE}&sid={json.loads((await opened.text())[1:])['sid']}"
    if user_id is not None:
        assert await post(http, url, connect(user_id)) == 200
        async with http.get(url) as polled:
            assert (await polled.text()).startswith("40")
    return url


async def post(http, url, body):
    async with http.post(url, data=io.BytesIO(body.encode())) as response:
        return response.status


def send(room, number, content):
    return f"42{number}" + json.dumps(["message:send", {"conversationId": room, "content": content}])


async def test_an_honest_burst_over_polling_is_stored_and_acknowledged_in_its_order(user, cluster, http):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    url = await open_polling(http, cluster[0], anna.user_id)
    said = [send(room, number, f"{number} " + "x" * 2000) for number in range(2000)]
    acknowledged = []

    async def poll():
        while len(acknowledged) < len(said):
            async with http.get(url) as polled:
                assert polled.status == 200
                text = await polled.text()
            for packet in text.split(SEPARATOR):
                if packet == "2":
                    assert await post(http, url, "3") == 200
                elif packet.startswith("43"):
                    number, _, answer = packet[2:].partition("[")
                    assert '"ok":true' in answer[:20]
                    acknowledged.append(int(number))

    polling = asyncio.ensure_future(poll())
    for begin in range(0, len(said), 450):
        body = SEPARATOR.join(said[begin : begin + 450])
        assert MIB * 0.5 < len(body) < MIB or begin
        assert await post(http, url, body) == 200
    await polling
    assert acknowledged == list(range(2000))
    stored = (await ben.get(f"/api/conversations/{room}")).json["lastSeq"]
    assert stored == 2000


@pytest.fixture
async def stuck(servers, http, tmp_path, sql):
    """Give a pod and, for each of some attackers, what they send to have all that follows wait."""
    async with pods(servers.environment(), tmp_path, 1) as (pod,):
        attackers = []
        for _ in range(4):
            user_id = somebody("attacker")
            one = Rest(http, pod.http, user_id, token(user_id))
            attackers.append((user_id, await one.group(), await one.group()))
        async with sql.transaction():
            await sql.execute("SELECT FROM conversation_heads FOR UPDATE")
            # What is said in the one is not stored, and what is said in the other waits for that.
            yield pod, [(user_id, [send(here, 1, "x"), send(there, 2, "x")]) for user_id, here, there in attackers]


@on_linux
async def test_what_clients_that_poll_post_costs_little_memory(stuck, http):
    pod, attackers = stuck
    urls = [await open_polling(http, pod, user_id) for user_id, _ in attackers]
    idle = [await open_polling(http, pod, somebody()) for _ in attackers]
    growth = Growth(pod.process.pid)

    async def upgrade(url):
        for _ in range(50):
            await post(http, url, SEPARATOR.join(["5"] * 4000))

    async def flood(url, first):
        await post(http, url, SEPARATOR.join(first))
        for _ in range(40):
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    if await post(http, url, SEPARATOR.join(['42["nothing","' + "x" * 250_000 + '"]'] * 4)) != 200:
                        return

    await asyncio.gather(*(flood(url, first) for url, (_, first) in zip(urls, attackers, strict=True)))
    await asyncio.gather(*map(upgrade, idle))
    assert growth.peak < 50 * MIB
    assert list(pod.errors()) == []


@on_linux
async def test_what_clients_send_over_websockets_costs_little_memory(stuck):
    pod, attackers = stuck

    async def flood(by_hand, first):
        chunks = [frame(TEXT, packet.encode()) for packet in first]
        # What is too large is not kept; of what is not, little.
        chunks += [
            frame(TEXT, b'42["nothing","' + b"x" * size + b'"]') for size in [900_000] * 30 + [250_000] * 60
        ]
        for chunk in chunks:
            by_hand.writer.write(chunk)
            try:
                async with asyncio.timeout(2):
                    await by_hand.writer.drain()
            except TimeoutError:
                # It is not read from.
                return

    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(raw_socket(pod.ws_port)) for _ in attackers]
        for by_hand, (user_id, _) in zip(opened, attackers, strict=True):
            await by_hand.send([frame(TEXT, connect(user_id).encode())])
            assert (await by_hand.read())[1].startswith(b"40")
        growth = Growth(pod.process.pid)
        await asyncio.gather(
            *(flood(by_hand, first) for by_hand, (_, first) in zip(opened, attackers, strict=True))
        )
        assert growth.peak < 50 * MIB
        for by_hand in opened:
            by_hand.writer.transport.abort()


FAILING = [
    '42["nothing"]',
    "42[",
    "49",
    '42["auth:refresh",{"token":"nonsense"}]',
    '42["auth:refresh",{"token":"' + token("someone-else") + '"}]',
    '42["message:edit",{"messageId":"msg_nothing","content":"x"}]',
    '42["message:send",{"conversationId":"conv_nothing","content":"x"}]',
]


@pytest.mark.parametrize("failing", FAILING, ids=[one[:30] for one in FAILING])
async def test_one_whose_events_fail_by_the_thousand_slows_itself_alone(cluster, failing):
    async with wire(cluster[0], connect(somebody("noisy"))[2:]) as noisy, ear(cluster[0], somebody()) as other:
        await noisy.read_until("40")
        for _ in range(3000):
            await noisy.write(failing)
        await noisy.write('4299["presence:ping",{}]')
        failed = 0

        async def count():
            nonlocal failed
            while not (packet := await noisy.read() or "43").startswith("43"):
                failed += packet.startswith('42["error"')

        counting = asyncio.ensure_future(count())

        async def has_failed():
            return failed >= 500

        await until(has_failed, "as many as may fail at once", 20)
        before = failed
        for _ in range(20):
            assert await other.call("presence:ping", {}) == {"ok": True}
        # Each is told, as time goes by, and none is told anything else.
        assert not counting.done()

        async def goes_on():
            return failed > before

        await until(goes_on, "those that waited")
        counting.cancel()
    lines = cluster[0].log.read_text()
    assert "nonsense" not in lines


async def test_a_failed_event_that_waits_for_its_turn_is_answered_and_what_follows_is_done(cluster):
    async with wire(cluster[0], connect(somebody())[2:]) as socket:
        await socket.read_until("40")
        for number in range(520):
            await socket.write(f'42{number}["nothing"]')
        await socket.write('42520["presence:ping",{}]')
        for number in range(520):
            acknowledged = await socket.read_until("43")
            assert acknowledged.startswith(f"43{number}[")
            assert '"VALIDATION_ERROR"' in acknowledged
        assert await socket.read_until("43") == '43520[{"ok":true}]'


COSTLY = {
    "deep nesting": '42["message:edit",' + "[" * 250_000 + "]" * 5,
    "deep nesting of an unknown event": '42["nothing",' + "[" * 100_000 + "]" * 100_000 + "]",
    "brackets": "42" + "[" * 250_000,
    "objects in objects": '42["sync",' + '{"a":' * 40_000 + "1" + "}" * 40_000 + "]",
    "very many keys": '42["message:edit",{' + ",".join(f'"{n}":1' for n in range(20_000)) + "}]",
    "very many conversations": '42["sync",{"conversations":{'
    + ",".join(f'"{n}":1' for n in range(20_000))
    + "}}]",
    "a long name": '42["' + "x" * 250_000 + '"]',
    "a long name that is escaped": '42["' + "\\u0041" * 40_000 + '"]',
    "a name that does not end": '42["' + "x" * 250_000,
    "a number of very many digits": "42" + "9" * 250_000 + '["nothing"]',
    "whitespace": "42" + " " * 1_000_000,
    "whitespace within": "42[" + " " * 1_000_000,
    "whitespace before a payload": '42["message:edit",' + " " * 200_000 + "x",
    "braces that come to nothing": '42["message:send",{' + "}" * 250_000,
    "brackets that come to nothing": '42["message:send",{' + "}]" * 120_000 + "x",
    "digits": "4" + "2" * 1_000_000,
    "a namespace": "42/" + "x" * 1_000_000,
    "a number of attachments": "45" + "9" * 1_000_000 + '-["x"]',
    "surrogates": '42["message:edit",{"messageId":"' + "\\ud800" * 40_000 + '"}]',
    "a token that is no token": '42["auth:refresh",{"token":"' + "a." * 8000 + '"}]',
    "large numbers": '42["sync",{"conversations":{"a":' + "9" * 250_000 + "}}]",
}


@pytest.mark.parametrize("packet", COSTLY.values(), ids=COSTLY)
async def test_what_is_costly_to_read_is_answered_and_the_socket_goes_on(cluster, packet):
    async with wire(cluster[0], connect(somebody())[2:]) as socket:
        await socket.read_until("40")
        await socket.write(packet)
        name, told = json.loads((await socket.read_until("42"))[2:])
        assert name == "error"
        assert told["code"] in {"VALIDATION_ERROR", "PAYLOAD_TOO_LARGE", "NOT_FOUND", "UNAUTHORIZED"}
        assert len(told["event"]) <= 1024
        await socket.write('4299["presence:ping",{}]')
        assert await socket.read_until("43") == '4399[{"ok":true}]'


ATTACHED = {
    "no placeholder": ['451-["presence:ping",{}]', b"x"],
    "a placeholder of nothing": ['451-["message:send",{"_placeholder":true,"num":5}]', b"x"],
    "a negative placeholder": ['451-["message:send",{"_placeholder":true,"num":-1}]', b"x"],
    "a placeholder that is no number": ['451-["message:send",{"_placeholder":true,"num":"x"}]', b"x"],
    "a huge placeholder": ['451-["message:send",{"_placeholder":true,"num":1e400}]', b"x"],
    "nested placeholders": [
        '451-["message:send",[{"_placeholder":true,"num":{"_placeholder":true,"num":0}}]]',
        b"x",
    ],
    "a placeholder for the event": ['451-{"_placeholder":true,"num":5}', b"x"],
    "a placeholder for the name": ['451-[{"_placeholder":true,"num":0}]', b"x"],
    "nothing to attach to": ["451-", b"x"],
    "one attachment too many": ['451-["message:send",{"_placeholder":true,"num":0}]', b"x", b"y"],
    "one attachment too few": ['452-["message:send",{"_placeholder":true,"num":0}]', b"x", '42["nothing"]'],
    "no attachment at all": ['450-["message:send",{}]'],
    "another while one waits": ['451-["message:send",{}]', '451-["message:send",{}]', b"x"],
    "an acknowledgement": ['461-1[{"_placeholder":true,"num":5}]', b"x"],
    "an acknowledgement of what nobody sent": ["431[{}]"],
    "attachments of nothing": [b"", b"x"],
    "another namespace": ['451-/admin,["message:send",{}]', b"x"],
}


@pytest.mark.parametrize("sent", ATTACHED.values(), ids=ATTACHED)
async def test_attachments_are_refused_in_whatever_way_and_the_socket_goes_on(cluster, sent):
    async with wire(cluster[0], connect(somebody())[2:]) as by_hand:
        await by_hand.read_until("40")
        for packet in [*sent, '4298["presence:ping",{}]', '4299["presence:ping",{}]']:
            await (by_hand.socket.send_bytes if isinstance(packet, bytes) else by_hand.write)(packet)
        told = []
        while not (packet := await by_hand.read_until("4")).startswith("4399"):
            told.append(packet)
        assert {json.loads(one[2:])[1]["code"] for one in told if one.startswith("42")} == {"VALIDATION_ERROR"}
        assert told[-1] == '4398[{"ok":true}]'


async def test_attachments_are_counted_and_not_kept_over_polling_as_well(cluster, http):
    url = await open_polling(http, cluster[0], somebody())
    attached = SEPARATOR.join(['451-7["message:send",{"_placeholder":true,"num":0}]', "bAAAA"])
    assert await post(http, url, attached) == 200
    async with http.get(url) as polled:
        packets = (await polled.text()).split(SEPARATOR)
    assert [packet[:4] for packet in packets] == ['42["', "437["]


@pytest.mark.parametrize(
    "first", ['42["presence:ping"]', "41", '451-["x"]', "4x", "5", "6", "b====", "4" + "x" * 10_000]
)
async def test_before_it_asks_for_a_socket_one_that_polls_may_say_nothing_else(cluster, http, first):
    url = await open_polling(http, cluster[0])
    await post(http, url, SEPARATOR.join([first] * 5))

    async def is_gone():
        return await post(http, url, connect(somebody())) == 400

    await until(is_gone, "the end of the session")


async def test_what_is_far_too_large_is_told_so_before_the_connection_ends(cluster):
    async with raw_socket(cluster[0].ws_port) as by_hand:
        await by_hand.send([frame(TEXT, connect(somebody()).encode())])
        assert (await by_hand.read())[1].startswith(b"40")
        await by_hand.send([frame(TEXT, b"4" + b"x" * (3 * MIB))])
        assert await by_hand.rest() == [(CLOSE, (1009).to_bytes(2, "big"))]


async def test_what_was_read_of_a_client_that_vanishes_in_a_burst_is_stored(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    async with raw_socket(cluster[0].ws_port) as by_hand:
        await by_hand.send([frame(TEXT, connect(anna.user_id).encode())])
        assert (await by_hand.read())[1].startswith(b"40")
        said = b"".join(frame(TEXT, send(room, number, "x").encode()) for number in range(400))
        # One segment of the loopback, which is read in one piece, and more than is taken at once.
        assert len(said) < 60_000
        by_hand.writer.write(said)
        while not (await by_hand.read())[1].startswith(b"430["):
            continue
        by_hand.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        by_hand.writer.transport.abort()

    async def is_stored():
        return (await ben.get(f"/api/conversations/{room}")).json["lastSeq"] == 400

    await until(is_stored, "all that was read", 20)


async def test_of_sockets_that_come_at_once_no_more_stay_than_a_user_may_have(servers, http, tmp_path):
    async with pods(servers.environment(MAX_SOCKETS_PER_USER="5"), tmp_path, 1) as (pod,):
        anna, ben = somebody("anna"), somebody("ben")
        reader = Rest(http, pod.http, ben, token(ben))
        # Conversations make connecting take a while.
        await asyncio.gather(*(reader.group(anna) for _ in range(20)))

        async def come():
            async with wire(pod, connect(anna)[2:]) as by_hand:
                while (packet := await by_hand.read()) is not None:
                    if packet.startswith("41"):
                        break

        coming = [asyncio.ensure_future(come()) for _ in range(25)]

        async def are_few():
            return sum(not one.done() for one in coming) == 5

        await until(are_few, "five are left", 20)
        # They stay.
        done, _ = await asyncio.wait(coming, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 20
        for one in coming:
            one.cancel()
        await asyncio.gather(*coming, return_exceptions=True)


async def test_a_socket_whose_token_has_expired_is_not_heard_any_more(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    auth = json.dumps({"token": token(anna.user_id, exp=int(time.time()) + 2)})
    async with wire(cluster[0], auth) as by_hand:
        await by_hand.read_until("41")
        await by_hand.write(send(room, 1, "too late"))
        await ben.say(room, "not for this one")
        told = [packet async for packet in _rest_of(by_hand)]
    assert not [packet for packet in told if re.match("4[23]", packet)]
    assert (await ben.get(f"/api/conversations/{room}")).json["lastSeq"] == 1


async def _rest_of(by_hand):
    while (packet := await by_hand.read()) is not None:
        yield packet
