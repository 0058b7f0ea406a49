"""The handler of the integration page, run by Express, accepts every event whatever people write."""

import asyncio
import json
import unicodedata
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from clients import Rest, ear, somebody, token
from npm import NODE, install
from receiver import WEBHOOK_SECRET

FOLDER = Path(__file__).parent / "express"
TIMEOUT = 60.0
CONTROLS = [chr(number) for number in (*range(0x01, 0x20), 0x7F, *range(0x80, 0xA0))]
STRANGE = [
    *(f"a{control}b" for control in CONTROLS),
    "".join(CONTROLS),
    "\u2028 and \u2029",
    "👩‍👩‍👧‍👦 🏳️‍🌈 \U0001f1e9\U0001f1ea",
    "\\ \" ' / \\u0041 \\\\n <script>&amp;</script>",
    "\ufeff\ufffe\uffff\ud7ff\ue000\U0010ffff",
    "__proto__",
    "123",
    "0",
    "-1",
    "1e3",
    "null",
    '{"__proto__":{"1":2}}',
    "é e\u0301 ﬀ İ",
]


@dataclass
class Express:
    """What the handler said of each webhook."""

    process: asyncio.subprocess.Process
    url: str
    said: list[dict[str, Any]] = field(default_factory=list)

    async def read_until(self, count: int) -> list[dict[str, Any]]:
        """Read until so many webhooks of conversations came; gives all that came."""
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            while sum(not one.get("event", "").startswith("user.") for one in self.said) < count:
                self.said.append(json.loads(await self.process.stdout.readline()))
        return self.said


@asynccontextmanager
async def express():
    process = await asyncio.create_subprocess_exec(
        NODE,
        FOLDER / "server.js",
        env={"WEBHOOK_SECRET": WEBHOOK_SECRET},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            port = int(await process.stdout.readline())
        yield Express(process, f"http://127.0.0.1:{port}/webhooks/chat")
    finally:
        process.kill()
        await process.wait()


pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture(scope="module")
def installed():
    install(FOLDER)


async def test_the_handler_of_the_page_accepts_whatever_people_write(stack):
    async with express() as master, stack(WEBHOOK_URL=master.url) as found:
        people = {
            name: Rest(found.http, found.pods[0].http, name, token(name))
            for name in ("__proto__", "123", '\u2028"\\\x01')
        }
        anna = people["__proto__"]
        answer = await anna.post(
            "/api/conversations",
            {"type": "group", "title": "x", "participantIds": [*people, somebody(), "constructor"]},
        )
        assert answer.status == 201, answer
        room = answer.json["id"]
        sent = 1
        for text in STRANGE:
            labels = [{"externalFileId": text, "label": text}, {"externalFileId": f"1{text}"}]
            message = {"content": text, "attachments": labels, "clientMessageId": text}
            answer = await anna.post(f"/api/conversations/{room}/messages", message)
            assert answer.status == 201, (text, answer)
            sent += 1
            if any(unicodedata.category(sign) == "Cc" for sign in text) or "/" in text:
                continue
            reacted = await people["123"].post(
                f"/api/messages/{answer.json['id']}/reactions", {"emoji": text[:16]}
            )
            assert reacted.status == 201, (text, reacted)
            sent += 1
        assert (await anna.delete(f"/api/messages/{answer.json['id']}")).status == 204
        async with ear(found.pods[0], '\u2028"\\\x01'):
            said = await master.read_until(sent + 1)
        assert [one for one in said if "refused" in one] == []
        contents = [one["data"]["content"] for one in said if one["event"] == "message.created"]
        # The last one was deleted, perhaps before it was told.
        assert contents[:-1] == STRANGE[:-1]
        attachments = [one["data"]["attachments"] for one in said if one["event"] == "message.created"]
        assert [one[0]["label"] for one in attachments[:-1]] == STRANGE[:-1]
        assert {one["event"] for one in said} >= {
            "conversation.created",
            "message.created",
            "message.deleted",
            "reaction.added",
        }
        assert said[0]["data"]["participantIds"][0] == "__proto__"
        assert await found.wait_for_listed("pending", 0) == []
        assert await found.listed("dead") == []


async def test_the_handler_accepts_who_comes_and_goes(stack):
    async with express() as master, stack(WEBHOOK_URL=master.url) as found:
        for name in ("__proto__", "42", "\x7f\u2029"):
            async with ear(found.pods[0], name), asyncio.timeout(TIMEOUT):
                while not any(
                    one["event"] == "user.online" and one["data"]["userId"] == name for one in master.said
                ):
                    master.said.append(json.loads(await master.process.stdout.readline()))
        assert [one for one in master.said if "refused" in one] == []
