"""Behind a load balancer without stickiness, and with more sockets than there may be."""

import json
import signal

import aiohttp
from balancer import balanced
from clients import ear, somebody, token, wire
from pods import pods, until

POLLING = "/socket.io/?EIO=4&transport=polling"


async def test_polling_and_upgrades_work_behind_a_balancer_that_turns_round(user, cluster):
    anna, ben = user("anna"), user("ben")
    room = await anna.direct(ben.user_id)
    async with balanced([pod.ws_port for pod in cluster]) as balancer:
        for transports in (["polling"], ["polling", "websocket"], ["websocket"]):
            for _ in range(10):
                async with ear(balancer, ben.user_id, transports=transports) as socket:
                    answer = await socket.call("message:send", {"conversationId": room, "content": "through"})
                    assert answer["ok"] is True
                    assert await socket.wait_for("message:new") == [answer["message"]]
                    assert socket.client.transport() == transports[-1]


async def test_a_session_of_a_pod_that_is_gone_or_that_nobody_made_is_400(servers, tmp_path, cluster):
    async with pods(servers.environment(), tmp_path, 1) as (doomed,), aiohttp.ClientSession() as http:
        async with http.get(doomed.ws + POLLING) as response:
            session_id = json.loads((await response.text())[1:])["sid"]
        # Known to the others, and passed on.
        async with http.post(cluster[0].ws + f"{POLLING}&sid={session_id}", data="40") as response:
            assert response.status == 200
        doomed.signal(signal.SIGKILL)
        await doomed.exit_code()
        made_up = session_id[:-1] + ("0" if session_id[-1] != "0" else "1")
        for wrong in (session_id, made_up, "x", "a.b.c"):
            async with http.get(cluster[0].ws + f"{POLLING}&sid={wrong}") as response:
                assert (response.status, (await response.json())["code"]) == (400, "VALIDATION_ERROR"), wrong


async def test_a_request_is_passed_on_once(cluster):
    async with aiohttp.ClientSession() as http:
        async with http.get(cluster[0].ws + POLLING) as response:
            session_id = json.loads((await response.text())[1:])["sid"]
        url = cluster[1].ws + f"{POLLING}&sid={session_id}"
        async with http.post(url, data="40", headers={"X-Chat-Hop": "1"}) as response:
            assert response.status == 400


async def test_the_oldest_socket_of_too_many_goes_on_whichever_pod(servers, tmp_path):
    async with pods(servers.environment(MAX_SOCKETS_PER_USER="2"), tmp_path, 2) as (one, two):
        user_id = somebody()
        async with ear(one, user_id) as oldest, ear(two, user_id) as second, ear(two, user_id) as third:
            await oldest.wait_for("disconnect")
            (told,) = oldest.of("error")
            assert told["code"] == "CONFLICT"
            assert await second.call("presence:ping", {}) == {"ok": True}
            assert await third.call("presence:ping", {}) == {"ok": True}


async def test_a_full_pod_takes_no_new_sockets(servers, tmp_path):
    async with pods(servers.environment(MAX_SOCKETS="1"), tmp_path, 1) as (pod,), aiohttp.ClientSession() as http:
        async with ear(pod, somebody()), http.get(pod.ws + POLLING) as response:
            assert (response.status, (await response.json())["code"]) == (503, "SERVICE_UNAVAILABLE")

        async def has_room():
            async with http.get(pod.ws + POLLING) as response:
                return response.status == 200

        await until(has_room, "room for a socket")


async def test_a_connection_without_a_connect_is_closed(cluster):
    async with wire(cluster[0], None) as by_hand:
        packets = []
        while (packet := await by_hand.read()) is not None:
            packets.append(packet)
        assert packets in ([], ["1"])


async def test_too_many_connects_close_the_transport_and_refuse_nobody(servers, tmp_path):
    async with pods(servers.environment(RATE_LIMIT_CONNECT="1/h,2"), tmp_path, 1) as (pod,):
        auth = json.dumps({"token": token(somebody())})
        for expected in ("40", "40", None):
            async with wire(pod, auth) as by_hand:
                answer = await by_hand.read()
                assert answer is None or answer.startswith(expected or "1")
