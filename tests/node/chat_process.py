"""chat-client.js in a process of its own, as Python tests drive it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from npm_client import EXIT_TIMEOUT, FOLDER, LONGEST_LINE, NODE, NpmClient


class ChatProcess(NpmClient):
    """One ChatClient, and all that it told."""

    def do(self, command: str, **more: Any) -> None:
        self._tell(command, **more)

    def ask(self, command: str, **more: Any) -> int:
        """Begin what is answered; `acknowledgement` takes the number that is given back."""
        number = next(self._numbers)
        self._tell(command, number=number, **more)
        return number

    def send(self, conversation_id: str, content: str, **more: Any) -> int:
        return self.ask("send", conversationId=conversation_id, message={"content": content, **more})

    async def is_in(self, state: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until a state was entered so many times; gives what was told of it."""
        await self.wait_until(lambda: len(self.states(state)) >= count, f"{count} x {state}")
        return self.states(state)

    def states(self, state: str) -> list[dict[str, Any]]:
        return [data for data in self.told("state") if data["state"] == state]

    def told(self, event: str) -> list[Any]:
        return [one["data"][0] for one in self.of("event") if one["event"] == event]

    def changes(self, conversation_id: str) -> list[tuple[str, dict[str, Any]]]:
        """List the changes of a conversation as they were handed on."""
        changes = [(one["event"], one["data"][0]) for one in self.of("event")]
        return [
            (event, data) for event, data in changes if "seq" in data and data["conversationId"] == conversation_id
        ]

    async def wait_until(self, condition: Any, what: str, within: float = 30.0) -> None:
        try:
            async with asyncio.timeout(within), self._news:
                await self._news.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"{what}: was told only {str(self.said[-8:])[:3000]}") from None

    async def has_seq(self, conversation_id: str, seq: int) -> None:
        """Wait until a conversation is held up to a seq; fails where a change came twice, or out of order."""

        def seqs() -> list[int]:
            return [data["seq"] for _, data in self.changes(conversation_id)]

        await self.wait_until(lambda: seq in seqs(), f"seq {seq}", 40.0)
        assert seqs() == list(range(seqs()[0], seqs()[0] + len(seqs())))


@asynccontextmanager
async def chat_process(url: str, *tokens: str, **options: Any) -> AsyncIterator[ChatProcess]:
    """Run a ChatClient for the length of a block, which is given these tokens and the last one from then on.

    With `transports` it runs over socket.io-client.
    """
    process = await asyncio.create_subprocess_exec(
        NODE,
        FOLDER / "chat.mjs",
        json.dumps({"url": url, "tokens": tokens, **options}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
    )
    assert process.stdin is not None
    client = ChatProcess(process)
    listening = asyncio.create_task(client.listen())
    try:
        yield client
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(EXIT_TIMEOUT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await listening
    assert process.returncode == 0
