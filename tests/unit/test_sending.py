"""What a socket says and is not stored in time: it is taken back, and acknowledged once."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from pods import environment, until

from app.config.settings import Settings
from app.contract import ids
from app.contract.schemas import SocketSendMessage
from app.identity.actor import Actor
from app.messages.writer import Stored
from app.realtime.engineio.inbox import Inbox
from app.realtime.socketio import sending
from app.realtime.socketio.packets import acknowledgement
from app.realtime.socketio.sending import Sending
from app.runtime.supervisor import supervised


class Speaker:
    """A socket that keeps its acknowledgements and what was said to have failed."""

    def __init__(self):
        self.actor = Actor("anna", can_read=True, can_write=True, expires_at=0, issued_at=1.0)
        self.typing = SimpleNamespace(stop=lambda _: None)
        self.last_sent_to = None
        self.acknowledged, self.failed = [], []
        self.inbox = Inbox(lambda frame: self.acknowledged.append(frame.packet), acknowledgement)

    def succeed(self, event):
        pass

    def fail(self, _, error):
        self.failed.append(type(error).__name__)
        return b"{}"


@pytest.fixture
async def say(monkeypatch):
    """Say something that is late at once; gives what waits in the queue, and who said it."""
    monkeypatch.setattr(sending, "DEADLINE", 0.0)
    monkeypatch.setattr(sending, "CHECK_INTERVAL", 0.01)
    waiting, announced = [], []
    deps = SimpleNamespace(
        settings=Settings.read(environment("postgresql://127.0.0.1/chat", "redis://127.0.0.1")),
        send_queue=SimpleNamespace(submit=waiting.append),
        database=SimpleNamespace(is_away=False),
        limits=SimpleNamespace(check_soon=lambda *given: given[-1](None)),
        fanout=SimpleNamespace(announce=lambda change, _: announced.append(change.seq)),
        outbox=SimpleNamespace(wake=lambda: None),
    )
    async with supervised() as supervisor:
        found = Sending(deps, supervisor)
        speaker = Speaker()
        room = ids.to_wire(ids.CONVERSATION, ids.new_id())
        assert found.send_now(speaker, "1", SocketSendMessage(conversation_id=room, content="hello"))

        async def is_late():
            return bool(speaker.failed)

        await until(is_late, "that it is late")
        yield SimpleNamespace(speaker=speaker, waiting=waiting, announced=announced)


async def test_what_is_late_is_taken_back_and_its_sender_told_once(say):
    assert [sent.is_abandoned for sent in say.waiting] == [True]
    assert say.speaker.failed == ["ServiceUnavailable"]
    assert say.speaker.acknowledged == [b"31[{}]"]


async def test_what_is_late_and_stored_all_the_same_is_announced_and_not_acknowledged_again(say):
    say.waiting[0].answer(Stored(7, datetime.now(UTC), is_revealing=False), None)
    assert say.announced == [7]
    assert say.speaker.acknowledged == [b"31[{}]"]
