import asyncio
import json
import time

import aiohttp
import pytest
from clients import ear, somebody, token, wire
from pods import ORIGIN

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"
# Some tokens are signed when the tests are collected, long before they are used.
LATER = int(time.time()) + 86_400


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ({"token": "nonsense"}, "unauthorized"),
        ({"token": ""}, "unauthorized"),
        ({"token": 5}, "unauthorized"),
        ({"token": None}, "unauthorized"),
        ({"other": "x"}, "unauthorized"),
        ("nonsense", "unauthorized"),
        (["nonsense"], "unauthorized"),
        ({"token": token("anna", exp=1)}, "unauthorized"),
        ({"token": "x" * 20_000}, "unauthorized"),
        ({"token": token("anna", permissions=["chat:write"], exp=LATER)}, "forbidden"),
        ({"token": token("anna", permissions=None, exp=LATER)}, "forbidden"),
    ],
)
async def test_a_wrong_token_is_refused_by_a_word_and_the_session_closed(cluster, auth, message):
    async with wire(cluster[0], json.dumps(auth)) as by_hand:
        refusal = await by_hand.read()
        assert refusal is not None
        assert refusal.startswith("44")
        assert json.loads(refusal[2:])["message"] == message
        packets = [packet async for packet in _rest_of(by_hand)]
        assert packets in ([], ["1"])


async def _rest_of(by_hand):
    while (packet := await by_hand.read()) is not None:
        yield packet


async def test_no_token_at_all_is_refused(cluster):
    async with wire(cluster[0], "") as by_hand:
        assert json.loads((await by_hand.read_until("44"))[2:])["message"] == "unauthorized"


async def test_other_namespaces_are_refused(cluster):
    async with wire(cluster[0], None) as by_hand:
        await by_hand.write("40/admin," + json.dumps({"token": token("anna")}))
        assert await by_hand.read_until("44") == '44/admin,{"message":"Invalid namespace"}'
        async with asyncio.timeout(1):
            assert [packet async for packet in _rest_of(by_hand)] == ["1"]


async def test_another_namespace_does_not_end_the_socket_that_asked_for_it(cluster):
    auth = json.dumps({"token": token(somebody())})
    async with wire(cluster[0], auth) as by_hand:
        await by_hand.read_until("40")
        await by_hand.write("40/admin," + auth)
        await by_hand.read_until("44/admin,")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await by_hand.read()
        await by_hand.write('421["presence:ping",{}]')
        assert await by_hand.read() == '431[{"ok":true}]'


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])
async def test_all_transports_connect(cluster, transports):
    async with ear(cluster[0], somebody(), transports=transports) as socket:
        assert socket.client.connected


async def test_a_token_that_expires_ends_the_socket(cluster):
    user_id = somebody()
    auth = {"token": token(user_id, exp=int(time.time()) + 2)}
    async with ear(cluster[0], user_id, auth=auth) as socket:
        await socket.wait_for("disconnect")
        (told,) = socket.of("error")
        assert told["code"] == "UNAUTHORIZED"


async def test_a_listed_origin_gets_a_socket_and_another_gets_none(cluster):
    async with aiohttp.ClientSession() as session:
        async with session.get(cluster[0].ws + HANDSHAKE, headers={"Origin": ORIGIN}) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert response.headers["Access-Control-Allow-Credentials"] == "true"
            assert response.headers["Vary"] == "Origin"
        async with session.get(cluster[0].ws + HANDSHAKE, headers={"Origin": "https://evil.example"}) as response:
            assert response.status == 403
            assert (await response.json())["code"] == "FORBIDDEN"
            assert not [name for name in response.headers if name.lower().startswith("access-control")]
            assert response.headers["Vary"] == "Origin"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(
                cluster[0].ws + "/socket.io/?EIO=4&transport=websocket", headers={"Origin": "https://evil.example"}
            )


async def test_a_preflight_of_polling_is_answered(cluster):
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    async with (
        aiohttp.ClientSession() as session,
        session.options(cluster[0].ws + HANDSHAKE, headers=headers) as response,
    ):
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


async def test_the_socket_listener_serves_nothing_else(cluster):
    async with aiohttp.ClientSession() as session:
        async with session.get(cluster[0].ws + "/health/ready") as response:
            assert (response.status, await response.read()) == (200, b"")
        for path in ("/", "/api/conversations", "/health/live", "/metrics", "/socket.io"):
            async with session.get(cluster[0].ws + path) as response:
                assert (response.status, (await response.json())["code"]) == (404, "NOT_FOUND"), path
        async with session.get(cluster[0].ws + HANDSHAKE + "&sid=unknown") as response:
            assert (response.status, (await response.json())["code"]) == (400, "VALIDATION_ERROR")
