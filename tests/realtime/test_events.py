import asyncio
import json

import pytest
from clients import Rest, ear, somebody, token, wire
from malformed import CASES
from pods import pods

NOT_UTF8 = {"broken UTF-8", "an encoded surrogate"}
SOCKET_CASES = [case for case in CASES if case[0] not in NOT_UTF8]


def auth(user_id, **claims):
    return json.dumps({"token": token(user_id, **claims)})


async def test_a_message_goes_to_all_sockets_of_all_participants_on_all_pods(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    async with (
        ear(cluster[0], anna.user_id) as phone,
        ear(cluster[1], anna.user_id) as laptop,
        ear(cluster[0], ben.user_id) as near,
        ear(cluster[1], ben.user_id, transports=["polling"]) as far,
        ear(cluster[1], somebody("stranger")) as stranger,
    ):
        answer = await phone.call("message:send", {"conversationId": room, "content": "hello"})
        assert answer["ok"] is True
        for listener in (phone, laptop, near, far):
            assert await listener.wait_for("message:new") == [answer["message"]]
        assert (await anna.get(f"/api/conversations/{room}/messages")).json["items"] == [answer["message"]]
        assert stranger.heard == []


async def test_a_message_over_rest_is_an_event_too(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    async with ear(cluster[1], ben.user_id) as far:
        sent = await anna.say(room, "over REST")
        assert await far.wait_for("message:new") == [sent]


async def test_a_new_conversation_is_announced_to_its_people_and_needs_no_joining(user, cluster):
    anna, ben = user("anna"), user("ben", cluster[1])
    async with ear(cluster[0], anna.user_id) as near, ear(cluster[1], ben.user_id) as far:
        room = await anna.group(ben.user_id, title="Trip")
        await anna.say(room, "first")
        for listener in (near, far):
            await listener.wait_for("message:new")
            assert [heard.event for heard in listener.heard] == ["conversation:new", "message:new"]
            told = listener.heard[0].data
            assert (told["id"], told["title"], told["lastSeq"]) == (room, "Trip", 0)
            assert "unreadCount" not in told


async def test_messages_that_follow_a_new_conversation_at_once_are_not_lost(user, cluster):
    anna, ben = user("anna"), user("ben", cluster[1])
    async with ear(cluster[1], ben.user_id) as far:
        for _ in range(10):
            room = await anna.group(ben.user_id)
            sent = await asyncio.gather(*(anna.say(room, f"{n}") for n in range(5)))
            assert len(sent) == 5
        await far.wait_for("message:new", 50)
    by_room = {}
    for message in far.of("message:new"):
        by_room.setdefault(message["conversationId"], []).append(message["seq"])
    assert list(by_room.values()) == [[1, 2, 3, 4, 5]] * 10


async def test_sends_of_one_socket_are_stored_and_acknowledged_in_their_order(user, cluster):
    anna = user("anna")
    room = await anna.direct(somebody("ben"))
    async with wire(cluster[0], auth(anna.user_id)) as by_hand:
        await by_hand.read_until("40")
        for n in range(50):
            payload = json.dumps({"conversationId": room, "content": f"{n}"})
            await by_hand.write(f'42{n}["message:send",{payload}]')
        acknowledged = []
        while len(acknowledged) < 50:
            packet = await by_hand.read_until("43")
            number, _, rest = packet[2:].partition("[")
            answer = json.loads("[" + rest)[0]
            acknowledged.append((int(number), answer["message"]["content"], answer["message"]["seq"]))
    assert acknowledged == [(n, f"{n}", n + 1) for n in range(50)]


@pytest.mark.parametrize("limit", ["0", "1000/s,1000"])
async def test_what_one_socket_says_in_two_places_keeps_its_order_whether_it_is_counted_or_not(
    servers, http, tmp_path, limit
):
    async with pods(servers.environment(RATE_LIMIT_SEND=limit), tmp_path, 1) as (pod,):
        user_id = somebody()
        anna = Rest(http, pod.http, user_id, token(user_id))
        rooms = [await anna.group() for _ in range(2)]
        async with wire(pod, auth(user_id)) as by_hand:
            await by_hand.read_until("40")
            said = []
            for n in range(60):
                # Three here, three there; every tenth is what was said just before, once more.
                fresh = {"conversationId": rooms[n // 3 % 2], "content": f"{n}", "clientMessageId": f"{n}"}
                said.append(said[-1] if n % 10 == 9 else fresh)
                await by_hand.write(f'42{n}["message:send",{json.dumps(said[-1])}]')
            answers = []
            for n in range(60):
                number, _, rest = (await by_hand.read_until("43"))[2:].partition("[")
                assert int(number) == n
                answers.append(json.loads("[" + rest)[0]["message"])
    assert [answer["content"] for answer in answers] == [payload["content"] for payload in said]
    for room in rooms:
        seqs = {answer["content"]: answer["seq"] for answer in answers if answer["conversationId"] == room}
        assert list(seqs.values()) == list(range(1, len(seqs) + 1))


@pytest.mark.parametrize(
    ("body", "field"), [case[1:] for case in SOCKET_CASES], ids=[case[0] for case in SOCKET_CASES]
)
async def test_what_is_malformed_is_refused_and_the_socket_goes_on(user, cluster, body, field):
    anna = user("anna")
    room = await anna.direct(somebody("ben"))
    text = body.decode()
    if text.startswith("{"):
        text = f'{{"conversationId":"{room}",' + text[1:] if text != "{}" else f'{{"conversationId":"{room}"}}'
    async with wire(cluster[0], auth(anna.user_id)) as by_hand:
        await by_hand.read_until("40")
        await by_hand.write(f'421["message:send",{text}]')
        event = json.loads((await by_hand.read_until("42"))[2:])
        assert event[0] == "error"
        assert event[1]["code"] == "VALIDATION_ERROR"
        assert event[1]["event"] == "message:send"
        assert event[1]["details"] == {"field": field}
        await by_hand.write(f'422["message:send",{json.dumps({"conversationId": room, "content": "fine"})}]')
        answer = json.loads((await by_hand.read_until("432"))[3:])[0]
        assert answer["ok"] is True
        assert answer["message"]["seq"] == 1


@pytest.mark.parametrize(
    ("event", "payload", "code"),
    [
        ("message:send", {"content": "x"}, "VALIDATION_ERROR"),
        ("message:send", {"conversationId": "conv_" + "0" * 32, "content": "x"}, "NOT_FOUND"),
        ("message:send", {"conversationId": "nonsense", "content": "x"}, "NOT_FOUND"),
        ("message:send", {"conversationId": 5, "content": "x"}, "VALIDATION_ERROR"),
        ("message:send", b"binary", "VALIDATION_ERROR"),
        ("message:send", {"conversationId": "conv_" + "0" * 32, "content": b"binary"}, "VALIDATION_ERROR"),
        ("message:shout", {}, "VALIDATION_ERROR"),
        ("connect", {}, "VALIDATION_ERROR"),
        ("disconnect", {}, "VALIDATION_ERROR"),
        ("", {}, "VALIDATION_ERROR"),
        ("x" * 1000, {}, "VALIDATION_ERROR"),
    ],
)
async def test_a_failed_event_is_acknowledged_and_told_on_that_socket_alone(user, cluster, event, payload, code):
    anna = user("anna")
    async with ear(cluster[0], anna.user_id) as socket, ear(cluster[0], anna.user_id) as other:
        answer = await socket.call(event, payload)
        assert answer["ok"] is False
        assert answer["error"]["code"] == code
        (told,) = await socket.wait_for("error")
        assert told == {**answer["error"], "event": event}
        assert other.heard == []
        room = await anna.direct(somebody("ben"))
        assert (await socket.call("message:send", {"conversationId": room, "content": "x"}))["ok"] is True


@pytest.mark.parametrize(
    "sent",
    [
        ["42"],
        ['42{"a":1}'],
        ['42"disconnect"'],
        ['42 ["nope",{}]'],
        ['44{"message":"x"}'],
        ['49["x"]'],
        ["42" + "9" * 101 + '["x"]'],
        ['4517-["x"]'],
        [b"stray"],
        ['451-["x",{"_placeholder":true,"num":5}]', b"attached"],
        ['461-7["x"]', '42["nope"]'],
        ["40{}"],
    ],
)
async def test_what_is_no_event_of_socket_io_is_refused_and_the_socket_goes_on(cluster, sent):
    async with wire(cluster[0], auth(somebody())) as by_hand:
        await by_hand.read_until("40")
        for packet in sent:
            await (by_hand.socket.send_bytes if isinstance(packet, bytes) else by_hand.write)(packet)
        event, told = json.loads((await by_hand.read_until("42"))[2:])
        assert (event, told["code"]) == ("error", "VALIDATION_ERROR")
        await by_hand.write('4299["presence:ping",{}]')
        assert await by_hand.read_until("43") == '4399[{"ok":true}]'


async def test_bytes_of_more_than_256_kib_are_told_and_the_socket_goes_on(cluster):
    async with ear(cluster[0], somebody()) as socket:
        answer = await socket.call("message:send", b"x" * 300_000)
        assert (answer["ok"], answer["error"]["code"]) == (False, "PAYLOAD_TOO_LARGE")
        assert [told["code"] for told in socket.of("error")] == ["PAYLOAD_TOO_LARGE"]
        assert await socket.call("presence:ping", {}) == {"ok": True}


async def test_strangers_and_readers_may_not_send(user, cluster):
    anna = user("anna")
    room = await anna.direct(somebody("ben"))
    payload = {"conversationId": room, "content": "x"}
    async with ear(cluster[0], somebody("stranger")) as stranger:
        assert (await stranger.call("message:send", payload))["error"]["code"] == "FORBIDDEN"
    reader = {"token": token(anna.user_id, permissions=["chat:read"])}
    async with ear(cluster[0], anna.user_id, auth=reader) as socket:
        assert (await socket.call("message:send", payload))["error"]["code"] == "FORBIDDEN"


async def test_a_repeated_send_is_the_first_one_and_announces_nothing(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    payload = {"conversationId": room, "content": "once", "clientMessageId": "k"}
    async with ear(cluster[0], anna.user_id) as near, ear(cluster[1], ben.user_id) as far:
        first = await near.call("message:send", payload)
        again = await near.call("message:send", payload)
        over_rest = await anna.post(
            f"/api/conversations/{room}/messages", {"content": "once", "clientMessageId": "k"}
        )
        assert first == again
        assert (over_rest.status, over_rest.json) == (200, first["message"])
        other = await near.call("message:send", {**payload, "content": "twice"})
        assert other["error"]["code"] == "CONFLICT"
        last = await near.call("message:send", {"conversationId": room, "content": "last"})
        await far.wait_for("message:new", 2)
        assert far.of("message:new") == [first["message"], last["message"]]


async def test_a_packet_over_256_kib_is_told_and_the_socket_goes_on(user, cluster):
    anna = user("anna")
    room = await anna.direct(somebody("ben"))
    async with ear(cluster[0], anna.user_id) as socket:
        await socket.client.emit("message:send", {"conversationId": room, "content": "x" * 300_000})
        (told,) = await socket.wait_for("error")
        assert told["code"] == "PAYLOAD_TOO_LARGE"
        assert (await socket.call("message:send", {"conversationId": room, "content": "x"}))["ok"] is True


async def test_a_packet_over_1_mib_ends_the_connection(cluster):
    async with wire(cluster[0], auth(somebody())) as by_hand:
        await by_hand.read_until("40")
        await by_hand.write('42["message:send","' + "x" * 1_100_000 + '"]')
        assert await by_hand.read() is None
