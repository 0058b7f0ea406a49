"""A pod that goes: its sockets are closed side by side, since each waits for what is told of it."""

import asyncio
from types import SimpleNamespace

from app.realtime.server import RealtimeServer
from app.runtime.connections import Connections

SOCKETS = 50


class Session:
    """One whose end is told only once all the others' are."""

    def __init__(self, told: asyncio.Barrier) -> None:
        self.told = told
        self.is_closed = False

    async def close(self) -> None:
        await self.told.wait()
        self.is_closed = True


def server_with(sessions):
    made = object.__new__(RealtimeServer)
    made._deps = SimpleNamespace(settings=SimpleNamespace(drain_timeout=0.1))
    made._io = SimpleNamespace(
        eio=SimpleNamespace(sockets=dict(enumerate(sessions))),
        namespace=SimpleNamespace(
            sockets={number: SimpleNamespace(link=one) for number, one in enumerate(sessions)}
        ),
    )
    made._server, made._connections = None, Connections(lambda: 0)
    made._foreign = Session(asyncio.Barrier(1))
    return made


async def test_no_socket_waits_for_the_end_of_another_when_they_move_to_other_pods():
    told = asyncio.Barrier(SOCKETS)
    sessions = [Session(told) for _ in range(SOCKETS)]
    async with asyncio.timeout(20):
        await server_with(sessions).drain()
    assert all(session.is_closed for session in sessions)


async def test_no_socket_waits_for_the_end_of_another_when_all_that_are_left_end():
    told = asyncio.Barrier(SOCKETS)
    sessions = [Session(told) for _ in range(SOCKETS)]
    server = server_with(sessions)
    async with asyncio.timeout(20):
        await server.stop()
    assert all(session.is_closed for session in sessions)
    assert server._foreign.is_closed
