"""What a client may send over Socket.IO, and all that it may not."""

import pytest

from app.contract.events import Event
from app.realtime.socketio.packets import (
    Attachments,
    BinaryEvent,
    ClientEvent,
    ClippedPacket,
    Connect,
    Disconnect,
    MalformedEvent,
    PacketError,
    TooLargeEvent,
    clip,
    event_frame,
    read_event,
    read_packet,
    read_send,
    refusal_frame,
)

LIMIT = 200


def read(text):
    return read_packet(text, LIMIT)


def test_an_event_is_one_text():
    assert (
        event_frame(Event("message:new", b'{"content":"\xc3\xa9"}')).packet.decode()
        == '2["message:new",{"content":"é"}]'
    )


@pytest.mark.parametrize("reader", [read_event, read_packet])
def test_arguments_stay_as_they_were_sent(reader):
    number, name, (payload,) = reader('217["message:send",{"content":"x",  "n":1}]', 1000)
    assert number == "17"
    assert isinstance(name, ClientEvent)
    assert name == "message:send"
    assert bytes(payload) == b'{"content":"x",  "n":1}'


@pytest.mark.parametrize(
    "text", ["2", "2[", "2[}", "2[5]", "2[]", "2[null,{}]", "2" + "[" * 150, '2["a', '2{"a":1}']
)
def test_what_is_no_event_is_told_apart(text):
    assert isinstance(read(text).name, MalformedEvent)


@pytest.mark.parametrize(
    ("text", "payload"),
    [('2["a",{"content":"\\ud800"}]', b'{"content":"\\ud800"}'), ('2["a",{"content":]', b'{"content":')],
)
def test_a_broken_payload_keeps_its_name_and_is_told_by_whoever_reads_it(text, payload):
    _, name, (broken,) = read(text)
    assert (name, bytes(broken)) == ("a", payload)


@pytest.mark.parametrize(
    "text",
    [
        '27["a","' + "x" * LIMIT + '"]',
        '27["a","' + "é" * 100 + '"]',
        clip('27["a","' + "x" * LIMIT, LIMIT),
        '517-7["a","' + "x" * LIMIT + '"]',
    ],
)
def test_what_is_too_large_is_not_read_and_keeps_its_name_and_number(text):
    number, name, arguments = read(text)
    assert isinstance(name, TooLargeEvent)
    assert (number, name, arguments) == ("7", "a", [])


def test_of_what_is_too_large_little_waits_for_its_turn():
    assert isinstance(clip("x" * (1 << 20), LIMIT), ClippedPacket)
    assert len(clip("x" * (1 << 20), LIMIT)) < 1000
    assert clip("x" * LIMIT, LIMIT) == "x" * LIMIT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "7",
        '9["a"]',
        '²["a"]',
        "2" + "9" * 101 + '["a"]',
        "2" + "9" * 1_000_000,
        '3["a"]',
        '31["a"]',
        '4{"message":"a"}',
        "5" + "9" * 11 + '-["a"]',
        '61-["a",{"_placeholder":true,"num":0}]',
        '21-["a"]',
        '2/admin,["a"]',
        "0/" + "a" * 1000,
    ],
)
def test_what_no_client_may_send_is_no_packet(text):
    with pytest.raises(PacketError):
        read(text)


def test_attachments_are_counted_and_not_kept():
    event = read('52-7["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
    assert isinstance(event, Attachments)
    assert not hasattr(event, "__dict__")
    assert event.add(b"x" * 150) is False
    assert isinstance(event.name, BinaryEvent)
    assert event.add(b"x" * 100) is True
    assert isinstance(event.name, TooLargeEvent)
    assert (event.name, event.number) == ("a", "7")


@pytest.mark.parametrize("count", [0, 17, 9_999_999_999])
def test_attachments_are_some_and_few(count):
    number, name, _ = read(f'5{count}-7["a",{{}}]')
    assert isinstance(name, BinaryEvent)
    assert (number, name) == ("7", "a")


@pytest.mark.parametrize(
    "placeholder", ["5", "-1", '"0"', "null", "1e400", "[0]", '{"_placeholder":true,"num":0}']
)
def test_placeholders_are_looked_at_by_nobody(placeholder):
    event = read(f'51-7["a",{{"_placeholder":true,"num":{placeholder}}}]')
    assert event.add(b"attached") is True
    assert isinstance(event.name, BinaryEvent)


@pytest.mark.parametrize(
    ("text", "namespace", "auth"),
    [
        ('0{"token":"t"}', "/", {"token": "t"}),
        ("0", "/", None),
        ('0{"token":', "/", None),
        ('0"token"', "/", None),
        ("05", "/", None),
        ('0/admin,{"token":"t"}', "/admin", {"token": "t"}),
        ("0/admin?a=b,", "/admin", None),
        ("0/admin", "/admin", None),
    ],
)
def test_what_connect_carries_is_read_or_nothing(text, namespace, auth):
    assert read(text) == Connect(namespace, auth)


def test_a_namespace_is_left_by_its_name():
    assert read("1") == Disconnect("/")
    assert read("1/admin,") == Disconnect("/admin")
    assert refusal_frame("no", "/admin").packet == b'4/admin,{"message":"no"}'
    assert refusal_frame("no").packet == b'4{"message":"no"}'


@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        ('21["message:send",{"conversationId":"c","content":"Hi"}]', ("1", "c", "Hi")),
        ('2["message:send",{"content":"}]","conversationId":"c"}]', ("", "c", "}]")),
        ('21["message:send",{"conversationId":"c","content":"Hi"}]garbage', None),
        ('21["message:send",{"conversationId":"c","content":"Hi"}]]', None),
        ('21["message:send",{"conversationId":"c","content":"Hi"}]\n', None),
        ('21["message:send",{"conversationId":"c","content":"Hi"},{}]', None),
        ('21["message:send",{"conversationId":"c"}]', None),
        ('21["message:send", {"conversationId":"c","content":"Hi"}]', None),
        ('21["message:edit",{"messageId":"m","content":"Hi"}]', None),
        ("0{}", None),
    ],
)
def test_a_plain_message_is_read_and_all_else_is_left_to_who_reads_with_more_care(packet, wanted):
    found = read_send(packet, 10_000)
    assert (None if found is None else (found[0], found[1].conversation_id, found[1].content)) == wanted
