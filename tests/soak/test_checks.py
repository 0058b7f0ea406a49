"""A checker that cannot fail is worthless: each is fed what breaks its promise, and must complain."""

from dataclasses import replace

import pytest

from soak import checks
from soak.checks import Stored
from soak.fleeting import Fleeting
from soak.journal import HARNESS, Send, Window
from soak.master import Attempt
from soak.model import Room, difference
from soak.punctual import Reached, is_excused
from soak.stream import Stream

ROOM, ME = "conv_1", "user-1"


def sent(number, **more):
    fields = {"emissions": 1, "message_id": f"msg_{number}", "seq": number, **more}
    return Send(ROOM, ME, f"{ME} says {number}", f"id-{number}", **fields)


def stored(number, **more):
    return replace(Stored(f"msg_{number}", ROOM, number, ME, f"id-{number}", f"{ME} says {number}"), **more)


def attempt(number, **more):
    subject = ("message.created", f"msg_{number}")
    whole = Attempt(f"wh_{number}", "message.created", subject, ROOM, number, float(number), True, number + 0.1)
    return replace(whole, **more)


def presence(event, transition, **more):
    subject = (event, ME, transition)
    return replace(Attempt(f"wh_{transition}", event, subject, None, transition, 1.0, True, 1.1), **more)


def promises(found):
    return {promise for promise, _ in found}


@pytest.mark.parametrize(
    ("sends", "rows", "promise"),
    [
        ([sent(1)], [], "what is acknowledged is stored"),
        ([sent(1)], [stored(1), stored(2, origin=f"{ME} says 1")], "nothing is stored twice"),
        ([sent(1)], [stored(1), stored(2, origin=None, client_message_id="id-1")], "nothing is stored twice"),
        ([sent(1)], [stored(1, seq=2)], "what is acknowledged is stored as it was acknowledged"),
        ([sent(1)], [stored(1, origin="other")], "what is acknowledged is stored as it was acknowledged"),
        ([sent(1)], [stored(1), stored(2)], "nothing is stored that was not sent"),
    ],
)
def test_a_send_that_is_lost_doubled_or_changed_is_complained_of(sends, rows, promise):
    assert promise in promises(checks.check_sends(sends, rows))


def test_sends_that_are_stored_once_or_have_no_known_outcome_are_right():
    sends = [sent(1), sent(2, seq=None, message_id=None), sent(3, seq=None, message_id=None), sent(4)]
    assert not list(checks.check_sends(sends, [stored(1), stored(3), stored(4, origin=None)]))


@pytest.mark.parametrize(
    "sends",
    [
        [sent(2), sent(1)],
        [sent(2), sent(1, seq=None)],
        [sent(2, seq=None), sent(1)],
    ],
)
def test_sends_that_are_stored_in_another_order_are_complained_of(sends):
    found = checks.check_order({("a", ROOM): sends}, {}, [stored(1), stored(2)])
    assert promises(found) == {"sends of one socket are stored in the order in which they were sent"}


def test_a_send_that_went_out_again_has_no_place_in_the_order():
    sends = [sent(2), sent(1, emissions=2), sent(3)]
    assert not list(checks.check_order({("a", ROOM): sends}, {}, [stored(1), stored(2), stored(3)]))


def test_acknowledgements_in_another_order_are_complained_of():
    sends = [sent(1), sent(2)]
    found = checks.check_order({("a", ROOM): sends}, {("a", ROOM): sends[::-1]}, [stored(1), stored(2)])
    assert promises(found) == {"sends of one socket are acknowledged in the order in which they were sent"}


@pytest.mark.parametrize(
    ("last_seq", "last_message", "seqs"),
    [
        (3, 3, [(1, True), (3, True)]),
        (2, 2, [(1, True), (2, True), (2, False)]),
        (1, 1, [(1, True), (2, False)]),
        (3, 2, [(1, True), (2, True)]),
        (2, 1, [(1, True), (2, True)]),
        (2, 2, [(1, True), (2, False)]),
    ],
)
def test_a_wrong_head_or_log_is_complained_of(last_seq, last_message, seqs):
    assert list(checks.check_seqs(ROOM, last_seq, last_message, seqs))


def test_a_gapless_log_is_right():
    assert not list(checks.check_seqs(ROOM, 3, 2, [(2, True), (1, True), (3, False)]))
    assert not list(checks.check_seqs(ROOM, 0, 0, []))


ONE = {("message.created", "msg_1")}


