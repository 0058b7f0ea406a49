"""The only place where things are built: settings become what a process runs on."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from app.config.settings import Settings
from app.delivery.fanout import Fanout
from app.delivery.receipts import Receipts
from app.delivery.typing import LocalTypists
from app.identity import revocation
from app.identity.rate_limits import RateLimits
from app.identity.tokens import TokenVerifier
from app.messages.send_queue import SendQueue
from app.messages.writer import Writer
from app.observability import metrics
from app.postgres import database
from app.postgres.database import Database
from app.presence.presence import Presence
from app.realtime.engineio.engine import MAX_MESSAGE_BYTES
from app.realtime.http.capacity import Capacity
from app.realtime.http.forwarding import SessionForwarding
from app.realtime.http.session_ids import SessionIds
from app.realtime.server import RealtimeServer
from app.realtime.socketio.packets import event_frame
from app.redis import connection as redis_connection
from app.redis.addresses import Addresses
from app.redis.pubsub import PubSub
from app.rest.app import RestServer, create_app
from app.runtime import ports
from app.runtime.health import Health
from app.runtime.supervisor import Supervisor
from app.usecases import background_jobs, conversations, presence, presence_audit
from app.usecases.deps import Deps
from app.usecases.presence_announcer import Announcer
from app.webhooks.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Pod:
    """Both listeners of one process, and what they share."""

    rest: RestServer
    realtime: RealtimeServer
    health: Health
    database: Database
    presence: Presence


def build(settings: Settings, supervisor: Supervisor) -> Pod:
    """Build a pod and start its background loops; the database must be open."""
    fanout = Fanout(partial(PubSub, settings.redis_url), event_frame, conversations.invitation)
    redis = redis_connection.connect(settings.redis_url)
    deps = Deps(
        settings=settings,
        database=Database(settings.database_url),
        tokens=TokenVerifier(settings),
        fanout=fanout,
        outbox=Outbox(settings, fanout.pubsub),
        send_queue=SendQueue(Writer(settings), supervisor),
        limits=RateLimits(redis, settings),
        presence=Presence(redis, settings.max_sockets_per_user),
        receipts=Receipts(redis, fanout, supervisor),
        typists=LocalTypists(fanout.publish_to_room),
        is_refused=revocation.batched(),
    )
    health = Health(deps.database)
    session_ids = SessionIds(uuid4().hex[:12], settings.internal_api_secret)
    addresses = Addresses(redis, settings)
    files = ports.open_files()
    capacity = Capacity.of(settings.max_sockets, files)
    max_answer_bytes = settings.max_unsent_bytes + MAX_MESSAGE_BYTES
    foreign = SessionForwarding(addresses, session_ids, supervisor, capacity, max_answer_bytes)

    def in_database(name: str, work: Callable[[], Awaitable[None]]) -> None:
        supervisor.loop(name, lambda: deps.database.when_there(work), database.AWAY)

    metrics.DATABASE_UP.set_function(lambda: not deps.database.is_away)
    metrics.REDIS_UP.set_function(lambda: fanout.pubsub.is_up)
    supervisor.loop("address", lambda: addresses.announce_forever(session_ids.pod))
    supervisor.loop("watch", deps.database.watch_forever)
    supervisor.loop("verify", lambda: fanout.repair.verify_forever(deps.database.returned), database.AWAY)
    supervisor.loop("send queue", deps.send_queue.run_forever)
    supervisor.loop("publish", fanout.pubsub.publish_forever)
    supervisor.loop("listen", fanout.pubsub.listen_forever)
    supervisor.loop("admit", fanout.invitations.admit_forever, database.AWAY)
    supervisor.loop("canary", fanout.canary.send_forever)
    supervisor.loop("sweep", fanout.subscriptions.sweep_forever)
    supervisor.loop("fill", fanout.repair.fill_forever, database.AWAY)
    in_database("look", fanout.repair.look_forever)
    supervisor.loop("beat", lambda: presence.beat_forever(deps))
    supervisor.loop("settle", lambda: presence.settle_forever(deps))
    announcer = Announcer(deps)
    in_database("announce", announcer.announce_forever)
    in_database("announce widely", announcer.announce_widely_forever)
    in_database("clean", lambda: background_jobs.clean_forever(deps))
    if deps.outbox.is_on:
        in_database("audit presence", lambda: presence_audit.audit_forever(deps))
        in_database("look for worker", lambda: deps.outbox.look_for_worker_forever(redis))
    in_database("background jobs", lambda: background_jobs.work_forever(deps))
    return Pod(
        rest=RestServer(create_app(deps, health, ports.rest_connections(files))),
        realtime=RealtimeServer(deps, health, supervisor, foreign, session_ids, capacity),
        health=health,
        database=deps.database,
        presence=deps.presence,
    )
