import time
from datetime import UTC, datetime
from uuid import UUID

import pytest

from app.contract import cursors, ids
from app.contract.errors import NotFound, ValidationFailed


def test_ids_are_version_7_and_in_the_order_of_time():
    before = time.time_ns() // 1_000_000
    made = [ids.new_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert {value.version for value in made} == {7}
    assert len(set(made)) == 1000
    milliseconds = [value.int >> 80 for value in made]
    assert milliseconds == sorted(milliseconds)
    assert before <= milliseconds[0] <= milliseconds[-1] <= after


def test_an_id_survives_the_wire():
    value = ids.new_id()
    assert ids.from_wire(ids.MESSAGE, ids.to_wire(ids.MESSAGE, value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "conv",
        "conv_",
        "conv_1",
        "msg_" + "0" * 32,
        "conv_" + "G" * 32,
        "conv_" + "A" * 32,
        "conv_" + "0" * 33,
        "conv_" + "0" * 31 + "\n",
        "conv_\u0660" + "0" * 31,
        "conv_\x00" + "0" * 31,
    ],
)
def test_what_is_no_id_names_nothing(text):
    with pytest.raises(NotFound):
        ids.from_wire(ids.CONVERSATION, text)


def test_cursors_lead_back_to_their_place():
    conversation = ids.new_id()
    assert cursors.read_seq_cursor(conversation, cursors.seq_cursor(conversation, 42), "before") == 42
    at = datetime(2026, 11, 22, 12, 30, 15, 123456, tzinfo=UTC)
    text = cursors.activity_cursor("anna", at, conversation)
    assert cursors.read_activity_cursor("anna", text, "cursor") == (at, conversation)


@pytest.mark.parametrize("text", ["", "x", "%%%%", "é", "A" * 22, "A" * 1000, "\x00"])
def test_unknown_cursors_are_refused_by_the_name_of_their_field(text):
    for read in (
        lambda: cursors.read_seq_cursor(UUID(int=1), text, "before"),
        lambda: cursors.read_activity_cursor("anna", text, "before"),
    ):
        with pytest.raises(ValidationFailed, match=r"^before: "):
            read()


def test_cursors_of_other_lists_are_refused():
    mine, other = ids.new_id(), ids.new_id()
    now = datetime.now(UTC)
    with pytest.raises(ValidationFailed):
        cursors.read_seq_cursor(mine, cursors.seq_cursor(other, 1), "before")
    with pytest.raises(ValidationFailed):
        cursors.read_seq_cursor(mine, cursors.activity_cursor("anna", now, mine), "before")
    with pytest.raises(ValidationFailed):
        cursors.read_activity_cursor("anna", cursors.activity_cursor("ben", now, mine), "cursor")
