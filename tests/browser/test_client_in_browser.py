"""chat-client.js in a browser, over its own WebSocket and over socket.io-client, without the page around it."""

import asyncio

import pytest
from people import person

pytestmark = pytest.mark.browser

BUNDLE = "socket.io-client/dist/socket.io.esm.min.js"
OPEN = """async ([over, login]) => {
  const { ChatClient } = await import('/page/client/chat-client.js');
  const given = over === 'io' ? await import('/page/socket.io.js') : {};
  const io = given.io && ((url, options) => given.io(url, { ...options, transports: ['websocket'] }));
  window.heard = [];
  window.states = [];
  window.chat = new ChatClient({ url: login.socketUrl, getToken: () => login.token, ...io && { io } });
  chat.on('message:new', ({ content, seq }) => heard.push([seq, content]));
  chat.on('state', ({ state }) => states.push(state));
  chat.connect();
}"""
SAY = """async ([id, contents]) => {
  const stored = await Promise.all(contents.map((content) => chat.send(id, { content })));
  return stored.length;
}"""


@pytest.mark.parametrize("over", ["its own WebSocket", "io"])
async def test_nothing_is_lost_doubled_or_reordered_over_a_time_without_network(
    window, demo, http, node_modules, over
):
    script = await asyncio.to_thread((node_modules / BUNDLE).read_bytes)
    windows, logins = [], []
    for name in ("Anna", "Ben"):
        opened = await window()
        await opened.page.route(
            "**/page/socket.io.js",
            lambda route: route.fulfill(body=script, content_type="text/javascript"),
        )
        async with http.post(f"{demo}/login", json={"name": person(name)}) as answer:
            logins.append(await answer.json())
        await opened.page.evaluate(OPEN, [over, logins[-1]])
        await opened.page.wait_for_function("() => chat.state === 'connected'")
        windows.append(opened.page)
    wanted = {"type": "direct", "participantIds": [logins[1]["userId"]]}
    headers = {"Authorization": f"Bearer {logins[0]['token']}"}
    async with http.post(f"{demo}/api/conversations", json=wanted, headers=headers) as answer:
        room = (await answer.json())["id"]
    anna, ben = windows
    await anna.evaluate(SAY, [room, ["before"]])
    await ben.wait_for_function("() => heard.length === 1")
    await ben.context.set_offline(True)
    await ben.wait_for_function("() => chat.state === 'offline'")
    await ben.evaluate("([id]) => { chat.send(id, { content: 'from the tunnel' }); }", [room])
    missed = [f"missed {number}" for number in range(150)]
    assert await anna.evaluate(SAY, [room, missed]) == len(missed)
    await ben.context.set_offline(False)
    expected = [[seq, content] for seq, content in enumerate(["before", *missed, "from the tunnel"], 1)]
    for page in windows:
        await page.wait_for_function("count => heard.length >= count", arg=len(expected))
        assert await page.evaluate("heard") == expected
    states = await ben.evaluate("states")
    assert states[:3] == ["connecting", "connected", "offline"]
    assert states[-2:] == ["syncing", "connected"]
    assert await ben.evaluate("([id]) => chat.outgoing(id)", [room]) == []
