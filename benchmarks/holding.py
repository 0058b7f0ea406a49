"""`python -m benchmarks.holding`: what a hundred conversations notice while somebody holds the row of another one.

In every second round a transaction locks the head of one conversation for as long as is measured, as somebody with
`psql` might. Its own sender waits; the 99th percentile of all answers is compared with the other rounds.
"""

import asyncio
import os
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from app.contract import ids
from benchmarks import machine
from benchmarks.databases import connected, databases
from benchmarks.load import Client, Load, LoadError
from benchmarks.peers import ChatService, Room, token
from benchmarks.processes import at_rest

# On a disk: a file system in memory would make commits cheap.
FOLDER = Path(".data/benchmarks")
ROUNDS = 6
OTHERS = 100
WARM_UP = 1.0
# Less than the service lets a statement wait.
HELD_SECONDS = 3.0

HOLD = "SELECT 1 FROM conversation_heads WHERE conversation_id = $1 FOR UPDATE"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@asynccontextmanager
async def _held(url: str, room: Room) -> AsyncIterator[None]:
    """Hold a conversation from the end of the warming up for as long as is measured; raises LoadError."""

    async def hold() -> None:
        await asyncio.sleep(WARM_UP)
        async with connected(url) as connection, connection.transaction():
            await connection.execute(HOLD, ids.from_wire(ids.CONVERSATION, room.conversation_id))
            await asyncio.sleep(HELD_SECONDS)
            if not await connection.fetchval(WAITING):
                raise LoadError("Nobody waited for the row that was held")

    async with asyncio.TaskGroup() as group:
        group.create_task(hold())
        yield


async def _compare() -> None:
    os.sched_setaffinity(0, machine.OTHER_CORES)
    p99: dict[bool, list[float]] = {False: [], True: []}
    with databases(FOLDER) as shared:
        load = Load(FOLDER)
        load.build()
        peer = ChatService("holding", shared)
        await peer.prepare()
        server = await peer.start()
        try:
            rooms = await peer.make_rooms(server, [[f"{room}-a", f"{room}-b"] for room in range(OTHERS + 1)])
            clients = [
                Client(server.ws_port, token(user_id), room.conversation_id)
                for room in rooms
                for user_id in room.user_ids
            ]
            for number in range(2 * ROUNDS):
                is_held = number % 2 == 1
                await at_rest([server])
                async with _held(peer.url, rooms[0]) if is_held else nullcontext():
                    measured = await load.run(
                        "rooms", clients, [server], warm_up=WARM_UP, seconds=HELD_SECONDS, sender_every=2
                    )
                p99[is_held].append(measured["p99_ms"])
        finally:
            await server.stop()
    ratio = statistics.median(held / free for free, held in zip(p99[False], p99[True], strict=True))
    print(f"p99 of all answers: {statistics.median(p99[False]):.1f} ms")
    print(f"p99 while one of {OTHERS + 1} is held: {statistics.median(p99[True]):.1f} ms, {ratio:.2f} of that")


if __name__ == "__main__":
    asyncio.run(_compare())