@pytest.mark.parametrize(
    ("attempts", "promise"),
    [
        ([], "what is committed is told to the master"),
        ([attempt(1), attempt(2)], "the master is told nothing that was not committed"),
        ([attempt(1, is_signed=False)], "webhooks are signed"),
        ([attempt(1), attempt(1, id="wh_2")], "an event has one webhook-id"),
        ([attempt(1), attempt(2, id="wh_1")], "a webhook-id is one event's"),
    ],
)
def test_a_webhook_that_is_missing_or_wrong_is_complained_of(attempts, promise):
    assert promise in promises(checks.check_webhooks(attempts, ONE))


def test_a_webhook_that_is_repeated_under_its_id_is_right():
    assert not list(checks.check_webhooks([attempt(1), attempt(1, at=9.0)], ONE))


def test_first_attempts_out_of_order_are_complained_of():
    found = checks.check_webhook_order([attempt(2, at=1.0, answered_at=1.1), attempt(1, at=2.0)], [])
    assert promises(found) == {"first attempts start in the order of seq"}


def test_first_attempts_out_of_order_are_excused_only_where_a_worker_was_killed():
    attempts = [attempt(2, at=1.0, answered_at=1.1), attempt(1, at=2.0)]
    assert not list(checks.check_webhook_order(attempts, [Window("SIGKILL", "worker-1", 0.0, 1.0)]))
    assert list(checks.check_webhook_order(attempts, [Window("SIGKILL", "pod-1", 0.0, 1.0)]))
    assert list(checks.check_webhook_order(attempts, [Window("SIGKILL", "worker-1", 3.0, 4.0)]))


@pytest.mark.parametrize(
    "attempts",
    [
        [attempt(2, at=1.0, answered_at=1.1), attempt(1, at=1.1)],
        [attempt(1, at=1.0, answered_at=1.5), attempt(2, at=1.2)],
    ],
)
def test_first_attempts_that_are_noted_after_a_standstill_of_the_soak_itself_are_excused(attempts):
    assert not list(checks.check_webhook_order(attempts, [Window("stood still", HARNESS, 0.1, 0.9)]))
    assert list(checks.check_webhook_order(attempts, [Window("stood still", HARNESS, 9.0, 9.5)]))
    assert list(checks.check_webhook_order(attempts, [Window("stood still", HARNESS, -5.0, -4.0)]))


def test_a_first_attempt_before_the_one_before_is_answered_is_complained_of():
    attempts = [attempt(1, at=1.0, answered_at=1.5), attempt(2, at=1.2)]
    assert promises(checks.check_webhook_order(attempts, [])) == {
        "a first attempt starts after the one before was answered"
    }
    assert not list(checks.check_webhook_order([replace(attempts[0], answered_at=9.0), attempt(2, at=4.1)], []))


def test_presence_webhooks_that_go_back_or_end_wrongly_are_complained_of():
    came, went, again = presence("user.online", 1), presence("user.offline", 2), presence("user.online", 3)
    grow, last = "the transitions of a user grow", "the last webhook says who is online"
    assert promises(checks.check_presence_webhooks([went, came], [], [ME])) == {grow}
    assert promises(checks.check_presence_webhooks([came, replace(came, id="wh_9")], [ME], [ME])) == {grow}
    assert promises(checks.check_presence_webhooks([came, went], [ME], [ME])) == {last}
    assert promises(checks.check_presence_webhooks([came, went, again], [], [ME])) == {last}
    assert promises(checks.check_presence_webhooks([], [ME], [ME])) == {last}
    assert not list(checks.check_presence_webhooks([came, came, went], [], [ME]))


def test_an_error_and_a_traceback_in_a_log_are_complained_of():
    lines = ['{"level":"INFO"}', '{"level":"ERROR","message":"no"}', "Traceback (most recent call last):"]
    assert [details["text"] for _, details in checks.check_log("pod-0", [*lines, lines[1]])] == lines[1:]


def test_memory_that_grows_is_complained_of():
    steady = [100 << 20] * 9
    assert not list(checks.check_memory("pod-0", steady))
    assert list(checks.check_memory("pod-0", [*steady, (100 << 20) + checks.MEMORY_BOUND + 1]))


def test_what_is_known_to_be_reached_at_a_time_is_the_last_before_it():
    reached = Reached()
    for at, seq in ((1.0, 4), (2.0, 5), (2.5, 5), (9.0, 7)):
        reached.note(ROOM, seq, at)
    assert [reached.by(ROOM, at) for at in (0.5, 1.0, 3.0, 9.5)] == [0, 4, 5, 7]


