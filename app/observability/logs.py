"""Logs: one JSON object a line for machines, or plain text for people."""

import logging
import sys
import time
from collections.abc import Hashable
from typing import Any

import msgspec

from app.observability import tracing

# What did not happen for so many seconds is logged again.
FORGET_AFTER = 60.0

# Libraries that log single packets and connections: only their warnings are kept.
_VERBOSE = ("asyncio", "aiohttp", "engineio", "sanic", "socketio", "tortoise")


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        milliseconds = int(record.msecs)
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{milliseconds:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace_id := tracing.trace_id():
            line["trace_id"] = trace_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(level: str, form: str) -> None:
    """Log to standard error, in one form, for this service and its libraries."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(max(logging.getLevelName(level), logging.WARNING))
    # It logs an error for whatever a client does wrong; our own errors are caught before it.
    logging.getLogger("engineio.server").setLevel(logging.CRITICAL)


class LogLimiter:
    """Limits repeated log lines: a key is logged again once it was not seen for a minute.

    There must be few different keys: they are kept.
    """

    def __init__(self) -> None:
        self._seen: dict[Hashable, float] = {}

    def allows(self, key: Hashable, now: float) -> bool:
        """Note an event at a time of the monotonic clock; gives whether to log it."""
        last = self._seen.get(key)
        self._seen[key] = now
        return last is None or now - last >= FORGET_AFTER


def warn_of_weak_secrets(names: list[str]) -> None:
    for name in names:
        logging.getLogger(__name__).warning("%s is shorter than 32 bytes: use a longer secret", name)
