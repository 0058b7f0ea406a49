"""Links between one process and one database, which can stall, delay and reset; their proxies are a process."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from soak.control import HarnessError

ANSWER_TIMEOUT = 30.0
END_TIMEOUT = 5.0


class Links:
    """The process of the proxies."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._one_at_a_time = asyncio.Lock()
        self._number = 0

    async def open(self, name: str, url: str) -> "Link":
        """Put a link before a server."""
        port = await self.command(name, "open", *_address(url))
        return Link(self, name, url.replace(f":{_address(url)[1]}/", f":{port}/"))

    async def command(self, link: str, do: str, *arguments: Any) -> Any:
        """Have a proxy do something; returns when it is done. Raises HarnessError."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT), self._one_at_a_time:
                return await self._exchange({"link": link, "do": do, "arguments": arguments})
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise HarnessError(f"the process of the links does not answer: {error!r}") from error

    async def _exchange(self, command: dict[str, Any]) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self._number += 1
        self.process.stdin.write(json.dumps({**command, "number": self._number}).encode() + b"\n")
        await self.process.stdin.drain()
        while True:
            # An empty line is the end of the process, which json refuses by ValueError.
            answer = json.loads(await self.process.stdout.readline())
            # The answer to a command whose caller was cancelled is nobody's.
            if answer["number"] == self._number:
                return answer["port"]

    async def end(self) -> None:
        """End the process by its stdin, or by SIGKILL where that does not do."""
        assert self.process.stdin
        self.process.stdin.close()
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


class Link:
    """One link; `url` is what the process is given in place of the server's own."""

    def __init__(self, links: Links, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self._links = links

    async def point_to(self, url: str) -> None:
        """Follow the server, which may have got another port at its restart."""
        await self._links.command(self.name, "point_to", *_address(url))

    async def stall(self, *directions: str) -> None:
        """Let nothing through `there`, `back` or both, and close nothing: a black hole."""
        await self._links.command(self.name, "stall", *directions)

    async def delay(self, seconds: float) -> None:
        """Delay what goes there and back by so many seconds in all."""
        await self._links.command(self.name, "delay", seconds)

    async def heal(self) -> None:
        await self._links.command(self.name, "heal")

    async def reset(self) -> None:
        """End every connection by an RST."""
        await self._links.command(self.name, "reset")


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


@asynccontextmanager
async def running_links() -> AsyncIterator[Links]:
    """Run the process of the links for the length of a block."""
    # A session of its own: Ctrl-C ends the faults, and what follows needs the links.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "soak.proxies",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    links = Links(process)
    try:
        yield links
    finally:
        await links.end()
