"""The examples of a frontend, run by Node against a pod as they stand in README.md and in docs/."""

import asyncio
import json
from pathlib import Path

import pages
import pytest
from clients import ear, somebody, token
from npm_client import FOLDER, NODE

CLIENT = Path(__file__).parents[2] / "app" / "dev" / "page" / "client"
URL = "https://chat.example.com"
TIMEOUT = 20.0
# What an example takes for granted; whatever it shows is printed, one line of JSON each.
OF_THE_READER = """
const print = (what) => (value) => console.log(JSON.stringify({ what, value: value ?? null }));
const [fetchToken, fetchFreshToken] = [async () => process.env.TOKEN, async () => process.env.TOKEN];
const [showState, show, showSending, list] = ['state', 'message', 'sending', 'conversation'].map(print);
const reload = print('reload');
const conversationId = process.env.ROOM;
const conversation = { id: conversationId, lastSeq: 0 };
const messageId = process.env.MESSAGE;
const content = 'Hello';
const clientMessageId = 'one';
"""
PAGES = ["README.md", "docs/frontend-chat-client.md", "docs/frontend-socketio.md"]
# What the example got as the acknowledgement of its message, where it looks at one.
END = """
print('end')(typeof answer === 'undefined' ? null : answer);
setTimeout(() => process.exit(), 500);
"""


async def run(page, folder, env, url):
    (example,) = pages.code(page, "javascript")
    # What an example imports is there wherever the import stands.
    program = OF_THE_READER + example + END
    (folder / "example.mjs").write_text(program.replace("./client/", f"{CLIENT}/").replace(URL, url))
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    process = await asyncio.create_subprocess_exec(
        NODE,
        folder / "example.mjs",
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = out.decode()
    assert process.returncode == 0, text
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("page", PAGES)
async def test_it_connects_and_sends_what_the_other_one_gets(page, node_modules, user, cluster, tmp_path):
    assert (node_modules / "socket.io-client").is_dir()
    anna, ben_id = user("anna"), somebody("ben")
    room = await anna.direct(ben_id)
    first = await anna.say(room, "Hello?")
    async with ear(cluster[1], ben_id) as ben:
        env = {"TOKEN": token(anna.user_id), "ROOM": room, "MESSAGE": first["id"]}
        said = await run(page, tmp_path, env, cluster[0].ws)
        (got,) = await ben.wait_for("message:new")
        assert (got["senderId"], got["content"]) == (anna.user_id, "Hello")
        shown = [one["value"]["content"] for one in said if one["what"] == "message"]
        assert "Hello" in shown
        if page == "docs/frontend-socketio.md":
            (answer,) = [one["value"] for one in said if one["what"] == "end"]
            assert answer["ok"]
            assert answer["message"]["id"] == got["id"]
        else:
            states = [one["value"] for one in said if one["what"] == "state"]
            assert "connected" in states
        if page == "docs/frontend-chat-client.md":
            (edited,) = await ben.wait_for("message:updated")
            assert (edited["content"], edited["messageId"]) == ("Hello!", first["id"])
            assert [one for one in said if one["what"] == "sending"]
