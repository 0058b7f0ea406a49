"""A master that takes webhooks, or does not."""

import asyncio
import hmac
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from aiohttp import web

WEBHOOK_SECRET = "a-secret-of-the-tests-that-signs-the-webhooks"
WAIT_TIMEOUT = 60.0


@dataclass
class Received:
    """One attempt, as it came."""

    id: str
    headers: Any
    body: bytes
    at: float
    json: dict[str, Any]
    request: web.Request
    answered_at: float | None = None

    @property
    def event(self) -> str:
        return str(self.json["event"])

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.json["data"])

    def is_signed_with(self, secret: str) -> bool:
        """Verify as the user's handler does, over the whole body."""
        expected = "sha256=" + hmac.new(secret.encode(), self.body, sha256).hexdigest()
        return hmac.compare_digest(self.headers["X-Webhook-Signature"], expected)


Behaviour = Callable[[Received], Awaitable[web.StreamResponse | int]]


async def accept(_: Received) -> int:
    return 200


def answering(*statuses: int) -> Behaviour:
    """Answer every webhook with these statuses in turn, and with the last one ever after."""
    seen: Counter[str] = Counter()

    async def answer(one: Received) -> int:
        seen[one.id] += 1
        return statuses[min(seen[one.id], len(statuses)) - 1]

    return answer


@dataclass
class Receiver:
    """What a test's master was sent, and how it answers: with a status, or as it likes."""

    url: str = ""
    behaviour: Behaviour = accept
    received: list[Received] = field(default_factory=list)
    delivered: list[Received] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    # Only tests that want to hear of who comes and goes: people leave seconds after the test that made them up.
    hears_presence: bool = False
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        said, now = json.loads(body), time.monotonic()
        one = Received(request.headers["webhook-id"], request.headers, body, now, said, request)
        if one.event.startswith("user.") and not self.hears_presence:
            return web.Response()
        async with self.news:
            self.received.append(one)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            self.news.notify_all()
        try:
            answer = await self.behaviour(one)
        finally:
            self.under_way -= 1
            one.answered_at = time.monotonic()
        if isinstance(answer, int):
            async with self.news:
                if answer < 300:
                    self.delivered.append(one)
                self.news.notify_all()
            return web.Response(status=answer)
        return answer

    @property
    def contents(self) -> list[str]:
        """List what messages said, in the order of the attempts."""
        return [one.data["content"] for one in self.about("message.created")]

    def about(self, event: str) -> list[Received]:
        return [one for one in self.received if one.event == event]

    async def wait(self, what: str, condition: Callable[[], bool], within: float = WAIT_TIMEOUT) -> None:
        """Wait until what was received fulfils a condition."""
        try:
            async with asyncio.timeout(within), self.news:
                await self.news.wait_for(condition)
        except TimeoutError:
            got = [f"{one.event} {one.id} {str(one.data)[:150]}" for one in self.received[-10:]]
            raise AssertionError(f"{what}: received {len(self.received)}, the last {got}") from None

    async def wait_for(self, event: str, count: int = 1) -> list[Received]:
        """Wait for so many attempts of an event; gives all that came."""
        await self.wait(f"{count} of {event}", lambda: len(self.about(event)) >= count)
        return self.about(event)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Run a master for the length of a block."""
    found = Receiver()
    app = web.Application(client_max_size=1 << 20)
    app.router.add_post("/webhooks/chat", found.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    found.url = f"http://127.0.0.1:{port}/webhooks/chat"
    try:
        yield found
    finally:
        await runner.cleanup()
