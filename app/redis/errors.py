"""Redis errors, all classified as *away*: every error reply, and every failure of a connection.

A list of known errors is never complete, so none is kept: `resp` turns what event loops and parsers raise into one
of these. Each is counted; its kind is logged once, until it has not been seen for a minute.
"""

import logging
import time

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.observability import metrics
from app.observability.logs import LogLimiter

AWAY = (RedisError, OSError, EOFError)

# The codes that the metric names; a proxy may make up any number of others.
_CODES = {
    *("ASK", "BUSY", "CLUSTERDOWN", "CROSSSLOT", "ERR", "EXECABORT", "LOADING", "MASTERDOWN", "MISCONF", "MOVED"),
    *("NOAUTH", "NOPERM", "NOREPLICAS", "NOSCRIPT", "OOM", "READONLY", "TRYAGAIN", "WRONGPASS", "WRONGTYPE"),
}
_OTHER, _TIMEOUT, _CONNECTION = "other", "timeout", "connection"

_limiter = LogLimiter()
_log = logging.getLogger(__name__)


def kind(error: Exception) -> str:
    """Give the code of an error reply, or `timeout`, `connection` or `other`."""
    code = str(error).partition(" ")[0]
    if code in _CODES:
        return code
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return _TIMEOUT
    return _CONNECTION if isinstance(error, RedisConnectionError | OSError | EOFError) else _OTHER


def describe(error: Exception) -> str:
    """Put an error into a few words for a log."""
    return str(error)[:200] or type(error).__name__


def note(error: Exception, purpose: str) -> None:
    """Count an error; log it where it is the first of its kind, for this purpose, in a minute."""
    found = kind(error)
    metrics.of(metrics.REDIS_ERRORS, found).inc()
    if not _limiter.allows((purpose, found), time.monotonic()):
        return
    if _is_our_fault(error, found):
        _log.error("Redis refuses a defective call for %s: %s", purpose, describe(error))
    else:
        _log.warning("Redis is away for %s (%s): %s", purpose, found, describe(error))


def _is_our_fault(error: Exception, found: str) -> bool:
    """Whether it is a defect of a script, or a key of another type, and not caused by an operator."""
    text = str(error)
    return found == "WRONGTYPE" or (found == "ERR" and ("user_script:" in text or "compiling script" in text))
