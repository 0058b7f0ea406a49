"""Redis is there and refuses, or its connections end or hang: messages go on, and nothing is logged per call."""

import asyncio
import os
import signal
import tempfile
from itertools import cycle, repeat
from pathlib import Path

import pytest
from clients import Master, Rest, ear, somebody, token
from pods import INTERNAL_SECRET, pods, until
from refusing import refusing
from scraping import series

from app.dev.valkey import start_valkey

# What one trouble may write to the log of a pod, however much is done meanwhile.
MOST_LINES = 25
WITHIN = 10
REPLIES = {
    "ASK": "ASK 1234 127.0.0.1:7001",
    "BUSY": "BUSY Redis is busy running a script.",
    "CLUSTERDOWN": "CLUSTERDOWN The cluster is down",
    "LOADING": "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "MISCONF": "MISCONF Redis is configured to save RDB snapshots, but it is unable to persist to disk.",
    "MOVED": "MOVED 1234 127.0.0.1:7001",
    "NOAUTH": "NOAUTH Authentication required.",
    "NOPERM": "NOPERM this user has no permissions to run the command",
    "NOREPLICAS": "NOREPLICAS Not enough good replicas to write.",
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY": "READONLY You can't write against a read only replica.",
    "TRYAGAIN": "TRYAGAIN Multiple keys request during rehashing of slot",
    "WRONGPASS": "WRONGPASS invalid username-password pair or user is disabled.",
    "other": "UPSTREAM the proxy has nowhere to go",
}
WRITES = ("EVALSHA", "EVAL", "SET", "ZADD", "HSET", "ZREM", "HDEL")


@pytest.fixture(scope="module")
async def behind(servers, tmp_path_factory):
    """Run two pods with limits behind a proxy that may refuse."""
    with tempfile.TemporaryDirectory() as name:
        valkey = start_valkey(Path(name))
        try:
            async with refusing(valkey.url) as proxy:
                env = {**servers.environment(RATE_LIMIT_SEND="1000/s,1000"), "REDIS_URL": proxy.url}
                async with pods(env, tmp_path_factory.mktemp("behind"), 2) as started:
                    yield proxy, started, valkey
        finally:
            valkey.stop()


@pytest.fixture
async def trouble(behind, http):
    """Give a proxy and pods that Redis serves well; check what they have logged meanwhile."""
    proxy, started, _ = behind
    await are_up(http, started)
    before = [len(lines(pod)) for pod in started]
    try:
        yield proxy, started
    finally:
        proxy.allow()
    await are_up(http, started)
    for pod, count in zip(started, before, strict=True):
        logged = lines(pod)[count:]
        assert [line for line in logged if '"level":"ERROR"' in line] == []
        assert len(logged) <= MOST_LINES, "\n".join(logged)


def lines(pod):
    return pod.log.read_text().splitlines()


async def are_up(http, started):
    async def is_up():
        found = [await series(http, pod.http) for pod in started]
        return all(one["chat_redis_up",] == 1 for one in found)

    await until(is_up, "Redis is there for all pods")


async def all_goes_on(http, started):
    """Check what must hold while Redis is of no use."""
    here, there = started
    anna, ben = (Rest(http, pod.http, name := somebody(), token(name)) for pod in started)
    room = await anna.direct(ben.user_id)
    async with asyncio.timeout(WITHIN), ear(here, anna.user_id) as near, ear(there, ben.user_id) as far:
        acknowledged = await near.call("message:send", {"conversationId": room, "content": "over a socket"})
        assert acknowledged["ok"], acknowledged
        message = await ben.say(room, "over REST")
        for listener in (near, far):
            await listener.wait_for("message:new", 2)
            assert [one["seq"] for one in listener.of("message:new")] == [1, 2]
        calls = (
            anna.get(f"/api/conversations/{room}/presence"),
            anna.put(f"/api/messages/{message['id']}/read"),
            anna.get("/api/conversations"),
            anna.post("/api/conversations", {"type": "group", "participantIds": [ben.user_id]}),
            Master(http, there.http, "master", INTERNAL_SECRET).get("/api/admin/stats"),
            anna.get("/health/ready"),
        )
        assert {answer.status for answer in await asyncio.gather(*calls)} <= {200, 201}
        assert (await near.call("presence:ping"))["ok"]
        assert (await near.call("presence:get", {"userIds": [ben.user_id]}))["ok"]
        assert (await near.call("typing:start", {"conversationId": room}))["ok"]
        # Far more calls than there may be lines in the log.
        for _ in range(2 * MOST_LINES):
            assert (await anna.put(f"/api/messages/{message['id']}/read")).status == 200


async def test_redis_that_refuses_everything_each_time_for_another_reason_stops_no_message(trouble, http):
    proxy, started = trouble
    proxy.refuse(cycle(REPLIES.values()))
    proxy.cut()
    await all_goes_on(http, started)
    for pod in started:
        found = await series(http, pod.http)
        assert sum(found.get(("chat_redis_errors_total", code), 0) > 0 for code in REPLIES) > 3


@pytest.mark.parametrize("code", ["LOADING", "NOAUTH", "MOVED"])
async def test_redis_that_refuses_everything_stops_no_message(trouble, http, code):
    proxy, started = trouble
    proxy.refuse(repeat(REPLIES[code]))
    proxy.cut()
    await all_goes_on(http, started)
    for pod in started:
        assert (await series(http, pod.http))["chat_redis_errors_total", code] > 0


async def test_redis_that_takes_no_writes_any_more_stops_no_message(trouble, http):
    proxy, started = trouble
    proxy.refuse(cycle([REPLIES[code] for code in ("READONLY", "OOM", "MISCONF", "NOREPLICAS")]), *WRITES)
    await all_goes_on(http, started)


@pytest.mark.parametrize("command", ["PUBLISH", "SUBSCRIBE", "EVALSHA"])
async def test_a_command_that_is_not_permitted_stops_no_message_and_makes_no_storm(trouble, http, command):
    proxy, started = trouble
    proxy.refuse(repeat(REPLIES["NOPERM"]), command)
    proxy.connections = 0
    proxy.cut()
    await all_goes_on(http, started)
    # Two pods have three connections each, and renew them within seconds.
    assert proxy.connections < 60


async def test_connections_that_are_reset_at_once_stop_no_message_and_make_no_storm(trouble, http):
    proxy, started = trouble
    proxy.resets = True
    proxy.connections = 0
    proxy.cut()
    await all_goes_on(http, started)
    assert 0 < proxy.connections < 200


async def test_connections_that_stay_silent_from_their_start_stop_no_message(trouble, http):
    proxy, started = trouble
    proxy.is_silent = True
    proxy.cut()
    await all_goes_on(http, started)


async def test_redis_that_hangs_stops_no_message(behind, trouble, http):
    valkey = behind[2]
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        await all_goes_on(http, trouble[1])
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
