"""The two masters of docs/master-python.md and docs/master-express.md, run as they stand there."""

import asyncio
import hashlib
import hmac
import json
import sys
from contextlib import asynccontextmanager

import aiohttp
import pages
import pytest
from clients import Master, Rest, somebody
from npm_client import FOLDER, NODE
from pods import INTERNAL_SECRET, SECRET, free_port, until

WEBHOOK_SECRET = "a-secret-of-the-tests-that-signs-webhooks"
LANGUAGES = {"Python": ("python", sys.executable, "master.py"), "Express": ("javascript", NODE, "master.mjs")}


@asynccontextmanager
async def running(title, folder, chat_url):
    language, program, name = LANGUAGES[title]
    (example,) = pages.code(f"docs/master-{title.lower()}.md", language)
    (folder / name).write_text(example)
    # Where Node looks for express.
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    port = free_port()
    env = {
        "CHAT_SERVICE_URL": chat_url,
        "JWT_SECRET": SECRET,
        "INTERNAL_API_SECRET": INTERNAL_SECRET,
        "WEBHOOK_SECRET": WEBHOOK_SECRET,
        "PORT": str(port),
    }
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program, folder / name, env=env, stdout=output, stderr=asyncio.subprocess.STDOUT
        )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        await process.wait()


async def listens(http, url, process):
    assert process.returncode is None
    try:
        async with http.get(url):
            return True
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize("title", LANGUAGES)
async def test_it_logs_in_proxies_and_takes_webhooks(title, node_modules, http, cluster, tmp_path):
    assert (node_modules / "express").is_dir()
    async with running(title, tmp_path, cluster[0].http) as (url, process):
        await until(lambda: listens(http, url, process), f"the master in {title}", 20.0)
        anna_id, ben_id = somebody("anna"), somebody("ben")
        async with http.post(f"{url}/login", json={"id": anna_id, "name": "Anna"}) as response:
            assert response.status == 200
            anna = Rest(http, url, anna_id, (await response.json())["token"])
        chat = Master(http, cluster[0].http, "", "")
        assert (await chat.get(f"/api/users/{anna_id}")).json["displayName"] == "Anna"
        room = await anna.direct(ben_id)
        message = await anna.say(room, "Hello 👋")
        reactions = f"/api/messages/{message['id']}/reactions"
        assert (await anna.post(reactions, {"emoji": "👩‍🍳"})).status == 201
        assert (await anna.delete(f"{reactions}/👩‍🍳")).status == 204
        page = await anna.get(f"/api/conversations/{room}/messages?limit=1")
        assert [item["content"] for item in page.json["items"]] == ["Hello 👋"]
        assert (await anna.get("/api/conversations/conv_none")).json["code"] == "NOT_FOUND"
        for path in (f"/api/conversations/{room}", "/api/conversations/conv_none"):
            got, head = await anna.get(path), await anna.call("HEAD", path)
            assert (head.status, head.raw) == (got.status, b"")
            # It may be left out, but not be wrong.
            assert head.headers.get("Content-Length") in {None, f"{len(got.raw)}"}
        is_json = {"Content-Type": "application/json"}
        broken = await anna.call("POST", "/api/conversations", data=b'{"type":', headers=is_json)
        assert (broken.status, broken.json["code"]) == (400, "VALIDATION_ERROR")
        large = await anna.call("POST", "/api/conversations", data=b" " * (256 * 1024 + 1), headers=is_json)
        assert (large.status, large.json["code"]) == (413, "PAYLOAD_TOO_LARGE")

        payload = {
            "event": "message.created",
            "timestamp": "t",
            "signature": "s",
            "data": {"conversationId": room},
        }
        payload["data"]["content"] = '"\u2028👩‍🍳\\'
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        signature = "sha256=" + hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
        for given, status in ((signature, 200), (signature[:-1] + "x", 401), ("", 401), ("sha256=é", 401)):
            headers = {"X-Webhook-Signature": given, "Content-Type": "application/json"}
            async with http.post(f"{url}/webhooks/chat", data=body, headers=headers) as response:
                assert response.status == status


@pytest.mark.parametrize("title", LANGUAGES)
async def test_without_the_chat_service_calls_are_503(title, node_modules, http, tmp_path):
    assert (node_modules / "express").is_dir()
    async with running(title, tmp_path, f"http://127.0.0.1:{free_port()}") as (url, process):
        await until(lambda: listens(http, url, process), f"the master in {title}", 20.0)
        answer = await Rest(http, url, "anna", "token").get("/api/conversations")
        assert (answer.status, answer.json["code"]) == (503, "CHAT_SERVICE_UNAVAILABLE")
