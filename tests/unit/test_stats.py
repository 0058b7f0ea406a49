import pytest

from app.contract import ids
from app.usecases.stats import SLICE_ROWS, estimate_slice

START, STOP = 1_800_000_000.0, 1_800_000_900.0


@pytest.mark.parametrize("per_second", [3, 50, 20_000])
def test_a_slice_is_estimated_by_how_fast_its_first_messages_came(per_second):
    times = [START + place / per_second for place in range(min(SLICE_ROWS, int(900 * per_second)))]
    estimate = estimate_slice(len(times), ids.first_of(times[-1]), START, STOP)
    assert estimate == pytest.approx(900 * per_second, rel=0.02)


def test_a_slice_that_the_sample_did_not_fill_is_counted_exactly():
    assert estimate_slice(0, None, START, STOP) == 0
    assert estimate_slice(SLICE_ROWS - 1, ids.first_of(START + 1), START, STOP) == SLICE_ROWS - 1


def test_an_estimate_is_never_less_than_what_was_seen():
    assert estimate_slice(SLICE_ROWS, ids.first_of(STOP + 5), START, STOP) == SLICE_ROWS
