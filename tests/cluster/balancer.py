"""A load balancer without stickiness: each connection goes to the next pod that takes it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from proxy import carry, close, proxied


@dataclass(frozen=True)
class Balancer:
    """Where it listens."""

    ws: str


@asynccontextmanager
async def balanced(ports: list[int]) -> AsyncIterator[Balancer]:
    """Balance between ports for the length of a block."""
    turn = itertools.cycle(ports)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in ports:
            try:
                from_pod, to_pod = await asyncio.open_connection("127.0.0.1", next(turn))
                break
            except OSError:
                continue
        else:
            return
        try:
            await asyncio.gather(carry(reader, to_pod), carry(from_pod, writer))
        finally:
            await close(to_pod)

    async with proxied(serve) as port:
        yield Balancer(f"http://127.0.0.1:{port}")
