"""What an error of PostgreSQL means, by its SQLSTATE: away, to be tried again, or a defect of ours.

    error of PostgreSQL or of its driver
    ├── the statement or its values are wrong (OURS)    a defect, or a case that a use-case expects
    └── anything else (AWAY)                            503, and over by itself
        ├── rolled back because of others (TRY_AGAIN)   done again first
        └── known by nobody                             counted as `unknown`

A list of known errors is never whole: what is not known to be our own fault is taken for PostgreSQL being away.
"""

import logging
import time
from typing import Any

import asyncpg
from asyncpg.exceptions._base import DataError as BadValue
from tortoise.exceptions import DBConnectionError, TransactionManagementError

from app.contract.errors import ServiceUnavailable
from app.observability import metrics

# An outage is over when no call met it for so long, in seconds: the next one is logged again.
CALM = 10.0

# By SQLSTATE, or the class of one: cardinality, data, integrity, syntax or access, limits of a statement.
OURS = ("21", "22", "23", "42", "54")
# A right that the role lacks is for its operator to give.
NOT_OURS = ("42501",)


class RolledBackError(Exception):
    """A transaction that PostgreSQL rolled back because of others; whoever made it may make it again."""


def _is_ours(sqlstate: str) -> bool:
    return sqlstate.startswith(OURS) and sqlstate not in NOT_OURS


_KNOWN: tuple[Any, ...] = tuple(
    kind
    for kind in vars(asyncpg.exceptions).values()
    if isinstance(kind, type) and issubclass(kind, asyncpg.PostgresError) and getattr(kind, "sqlstate", None)
)
_CLASSES = {kind.sqlstate[:2] for kind in _KNOWN}

# No patience helps a command against these; a process that serves waits until somebody has mended it.
REFUSED = (
    asyncpg.ClientConfigurationError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)

# Whoever did this may do it again at once: nothing of it is there. The last one is a plan of before a migration.
TRY_AGAIN = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidCachedStatementError,
)

# What asyncpg, Tortoise, the event loop and the kernel raise when PostgreSQL is not there, goes away or refuses.
AWAY: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    RolledBackError,
    DBConnectionError,
    TransactionManagementError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.exceptions.UnknownPostgresError,
    *(kind for kind in _KNOWN if not _is_ours(kind.sqlstate)),
)

_log = logging.getLogger(__name__)
# When each kind of outage was met last, by the clock that only goes forward.
_met: dict[str, float] = {}


def is_away(error: BaseException | None) -> bool:
    """Tell whether an error means that PostgreSQL is away or refuses for a while."""
    if isinstance(error, AWAY):
        return not isinstance(error, BadValue)
    # What asyncpg and uvloop raise on a connection that was closed under them.
    return isinstance(error, RuntimeError) and "closed" in str(error)


def unavailable(error: Exception) -> Exception:
    """Make ServiceUnavailable of an error that means that PostgreSQL is away; all else stays as it is."""
    if not is_away(error):
        return error
    note(error)
    return ServiceUnavailable()


def note(error: Exception) -> None:
    """Count an error that means that PostgreSQL is away; one warning is logged until it is over."""
    cause = error.__cause__ if isinstance(error, RolledBackError) else error
    sqlstate: str = getattr(cause, "sqlstate", None) or ""
    metrics.of(metrics.DATABASE_ERRORS, _label(sqlstate)).inc()
    is_gone = not sqlstate or sqlstate.startswith(("08", "57P"))
    kind = "away" if is_gone else sqlstate
    now = time.monotonic()
    is_logged = now - _met.get(kind, -CALM) < CALM
    _met[kind] = now
    if is_logged:
        return
    # The message alone: a detail may quote what somebody wrote.
    message = cause.args[0] if isinstance(cause, asyncpg.PostgresError) else cause
    reason = str(message) or type(cause).__name__
    if is_gone or isinstance(cause, REFUSED):
        _log.warning("PostgreSQL is away: %s", reason)
    else:
        _log.warning("PostgreSQL refuses for a while (%s): %s", sqlstate, reason)


def _label(sqlstate: str) -> str:
    """Give few values: the class of an SQLSTATE."""
    if not sqlstate:
        return "none"
    return sqlstate[:2] if sqlstate[:2] in _CLASSES else "unknown"
