"""What an error of PostgreSQL means, whoever wraps it."""

import logging

import asyncpg
import pytest
from asyncpg.exceptions import _base
from tortoise.exceptions import IntegrityError, OperationalError

from app.contract.errors import ServiceUnavailable
from app.postgres import errors as postgres_errors
from app.postgres.errors import AWAY, RolledBackError, is_away, unavailable


def said(sqlstate: str) -> asyncpg.PostgresError:
    """Make what asyncpg raises for an SQLSTATE."""
    return asyncpg.PostgresError.new({"C": sqlstate, "M": "said by the test"})


@pytest.fixture(autouse=True)
def calm(monkeypatch):
    monkeypatch.setattr(postgres_errors, "_met", {})


@pytest.mark.parametrize(
    "sqlstate",
    ["08006", "0A000", "25006", "25P02", "26000", "28P01", "3D000", "40001", "40003", "40P01", "42501", "53100",
     "53300", "55000", "55P03", "57014", "57P01", "58030", "72000", "F0000", "P0001", "XX000", "QQ123"],
)  # fmt: skip
def test_what_nobody_knows_for_our_own_fault_is_away(sqlstate):
    error = said(sqlstate)
    assert isinstance(error, AWAY)
    assert isinstance(unavailable(error), ServiceUnavailable)


@pytest.mark.parametrize("sqlstate", ["21000", "22021", "22P02", "23502", "23505", "42601", "42703", "54001"])
def test_a_wrong_statement_or_value_is_our_own_fault(sqlstate):
    error = said(sqlstate)
    assert not isinstance(error, AWAY)
    assert unavailable(error) is error


def test_a_connection_that_was_closed_is_away_whatever_says_so():
    for error in (
        ConnectionResetError(),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("unexpected"),
        RolledBackError(),
        RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed"),
    ):
        assert is_away(error)
    for error in (
        ZeroDivisionError(),
        RuntimeError("something else"),
        IntegrityError(),
        OperationalError(),
        _base.DataError("invalid input for query argument $1"),
        None,
    ):
        assert not is_away(error)


def test_each_kind_of_outage_is_told_once_until_it_is_over(caplog, monkeypatch):
    now = 100.0
    monkeypatch.setattr(postgres_errors.time, "monotonic", lambda: now)

    def told() -> int:
        return len(caplog.records)

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            unavailable(said("53100"))
        assert told() == 1
        for error in (said("57P01"), ConnectionRefusedError(), TimeoutError()):
            unavailable(error)
        assert told() == 2
        for _ in range(30):
            now += postgres_errors.CALM / 2
            unavailable(said("53100"))
        assert told() == 2
        now += postgres_errors.CALM
        unavailable(said("53100"))
        assert told() == 3


def test_what_somebody_wrote_is_not_logged(caplog):
    error = asyncpg.PostgresError.new({"C": "53100", "M": "no space left", "D": "Key (content)=(a secret)"})
    with caplog.at_level(logging.WARNING):
        unavailable(error)
    assert "no space left" in caplog.text
    assert "a secret" not in caplog.text
