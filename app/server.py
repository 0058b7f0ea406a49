"""One process, from the ports to the drain: both listeners in one loop, or the webhook worker."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from app import bootstrap, database, metrics
from app.listener import listening
from app.settings import Settings
from app.supervisor import supervised

# What a shell shows of a process that Ctrl-C has ended.
EXIT_IMPATIENT = 130

_log = logging.getLogger(__name__)


class PortInUseError(Exception):
    """A port cannot be had; the message says which, and which setting names it."""


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Take a port; raises PortInUseError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        # Only listening claims a port: as many as like may be bound to it.
        listening.listen()
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise PortInUseError(
            f"Cannot listen on {host}:{port}: {reason}. Set {setting} to another port, or stop what uses this one."
        ) from error
    listening.setblocking(False)
    return listening


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
            pod = bootstrap.build(settings, supervisor)
            await pod.rest.start(http)
            await pod.realtime.start(ws)
            _log.info("serving REST on %d and Socket.IO on %d", settings.http_port, settings.ws_port)
            try:
                await pod.database.first_look()
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


async def work(settings: Settings) -> None:
    """Deliver webhooks until SIGTERM or SIGINT, then finish what is under way."""
    stopping = stop_signals()
    async with database.opened(settings.database_url), working(settings):
        await stopping.wait()
    _log.info("stopped")


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[None]:
    """Deliver webhooks for the length of a block; the database must be open."""
    with bind(settings.http_host, settings.worker_port, "WORKER_PORT") as port:
        async with (
            supervised() as supervisor,
            bootstrap.build_worker(settings, supervisor) as pod,
            listening(port, metrics.WORKER, pod.health),
        ):
            _log.info("delivering webhooks, health and metrics on %d", settings.worker_port)
            try:
                yield
            finally:
                await _finish(pod, settings.drain_timeout)


async def _finish(pod: bootstrap.WorkerPod, within: float) -> None:
    _log.info("finishing what is under way, for %g s at most", within)
    pod.health.draining = True
    try:
        async with asyncio.timeout(within):
            await pod.worker.drain()
    except database.AWAY as error:
        # What is under way is sent again when its lease has ended.
        _log.warning("not all could be settled in time: %s", str(error) or type(error).__name__)


async def _drain(pod: bootstrap.Pod, within: float) -> None:
    """Not ready first, then no new sockets, then every client moves over, all `within` so many seconds."""
    _log.info("draining for %g s at most", within)
    pod.health.draining = True
    try:
        async with asyncio.timeout(within):
            await pod.realtime.drain()
            # Last, so that /health/ready says 503 for as long as there is something to move.
            await pod.rest.stop(within)
    except TimeoutError:
        _log.warning("the drain did not finish in time")
    await pod.realtime.stop()
    await pod.presence.hand_back()


def stop_signals() -> asyncio.Event:
    """Give the event that the first SIGTERM or SIGINT sets; the second one ends the process at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os._exit(EXIT_IMPATIENT)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping
