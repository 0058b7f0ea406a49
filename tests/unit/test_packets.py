import msgspec
import pytest

from app.events import Event
from app.realtime.packets import (
    ClientEvent,
    MalformedEvent,
    TooLargeEvent,
    event_frame,
    packet_class,
    read_connect,
    read_send,
)

LIMIT = 200
Packet = packet_class(LIMIT)


def read(text):
    return Packet(encoded_packet=text)


def test_an_event_is_one_text():
    assert (
        event_frame(Event("message:new", b'{"content":"\xc3\xa9"}')).packet.decode()
        == '2["message:new",{"content":"é"}]'
    )


def test_arguments_stay_as_they_were_sent():
    packet = read('217["message:send",{"content":"x",  "n":1}]')
    name, payload = packet.data
    assert packet.id == 17
    assert isinstance(name, ClientEvent)
    assert name == "message:send"
    assert bytes(payload) == b'{"content":"x",  "n":1}'


@pytest.mark.parametrize("text", ["2[", "2[}", "2[5]", "2[]", "2[null,{}]", "2" + "[" * 150, '2["a', "2 []"])
def test_what_is_no_event_is_told_apart(text):
    (name,) = read(text).data
    assert isinstance(name, MalformedEvent)


@pytest.mark.parametrize(
    ("text", "payload"),
    [('2["a",{"content":"\\ud800"}]', b'{"content":"\\ud800"}'), ('2["a",{"content":]', b'{"content":')],
)
def test_a_broken_payload_keeps_its_name_and_is_told_by_whoever_reads_it(text, payload):
    name, broken = read(text).data
    assert (name, bytes(broken)) == ("a", payload)


@pytest.mark.parametrize("text", ['2["a","' + "x" * LIMIT + '"]', '2["a","' + "é" * 100 + '"]'])
def test_what_is_too_large_is_not_read(text):
    (name,) = read(text).data
    assert isinstance(name, TooLargeEvent)
    assert name == "a"


def test_attachments_are_few_and_small():
    with pytest.raises(ValueError, match="too many"):
        read('517-["a",{}]')
    packet = read('52-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
    assert packet.add_attachment(b"x" * 150) is False
    assert packet.add_attachment(b"x" * 100) is True
    (name,) = packet.data
    assert isinstance(name, TooLargeEvent)
    assert name == "a"


def test_what_connect_carries_is_read_or_nothing():
    assert read('0{"token":"t"}').data == {"token": "t"}
    for text in ('0{"token":', '0"token"', "05"):
        assert read(text).data is None


def test_acknowledgements_are_written():
    packet = Packet(packet_type=3, data=[{"ok": True, "message": msgspec.Raw(b'{"a":1}')}], namespace="/", id=4)
    assert packet.encode() == '34[{"ok":true,"message":{"a":1}}]'


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


@pytest.mark.parametrize(
    ("packet", "auth"),
    [
        ('0{"token":"x","more":[1]}', {"token": "x", "more": [1]}),
        ("0{}", {}),
        ('0{"token"', None),
        ('0{"token":"\\ud800"}', None),
        ('0 {"token":"x"}', None),
        ('0/admin,{"token":"x"}', None),
        ("0", None),
        ('2["message:send",{}]', None),
        (b'0{"token":"x"}', None),
    ],
)
def test_a_plain_connect_is_read_and_all_else_is_left_to_who_reads_with_more_care(packet, auth):
    assert read_connect(packet) == auth
