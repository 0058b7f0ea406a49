"""What one socket says in short bursts is stored and acknowledged in the order in which it was said."""

import asyncio
import json
import random

from clients import token, wire

SOCKETS = 12
BURSTS = 120
# Between two bursts, in seconds: about what a statement takes.
MOST_PAUSE = 0.003


async def talk(pod, user_id: str, room: str, chance: random.Random) -> int:
    """Say numbers in a room over one socket, without waiting for answers; gives how many."""
    async with wire(pod, json.dumps({"token": token(user_id)})) as said:
        await said.read_until("40")
        number = 0
        for _ in range(BURSTS):
            for _ in range(chance.randint(1, 3)):
                payload = json.dumps(["message:send", {"conversationId": room, "content": f"{number}"}])
                await said.write(f"42{number}{payload}")
                number += 1
            await asyncio.sleep(chance.uniform(0, MOST_PAUSE))
        # The client may have been told of some already.
        for expected in range(number):
            answer = await said.read_until("43")
            assert answer.startswith(f'43{expected}[{{"ok":true'), answer
    return number


async def test_bursts_a_moment_apart_are_stored_and_acknowledged_in_order(user, cluster, sql):
    chance = random.Random(7)
    people = [user("anna") for _ in range(SOCKETS)]
    rooms = [await anna.group() for anna in people]
    counts = await asyncio.gather(
        *(
            talk(cluster[0], anna.user_id, room, random.Random(chance.random()))
            for anna, room in zip(people, rooms, strict=True)
        )
    )
    for room, count in zip(rooms, counts, strict=True):
        stored = await sql.fetch(
            "SELECT content FROM messages WHERE conversation_id = $1::text::uuid ORDER BY seq",
            room.removeprefix("conv_"),
        )
        assert [row["content"] for row in stored] == [f"{number}" for number in range(count)]
