"""How much one user may do: counted over all pods, or by each of them while Redis is away."""

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from clients import Rest, ear, somebody, token
from pods import environment, pods

from app.dev.valkey import start_valkey

BURST = 6
LIMITS = {f"RATE_LIMIT_{action}": f"6/m,{BURST}" for action in ("SEND", "READ", "CREATE")}
LIMITS["RATE_LIMIT_WRITE"] = "5/s,2"


@pytest.fixture(scope="module")
async def limited(servers, tmp_path_factory):
    """Run two pods with small limits."""
    async with pods(servers.environment(**LIMITS), tmp_path_factory.mktemp("limited"), 2) as started:
        yield started
        assert [line for pod in started for line in pod.errors()] == []


def person(http, pod):
    user_id = somebody()
    return Rest(http, pod.http, user_id, token(user_id))


def told(answer):
    """Check what one too many is told; gives the milliseconds to wait."""
    assert (answer.status, answer.json["code"]) == (429, "RATE_LIMITED")
    wait = answer.json["details"]["retryAfterMs"]
    seconds = int(answer.headers["Retry-After"])
    assert 0 < wait <= seconds * 1000 < wait + 1000
    assert f"{seconds} s" in answer.json["message"]
    return wait


def spare(*started):
    """Give how much more may have gone through: pods that waited too long for a slow Redis counted alone."""
    return BURST * sum("limits count per pod" in pod.log.read_text() for pod in started)


async def exhausted(call):
    """Call until it is one too many."""
    for _ in range(3 * BURST):
        if (answer := await call()).status == 429:
            break
    return answer


async def test_each_kind_of_action_has_a_limit_over_both_pods(limited, http):
    here, there = limited
    anna, ben = person(http, here), person(http, here)
    elsewhere = anna.at(there)
    room = await anna.direct(ben.user_id)
    message = await anna.say(room, "x")
    conversation, group = f"/api/conversations/{room}", {"type": "group", "participantIds": []}
    for left, call in (
        (BURST - 1, lambda who: who.post(f"{conversation}/messages", {"content": "x"})),
        (BURST - 1, lambda who: who.post("/api/conversations", group)),
        (BURST, lambda who: who.get(f"{conversation}/messages")),
    ):
        answers = [await call((anna, elsewhere)[n % 2]) for n in range(12)]
        over = [answer for answer in answers if answer.status == 429]
        assert 12 - left - spare(here, there) <= len(over) <= 12 - left, Counter(one.status for one in answers)
        # A place is free every 10 s.
        assert all(0 < told(answer) <= 10_000 for answer in over)
    # What is limited together is counted together.
    for call in (
        lambda: anna.get("/api/conversations"),
        lambda: anna.get(conversation),
        lambda: elsewhere.get(f"{conversation}/events"),
        lambda: anna.get(f"{conversation}/presence"),
        lambda: anna.post(f"{conversation}/participants", {"userId": "x"}),
    ):
        told(await exhausted(call))
    for method, path, body in (
        ("PATCH", f"/api/messages/{message['id']}", {"content": "y"}),
        ("POST", f"/api/messages/{message['id']}/reactions", {"emoji": "x"}),
        ("DELETE", f"/api/messages/{message['id']}/reactions/x", None),
        ("PUT", f"/api/messages/{message['id']}/read", None),
        ("PUT", f"{conversation}/read", None),
        ("PATCH", conversation, {"title": "x"}),
        ("DELETE", f"{conversation}/participants/x", None),
        ("DELETE", conversation, None),
        ("DELETE", f"/api/messages/{message['id']}", None),
    ):
        answers = await asyncio.gather(*(anna.call(method, path, json=body) for _ in range(2 * BURST)))
        assert 429 in {answer.status for answer in answers}, (method, path)
    # One noisy user slows nobody else.
    assert (await ben.post(f"{conversation}/messages", {"content": "x"})).status == 201
    assert (await ben.get(conversation)).json["lastMessage"]["senderId"] == ben.user_id


async def test_a_socket_is_told_the_same_and_goes_on(limited, http):
    here, there = limited
    anna = person(http, here)
    room = await anna.group()
    payload = {"conversationId": room, "content": "x"}
    async with ear(there, anna.user_id) as socket:
        first = await socket.call("message:send", payload)
        while (answer := await socket.call("message:send", payload))["ok"]:
            assert answer["message"]["seq"] <= BURST + spare(there)
        error = answer["error"]
        assert error["code"] == "RATE_LIMITED"
        assert 0 < error["details"]["retryAfterMs"] <= 10_000
        (event,) = await socket.wait_for("error")
        assert event == {**error, "event": "message:send"}
        # The limit is the user's, not the wire's.
        told(await exhausted(lambda: anna.post(f"/api/conversations/{room}/messages", {"content": "x"})))
        edit = {"messageId": first["message"]["id"], "content": "y"}
        assert (await socket.call("message:edit", edit))["ok"] is True
        assert socket.client.connected


async def test_a_place_is_free_again_after_the_time_that_was_told(limited, http):
    anna = person(http, limited[0])
    room = await anna.group()
    path = f"/api/conversations/{room}"
    answers = await asyncio.gather(*(anna.patch(path, {"title": f"{n}"}) for n in range(2 * BURST)))
    wait = max(told(answer) for answer in answers if answer.status == 429)
    assert wait <= 200
    await asyncio.sleep((wait + 1) / 1000)
    assert (await anna.patch(path, {"title": "again"})).status == 200


@pytest.fixture
def valkey():
    with tempfile.TemporaryDirectory() as folder:
        server = start_valkey(Path(folder))
        yield server
        server.stop()


async def test_while_redis_is_away_each_pod_counts_by_itself(servers, tmp_path, http, valkey):
    env = environment(servers.database_url, valkey.url, **LIMITS)
    async with pods(env, tmp_path, 2) as started:
        anna = person(http, started[0])
        room = await anna.group()
        valkey.stop()
        for pod in started:
            there = anna.at(pod)
            answers = [
                await there.post(f"/api/conversations/{room}/messages", {"content": "x"}) for _ in range(BURST + 2)
            ]
            assert [answer.status for answer in answers] == [201] * BURST + [429] * 2
            assert told(answers[-1]) <= 10_000
            assert pod.errors() == []
