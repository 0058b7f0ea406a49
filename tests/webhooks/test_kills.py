"""Ten thousand messages while pods and workers are killed: nothing is lost, nothing out of order."""

import asyncio
import random
import signal
from collections import defaultdict
from itertools import pairwise

import aiohttp
import pytest
from clients import Rest, somebody, token
from pods import Pod, Worker, until

MESSAGES = 10_000
ROOMS = 40
SENDERS = 10
KILLS = 5
WITHIN = 240.0


@pytest.mark.timeout(500)
async def test_every_committed_message_is_told_in_order_whoever_is_killed(stack, own_servers):
    """How order is judged: the first sight of each webhook is its first attempt, later ones are repeats.

    In a conversation each is first seen after the master was done with the one before, which takes it a moment.
    That holds for an attempt whose worker died as well: the lease lasts longer than the master does.
    """
    async with stack(workers=0) as found:
        found.receiver.behaviour = _take_a_moment
        env = {**own_servers.environment(), **{name: found.env[name] for name in found.env if "WEBHOOK" in name}}
        pods = [Pod(env, found.folder / f"pod-{number}.log") for number in range(2)]
        workers = [Worker(env, found.folder / f"killed-{number}.log") for number in range(2)]
        try:
            for process in (*pods, *workers):
                await process.start()
            anna = Rest(found.http, found.pods[0].http, *_somebody())
            rooms = [await anna.group() for _ in range(ROOMS)]
            said: dict[str, list[int]] = defaultdict(list)
            todo = list(range(MESSAGES))

            async def say():
                while todo:
                    number = todo.pop()
                    room = rooms[number % ROOMS]
                    answer = await _say(anna, pods, room, number)
                    said[room].append(answer["seq"])

            async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as group:
                for _ in range(SENDERS):
                    group.create_task(say())
                group.create_task(_kill(pods[0], todo))
                group.create_task(_kill(workers[0], todo))
            written = "SELECT count(*) FROM messages WHERE sender_id = $1"
            committed = await found.database.fetchval(written, anna.user_id)
            assert committed == MESSAGES
            told = lambda: len({one.id for one in found.receiver.delivered})  # noqa: E731
            async with asyncio.timeout(WITHIN):
                while told() < committed + ROOMS:
                    async with found.receiver.news:
                        await found.receiver.news.wait()
        finally:
            for process in (*pods, *workers):
                await process.kill()
        _judge(found.receiver.received, rooms, said)


def _judge(received, rooms, said):
    """See that first attempts were in order, and that what came twice is the exception."""
    firsts: dict[str, list] = defaultdict(list)
    sights: dict[str, list] = defaultdict(list)
    for one in received:
        if one.id not in sights:
            firsts[one.data["conversationId"]].append(one)
        sights[one.id].append(one)
    assert set(firsts) == set(rooms)
    for room in rooms:
        seqs = [one.data.get("seq", 0) for one in firsts[room]]
        assert seqs == list(range(len(seqs)))
        assert set(said[room]) <= set(seqs)
        for earlier, later in pairwise(firsts[room]):
            assert earlier.answered_at <= later.at
    assert sum(len(seen) > 1 for seen in sights.values()) < MESSAGES / 10


async def _take_a_moment(_):
    await asyncio.sleep(random.uniform(0, 0.01))
    return 200


def _somebody():
    user_id = somebody("anna")
    return user_id, token(user_id)


async def _say(anna, pods, room, number):
    """Send until it is acknowledged, by whichever pod is there."""
    message = {"content": str(number), "clientMessageId": str(number)}
    while True:
        pod = random.choice(pods)
        try:
            async with asyncio.timeout(10):
                answer = await anna.at(pod).post(f"/api/conversations/{room}/messages", message)
        except (aiohttp.ClientError, OSError, TimeoutError):
            await asyncio.sleep(0.1)
            continue
        if answer.status in {200, 201}:
            return answer.json


async def _kill(process, todo):
    """Kill a process again and again while there is something to do, evenly over the time that it takes."""
    for part in range(KILLS):
        left = MESSAGES * (KILLS - part) / (KILLS + 1)

        async def is_time(left=left):
            return len(todo) <= left

        await until(is_time, "the time to kill", WITHIN)
        process.signal(signal.SIGKILL)
        await process.exit_code()
        await process.start()
