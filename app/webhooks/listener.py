"""What the worker serves on WORKER_PORT: its health."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import socket

from aiohttp import web

from app.health import Health

STOP_TIMEOUT = 1.0


@asynccontextmanager
async def listening(on: socket, health: Health) -> AsyncIterator[None]:
    """Serve for the length of a block."""

    async def live(_: web.Request) -> web.Response:
        return web.Response()

    async def ready(_: web.Request) -> web.Response:
        return web.Response(status=200 if await health.is_ready() else 503)

    app = web.Application()
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_TIMEOUT)
    await runner.setup()
    try:
        await web.SockSite(runner, on).start()
        yield
    finally:
        await runner.cleanup()
