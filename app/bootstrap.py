"""The only place where things are built: settings become what a process runs on."""

from dataclasses import dataclass

from app import database
from app.auth.tokens import TokenVerifier
from app.bus import Bus
from app.deps import Deps
from app.fanout import Fanout
from app.health import Health
from app.realtime.packets import event_packet
from app.realtime.server import RealtimeServer
from app.rest.app import RestServer, create_app
from app.settings import Settings
from app.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Pod:
    """Both listeners of one process, and what they share."""

    rest: RestServer
    realtime: RealtimeServer
    health: Health


def build(settings: Settings, supervisor: Supervisor) -> Pod:
    """Build a pod and start its background loops; the database must be open."""
    bus = Bus(settings.redis_url)
    fanout = Fanout(bus, event_packet)
    deps = Deps(settings=settings, tokens=TokenVerifier(settings), fanout=fanout)
    health = Health()
    supervisor.loop("publish", bus.publish_forever)
    supervisor.loop("listen", bus.listen_forever)
    supervisor.loop("admit", fanout.admit_forever, database.AWAY)
    supervisor.loop("repair", fanout.repair_forever, database.AWAY)
    supervisor.loop("look", fanout.look_forever, database.AWAY)
    return Pod(
        rest=RestServer(create_app(deps, health)),
        realtime=RealtimeServer(deps, health, supervisor),
        health=health,
    )
