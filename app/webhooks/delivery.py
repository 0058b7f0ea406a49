"""One attempt: what is due is put into words, signed, posted, and the answer judged."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from app import events, tracing
from app.gathering import Gathering
from app.settings import Settings
from app.store import Row
from app.webhooks import payload, queue, signing
from app.webhooks.retry import read_retry_after
from app.webhooks.signing import Keys, Signed

# What is read of an answer; a connection with more on it is not used again.
MAX_ANSWER = 4096
# How long the previous secret goes first after it was what the master accepted.
PREFERENCE = 60.0
READ_TIMEOUT = 1.0
# Shorter than the 5 s of Node.js: a request that meets the end of its connection is a failed attempt.
KEEP_ALIVE = 4.0
UNAUTHORIZED = 401

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt; without a `status` there was no answer."""

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
    """Posts webhooks to the master over connections that are kept."""

    def __init__(self, settings: Settings, session: ClientSession) -> None:
        assert settings.webhook_url is not None
        assert settings.webhook_secret is not None
        self._url = settings.webhook_url.reveal()
        self._session = session
        self._message = Gathering(queue.messages, lambda _: tracing.statement(queue.MESSAGES))
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
            async with self._session.post(
                self._url, data=signed.body, headers=headers, allow_redirects=False
            ) as response:
                await _read(response)
                status = response.status
                retry_after = read_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
        except TimeoutError:
            tracing.describe(is_failure=True, error__type="timeout")
            return Outcome(None, "no answer in time")
        except (ClientError, OSError) as error:
            tracing.describe(is_failure=True, error__type=type(error).__name__)
            return Outcome(None, _reason(error))
        tracing.describe(is_failure=status >= 400, http__response__status_code=status)
        if 200 <= status < 300:
            return Outcome(status)
        return Outcome(status, f"answered {status}", retry_after)


async def _read(response: ClientResponse) -> None:
    """Read an answer that is short, so that its connection can be used again; nothing of it is of interest."""
    left = MAX_ANSWER
    try:
        async with asyncio.timeout(READ_TIMEOUT):
            while left > 0 and (part := await response.content.read(left)):
                left -= len(part)
    except (TimeoutError, ClientError) as error:
        _log.debug("the answer of the master broke off: %s", error)
    if not response.content.at_eof():
        response.close()


def _reason(error: Exception) -> str:
    """Say what went wrong in few words, without the address, which may hold a password."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, socket.gaierror):
        return str(cause.strerror)
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return type(error).__name__


@asynccontextmanager
async def sender(settings: Settings, connections: int) -> AsyncIterator[Sender]:
    """Open a sender for the length of a block, with so many connections at most."""
    session = ClientSession(
        connector=TCPConnector(limit=connections, keepalive_timeout=KEEP_ALIVE),
        read_bufsize=MAX_ANSWER,
        timeout=ClientTimeout(total=settings.webhook_timeout),
        cookie_jar=DummyCookieJar(),
        headers={"Content-Type": "application/json", "User-Agent": "chat-service"},
        auto_decompress=False,
    )
    async with session:
        yield Sender(settings, session)
