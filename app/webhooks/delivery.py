"""Delivery of a webhook, one attempt: build the payload, sign it, post it, and judge the answer."""

import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from app.config.settings import Settings
from app.contract import events
from app.observability import tracing
from app.postgres.transactions import Row
from app.runtime.batching import Batcher
from app.webhooks import payload, queue, signing
from app.webhooks.http_client import NoAnswerError, Poster
from app.webhooks.retry import read_retry_after
from app.webhooks.signing import Keys, Signed

HEADERS = {"Content-Type": "application/json", "User-Agent": "chat-service", "Accept": "*/*"}
# How long the previous secret goes first after it was what the master accepted.
PREFERENCE = 60.0
UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an attempt; without a `status` there was no answer."""

    status: int | None
    error: str | None = None
    retry_after: float | None = None

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def kind(self) -> str:
        """Name the outcome, as one of few."""
        if self.is_delivered:
            return "delivered"
        return "none" if self.status is None else f"{self.status // 100}xx"

    @property
    def is_failure_of_master(self) -> bool:
        """Whether the way to the master or the master as a whole is at fault."""
        return self.status is None or self.status >= 500


class Sender:
    """Posts webhooks to the master."""

    def __init__(self, settings: Settings, poster: Poster) -> None:
        assert settings.webhook_secret is not None
        self._poster = poster
        self._message = Batcher(queue.messages, lambda _: tracing.statement(queue.MESSAGES))
        secrets = (settings.webhook_secret, settings.webhook_secret_previous)
        self._keys = [signing.keys_of(secret) for secret in secrets if secret is not None]
        self._previous_until = 0.0

    async def attempt(self, row: Row) -> Outcome:
        """Send one webhook; with a previous secret also a second time, where the master refuses the first.

        Raises what PostgreSQL raises where it is away: nothing was sent then.
        """
        with tracing.follow("POST", "client", (row["traceparent"],), {"http.request.method": "POST"}):
            return await self._attempt(row)

    async def _attempt(self, row: Row) -> Outcome:
        for keys in self._in_order():
            if row["event"] == events.MESSAGE_CREATED:
                row.update(await self._message(row["message_id"]))
            outcome = await self._post(self._signed(row, keys), row)
            if outcome.status != UNAUTHORIZED:
                if outcome.status is not None:
                    self._accepted(keys)
                break
        return outcome

    def _in_order(self) -> list[Keys]:
        prefers_previous = time.monotonic() < self._previous_until
        return self._keys[::-1] if prefers_previous else self._keys

    def _accepted(self, keys: Keys) -> None:
        """Remember which secret the master has, while it is being rotated."""
        if keys is self._keys[0]:
            self._previous_until = 0.0
        elif time.monotonic() >= self._previous_until:
            self._previous_until = time.monotonic() + PREFERENCE

    def _signed(self, row: Row, keys: Keys) -> Signed:
        return signing.sign(
            payload.webhook_id(row),
            payload.event(row),
            payload.time(row),
            payload.data(row),
            int(time.time()),
            keys,
            self._keys,
        )

    async def _post(self, signed: Signed, row: Row) -> Outcome:
        headers = {**signed.headers, "traceparent": tracing.traceparent() or payload.traceparent(row)}
        try:
            answer = await self._poster.post(headers, signed.body)
        except TimeoutError:
            tracing.describe(is_failure=True, error__type="timeout")
            return Outcome(None, "no answer in time")
        except OSError as error:
            tracing.describe(is_failure=True, error__type=type(error).__name__)
            return Outcome(None, _reason(error))
        status = answer.status
        tracing.describe(is_failure=status >= 400, http__response__status_code=status)
        if 200 <= status < 300:
            return Outcome(status)
        return Outcome(status, f"answered {status}", read_retry_after(answer.retry_after, datetime.now(UTC)))


def _reason(error: OSError) -> str:
    """Say what went wrong in few words, without the address, which may hold a password."""
    if isinstance(error, NoAnswerError):
        return str(error)
    if isinstance(error, ssl.SSLError):
        return error.reason or type(error).__name__
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return os.strerror(error.errno) if error.errno else type(error).__name__


@contextmanager
def sender(settings: Settings) -> Iterator[Sender]:
    """Open a sender for the length of a block."""
    assert settings.webhook_url is not None
    poster = Poster(settings.webhook_url, HEADERS, settings.webhook_timeout)
    with closing(poster):
        yield Sender(settings, poster)
