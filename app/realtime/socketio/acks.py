"""Error acknowledgements and `error` events of Socket.IO: the code and message of each error, here only."""

import logging

from msgspec import UNSET

from app.contract import events
from app.contract.codec import encode
from app.contract.errors import ChatError, InternalError
from app.contract.events import Event
from app.contract.schemas import ErrorView

_log = logging.getLogger(__name__)


def failure(error: Exception, event: str) -> ChatError:
    """Give an error as clients see it; one that they did not cause is logged here, once."""
    if isinstance(error, ChatError):
        return error
    _log.error("the event %s failed", event, exc_info=error)
    return InternalError()


def refusal(error: ChatError) -> bytes:
    """Write the acknowledgement of an event that failed."""
    return encode({"ok": False, "error": _view(error)})


def error_event(error: ChatError, event: str) -> Event:
    return events.error(_view(error), event)


def _view(error: ChatError) -> ErrorView:
    return ErrorView(error.code, error.message, UNSET if error.details is None else error.details)
