"""The process of the webhook worker, from its port to its drain.

It imports neither listener: a worker starts in a fraction of a pod's time and memory.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.config.settings import Settings
from app.observability import metrics
from app.postgres import database
from app.postgres.database import Database
from app.redis import connection as redis_connection
from app.redis.pubsub import Bus
from app.runtime.health import Health
from app.runtime.metrics_listener import listening
from app.runtime.ports import bind, stop_signals, tune_garbage_collector
from app.runtime.supervisor import Supervisor, supervised
from app.webhooks import delivery, outbox
from app.webhooks.worker import Worker

_log = logging.getLogger(__name__)


async def work(settings: Settings) -> None:
    """Deliver webhooks until SIGTERM or SIGINT, then finish what is under way."""
    stopping = stop_signals()
    async with database.opened(settings.database_url), working(settings):
        tune_garbage_collector()
        await stopping.wait()
    _log.info("stopped")


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[None]:
    """Deliver webhooks for the length of a block; the database must be open."""
    known = Database(settings.database_url)
    health = Health(known)
    with bind(settings.http_host, settings.worker_port, "WORKER_PORT") as port:
        async with (
            supervised() as supervisor,
            _worker(settings, known, supervisor) as worker,
            listening(port, metrics.WORKER, health),
        ):
            _log.info("delivering webhooks, health and metrics on %d", settings.worker_port)
            try:
                yield
            finally:
                health.draining = True
                await _finish(worker, settings.drain_timeout)


@asynccontextmanager
async def _worker(settings: Settings, known: Database, supervisor: Supervisor) -> AsyncIterator[Worker]:
    """Build the worker and start its loops."""
    bus = Bus(settings.redis_url)
    redis = redis_connection.connect(settings.redis_url)
    with delivery.sender(settings) as sender:
        worker = Worker(settings, sender)
        bus.attach(worker.wake, worker.wake)
        metrics.DATABASE_UP.set_function(lambda: not known.is_away)
        metrics.REDIS_UP.set_function(lambda: bus.is_listening)
        await bus.subscribe([outbox.CHANNEL])
        supervisor.loop("watch", known.watch_forever)
        supervisor.loop("listen", bus.listen_forever)
        supervisor.loop("show", lambda: outbox.show_forever(redis))
        worker.start(supervisor, known)
        yield worker


async def _finish(worker: Worker, within: float) -> None:
    _log.info("finishing what is under way, for %g s at most", within)
    try:
        async with asyncio.timeout(within):
            await worker.drain()
    except database.AWAY as error:
        # What is under way is sent again when its lease has ended.
        _log.warning("not all could be settled in time: %s", str(error) or type(error).__name__)
