from uuid import uuid4

from app.delivery.rooms import Rooms
from app.realtime.socketio.packets import event_frame


def test_a_room_is_forgotten_once_nobody_was_in_it_from_one_look_to_the_next():
    rooms = Rooms(event_frame)
    conversation_id = uuid4()

    def come_and_go():
        pinned = rooms.pin([conversation_id])
        assert rooms.drop_empty() == []
        rooms.unpin(pinned)

    come_and_go()
    assert rooms.drop_empty() == []
    come_and_go()
    assert rooms.drop_empty() == []
    assert [room.conversation_id for room in rooms.drop_empty()] == [conversation_id]
    assert rooms.rooms == {}
