"""`python -m benchmarks.tracing`: what traces cost, in the server's processor time for one message by REST."""

import asyncio
import os
import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from benchmarks import machine
from benchmarks.databases import databases
from benchmarks.peers import ChatService, Room, token
from benchmarks.processes import Server, at_rest

# On a disk: a file system in memory would make commits cheap.
FOLDER = Path(".data/benchmarks")
ROUNDS = 7
MESSAGES = 2000
CONNECTIONS = 32
RATIO = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
SIDES: dict[str, Mapping[str, str]] = {
    "off": {"OTEL_SDK_DISABLED": "true"},
    "1 %": {**RATIO, "OTEL_TRACES_SAMPLER_ARG": "0.01"},
    "100 %": {**RATIO, "OTEL_TRACES_SAMPLER_ARG": "1"},
}


@dataclass
class Traced(ChatService):
    """The service, with traces as the environment says."""

    more: Mapping[str, str] = field(default_factory=dict)

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self.more}


@asynccontextmanager
async def _collector() -> AsyncIterator[str]:
    """Take traces and forget them."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _cost(server: Server, rooms: Sequence[Room]) -> float:
    """Give the microseconds of the server's processor for one message, sending what it recorded included."""
    await at_rest([server])
    before = machine.cpu_seconds(server.pid)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session:

        async def post(room: Room) -> None:
            url = f"http://127.0.0.1:{server.http_port}/api/conversations/{room.conversation_id}/messages"
            headers = {"Authorization": f"Bearer {token(room.user_ids[0])}"}
            for _ in range(MESSAGES // CONNECTIONS):
                async with session.post(url, json={"content": "Hello"}, headers=headers) as answer:
                    answer.raise_for_status()

        await asyncio.gather(*(post(room) for room in rooms))
    await at_rest([server])
    return (machine.cpu_seconds(server.pid) - before) * 1e6 / (MESSAGES // CONNECTIONS * CONNECTIONS)


async def _compare() -> None:
    os.sched_setaffinity(0, machine.OTHER_CORES)
    costs: dict[str, list[float]] = {name: [] for name in SIDES}
    with databases(FOLDER) as shared:
        async with AsyncExitStack() as stack:
            endpoint = await stack.enter_async_context(_collector())
            running: dict[str, tuple[Server, list[Room]]] = {}
            for name, more in SIDES.items():
                env = {**more, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
                peer = Traced(f"traces {name}", shared, more=env)
                await peer.prepare()
                server = await peer.start()
                stack.push_async_callback(server.stop)
                members = [[f"{room}-a", f"{room}-b"] for room in range(CONNECTIONS)]
                running[name] = server, await peer.make_rooms(server, members)
                await _cost(*running[name])
            for _ in range(ROUNDS):
                for name, side in running.items():
                    costs[name].append(await _cost(*side))
    off = costs["off"]
    for name, found in costs.items():
        ratio = statistics.median(one / base for one, base in zip(found, off, strict=True))
        print(f"traces {name:>5}: {statistics.median(found):6.0f} µs of processor a message, {ratio:.2f} of off")


if __name__ == "__main__":
    asyncio.run(_compare())