def test_lateness_is_excused_by_postgresql_by_the_clients_own_pod_and_by_the_soak_itself_alone():
    def excused(target, end=20.0):
        return is_excused("pod-1", 10.0, [Window("stall", target, 1.0, end)])

    assert excused("pod-1")
    assert excused("pod-1 to PostgreSQL")
    assert excused("PostgreSQL")
    assert excused(HARNESS)
    assert not excused("PostgreSQL", end=9.0)
    assert not any(map(excused, ["Redis", "pod-1 to Redis", "pod-2", "pod-2 to PostgreSQL", "worker-1"]))


def change(seq, event="message:new", **more):
    return event, {"conversationId": ROOM, "seq": seq, **more}


def complaints(stream, *events):
    return [stream.hear(*event) for event in events]


def test_a_stream_that_begins_in_time_and_has_each_seq_once_is_right():
    stream = Stream(ME)
    assert complaints(stream, change(4), change(5)) == [None, None]
    assert stream.loaded(ROOM, 3) is None
    assert complaints(stream, ("conversation:new", {"id": ROOM}), change(6)) == [None, None]


@pytest.mark.parametrize("seqs", [(4, 6), (4, 4), (4, 5, 4), (4, 3)])
def test_a_gap_and_a_repetition_in_a_stream_are_complained_of(seqs):
    assert complaints(Stream(ME), *map(change, seqs))[-1]


def test_a_stream_that_begins_behind_what_was_loaded_is_complained_of():
    before, after = Stream(ME), Stream(ME)
    before.loaded(ROOM, 3)
    assert before.hear(*change(5))
    after.hear(*change(5))
    assert after.loaded(ROOM, 3)


def test_what_follows_ones_own_removal_is_complained_of_until_one_is_added_again():
    stream = Stream(ME)
    out = change(2, "participant:removed", userId=ME)
    assert complaints(stream, change(1), out) == [None, None]
    assert stream.hear(*change(3))
    assert complaints(stream, ("conversation:new", {"id": ROOM}), change(7), change(8)) == [None, None, None]
    assert complaints(stream, change(9, "participant:removed", userId="another")) == [None]


def test_what_was_sent_before_ones_removal_must_not_come_again_after_it():
    stream = Stream(ME)
    complaints(stream, change(1), change(2, "participant:removed", userId=ME), ("conversation:new", {"id": ROOM}))
    assert stream.hear(*change(2, "participant:removed", userId=ME))


def test_typing_that_never_ends_and_presence_that_is_repeated_or_wrong_are_complained_of():
    fleeting = Fleeting()
    started = {"conversationId": ROOM, "userId": "user-2", "isTyping": True}
    assert fleeting.hear("user:typing", started) is None
    assert fleeting.typing == [(ROOM, "user-2")]
    fleeting.hear("user:typing", {**started, "isTyping": False})
    assert fleeting.typing == []
    came = {"userId": "user-2", "transition": 5}
    assert fleeting.hear("user:online", came) is None
    assert fleeting.hear("user:offline", came)
    assert fleeting.wrong(online={"user-2"}, users={"user-2"})
    assert not fleeting.wrong(online=set(), users={"user-2"})
    assert not fleeting.wrong(online={"user-2"}, users={"user-3"})


def loaded():
    message = {"id": "msg_1", "seq": 1, "senderId": ME, "content": "first", "reactions": []}
    return Room.of({"lastSeq": 1, "participants": [{"userId": ME}]}, [message])


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("message:new", {"id": "msg_2", "senderId": ME, "content": "second", "reactions": []}),
        ("message:updated", {"messageId": "msg_1", "content": "other"}),
        ("message:deleted", {"messageId": "msg_1"}),
        ("reaction:added", {"messageId": "msg_1", "emoji": "❤", "userId": ME}),
        ("participant:added", {"participant": {"userId": "user-2"}}),
        ("participant:removed", {"userId": ME}),
        ("conversation:updated", {"title": "a title"}),
    ],
)
def test_every_change_makes_a_model_another(event, data):
    changed = loaded()
    changed.apply(event, {"seq": 1, **data})
    assert difference(changed.view(), loaded().view())


def test_a_reaction_that_is_gone_leaves_a_model_as_it_was():
    changed = loaded()
    for event in ("reaction:added", "reaction:removed"):
        changed.apply(event, {"seq": 1, "messageId": "msg_1", "emoji": "❤", "userId": ME})
    assert difference(changed.view(), loaded().view()) is None
