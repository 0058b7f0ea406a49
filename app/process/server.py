"""The server process: both listeners in one event loop, from start to drain."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from app.config.settings import Settings
from app.observability import metrics
from app.postgres import database
from app.process import wiring
from app.runtime.metrics_listener import listening
from app.runtime.ports import bind, stop_signals, tune_garbage_collector
from app.runtime.supervisor import supervised

_log = logging.getLogger(__name__)


async def serve(
    settings: Settings,
    beside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    stopping: asyncio.Event | None = None,
) -> None:
    """Serve until `stopping` or else SIGTERM or SIGINT, then drain; `beside` runs from when both ports serve."""
    if stopping is None:
        stopping = stop_signals()
    with (
        bind(settings.http_host, settings.http_port, "HTTP_PORT") as http,
        bind(settings.ws_host, settings.ws_port, "WS_PORT") as ws,
    ):
        async with (
            _measured(settings),
            database.opened(settings.database_url),
            supervised() as supervisor,
        ):
            pod = wiring.build(settings, supervisor)
            await pod.rest.start(http)
            await pod.realtime.start(ws)
            _log.info("serving REST on %d and Socket.IO on %d", settings.http_port, settings.ws_port)
            try:
                await pod.database.first_look()
                tune_garbage_collector()
                async with beside():
                    await stopping.wait()
            finally:
                await _drain(pod, settings.drain_timeout)
    _log.info("stopped")


@asynccontextmanager
async def _measured(settings: Settings) -> AsyncIterator[None]:
    """Serve the metrics on METRICS_PORT for the length of a block, where that is set."""
    if settings.metrics_port is None:
        yield
        return
    with bind(settings.http_host, settings.metrics_port, "METRICS_PORT") as port:
        async with listening(port, metrics.SERVER):
            yield


async def _drain(pod: wiring.Pod, within: float) -> None:
    """Not ready first, then no new sockets, then every client moves over, all `within` so many seconds."""
    _log.info("draining for %g s at most", within)
    pod.health.draining = True
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    try:
        async with asyncio.timeout_at(end):
            await pod.realtime.drain()
    except TimeoutError:
        _log.warning("the drain did not finish in time")
    # Last, so that /health/ready answers 503 while clients move; and in any case: requests that are left when the
    # loop ends would be answered as failures.
    await pod.rest.stop(end)
    await pod.realtime.stop()
    await pod.presence.hand_back()
