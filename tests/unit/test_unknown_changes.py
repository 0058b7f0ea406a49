"""What a newer release logged is passed on under its own name, and its seq is not missing."""

from uuid import UUID

import pytest

from app.messages import event_log

ROOM, MESSAGE = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize("message_id", [None, MESSAGE], ids=["of a conversation", "of a message"])
def test_an_unknown_logged_event_is_passed_on_as_itself(message_id):
    row = {
        "conversation_id": ROOM,
        "seq": 7,
        "event": "poll:opened",
        "message_id": message_id,
        "data": '{"question":"when?"}',
    }
    change = event_log.change_of(row)
    assert (change.conversation_id, change.seq, change.event.name) == (ROOM, 7, "poll:opened")
    assert b'"question":"when?"' in change.event.data
    assert (MESSAGE.hex.encode() in change.event.data) == (message_id is not None)
