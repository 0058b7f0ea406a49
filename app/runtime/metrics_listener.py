"""The metrics port: `/metrics`, and health checks of a process that has no other HTTP port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import socket

from aiohttp import web
from prometheus_client import CollectorRegistry

from app.observability import metrics
from app.runtime.health import Health

STOP_TIMEOUT = 1.0


@asynccontextmanager
async def listening(on: socket, registry: CollectorRegistry, health: Health | None = None) -> AsyncIterator[None]:
    """Serve `/metrics`, and health where it is given, for the length of a block."""

    async def measured(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(registry), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def live(_: web.Request) -> web.Response:
        return web.Response()

    async def ready(_: web.Request) -> web.Response:
        return web.Response(status=200 if health is not None and await health.is_ready() else 503)

    app = web.Application()
    app.router.add_get("/metrics", measured)
    if health is not None:
        app.router.add_get("/health/live", live)
        app.router.add_get("/health/ready", ready)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_TIMEOUT)
    await runner.setup()
    try:
        await web.SockSite(runner, on).start()
        yield
    finally:
        await runner.cleanup()
