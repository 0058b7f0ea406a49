import pytest

from app.realtime.socketio import failures
from app.realtime.socketio.failures import BURST, PER_SECOND, Failures


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(failures.time, "monotonic", lambda: now[0])
    return now


def test_some_may_fail_at_once_and_more_only_as_time_goes_by(clock):
    counted = Failures()
    assert [counted.count("anna") for _ in range(BURST)] == [0.0] * BURST
    assert counted.count("anna") == pytest.approx(1 / PER_SECOND)
    assert counted.count("anna") == pytest.approx(2 / PER_SECOND)
    assert counted.count("ben") == 0.0
    clock[0] += 3 / PER_SECOND
    assert counted.count("anna") == 0.0
    clock[0] += 2 * BURST / PER_SECOND
    assert [counted.count("anna") for _ in range(BURST)] == [0.0] * BURST


def test_of_very_many_users_the_oldest_are_forgotten(monkeypatch):
    monkeypatch.setattr(failures, "MAX_REMEMBERED", 2)
    counted = Failures()
    for user in ("anna", "ben", "cleo"):
        counted.count(user)
    assert list(counted._zero) == ["ben", "cleo"]
