"""Prometheus metrics: all are defined here; other modules count with one line.

A name means the same in a server and in a webhook worker. Labels take few values, and
never an id of a user or a conversation. What happens for many sockets at once is counted once, for all of them.
"""

import functools
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

__all__ = ["CONTENT_TYPE"]

_M = TypeVar("_M", Counter, Histogram)

disable_created_metrics()  # type: ignore[no-untyped-call]

SERVER, WORKER = CollectorRegistry(), CollectorRegistry()

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Of both processes

DATABASE_UP = Gauge("chat_database_up", "Whether PostgreSQL answers and is up to date.", registry=None)
REDIS_UP = Gauge("chat_redis_up", "Whether Redis takes and delivers what pods publish.", registry=None)
LOOP_FAILURES = Counter(
    "chat_loop_failures", "Unexpected failures of background loops, which start again.", ["loop"], registry=None
)
DATABASE_ERRORS = Counter(
    "chat_database_errors",
    "Calls that PostgreSQL failed, by the class of their SQLSTATE; unknown, or none where it did not answer.",
    ["sqlstate"],
    registry=None,
)
REDIS_ERRORS = Counter(
    "chat_redis_errors",
    "Error replies of Redis by their code, and failures of connections to it.",
    ["kind"],
    registry=None,
)
for _registry in (SERVER, WORKER):
    ProcessCollector(registry=_registry)
    for _metric in (DATABASE_UP, REDIS_UP, LOOP_FAILURES, DATABASE_ERRORS, REDIS_ERRORS):
        _registry.register(_metric)

# Of servers

HTTP_REQUESTS = Counter(
    "chat_http_requests", "REST calls that were answered.", ["method", "route", "status"], registry=SERVER
)
HTTP_REQUEST_SECONDS = Histogram(
    "chat_http_request_seconds",
    "From the head of a REST call to its answer.",
    ["route"],
    registry=SERVER,
    buckets=_QUICK,
)
SOCKET_EVENTS = Counter(
    "chat_socket_events",
    "Events of clients, by how they ended: ok, or the code of the error.",
    ["event", "outcome"],
    registry=SERVER,
)
SOCKETS = Gauge("chat_sockets", "Sockets that are open.", registry=SERVER)
DELIVERIES = Counter("chat_deliveries", "Events sent to sockets, one for each socket.", ["event"], registry=SERVER)
DELIVERY_SECONDS = Histogram(
    "chat_delivery_seconds",
    "From the commit of a change, on whichever pod, until it is written to the sockets of this one.",
    registry=SERVER,
    buckets=_QUICK,
)
GAPS_REPAIRED = Counter(
    "chat_gaps_repaired", "Conversations with events that Redis lost and PostgreSQL had.", registry=SERVER
)
SEND_GROUP_SIZE = Histogram(
    "chat_send_group_size",
    "Messages that were written by one statement.",
    registry=SERVER,
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
SLOW_CONSUMERS = Counter("chat_slow_consumers", "Sockets cut because they did not keep up.", registry=SERVER)
REFUSED = Counter(
    "chat_refused",
    "What was refused or ended for want of room, by kind: connection, rest_connection, anonymous session, socket"
    " past MAX_SOCKETS, body, hop to another pod.",
    ["kind"],
    registry=SERVER,
)
PRESENCE_CHANGES = Counter(
    "chat_presence_changes", "Users who came online or went offline.", ["state"], registry=SERVER
)
RATE_LIMITED = Counter("chat_rate_limited", "What users did too much of.", ["action"], registry=SERVER)
CANARY_SECONDS = Histogram(
    "chat_canary_seconds",
    "How long what this pod sends to itself through Redis takes.",
    registry=SERVER,
    buckets=_QUICK,
)
BUS_UNREADABLE = Counter("chat_bus_unreadable", "Messages of other pods that could not be read.", registry=SERVER)
CANARY_FAILURES = Counter("chat_canary_failures", "What this pod sent to itself and did not get.", registry=SERVER)
WEBHOOK_WORKER_MISSING = Gauge(
    "chat_webhook_worker_missing", "Whether webhooks are due and no worker was seen for a minute.", registry=SERVER
)

# Of webhook workers

WEBHOOK_PENDING = Gauge(
    "chat_webhook_pending", "Webhooks that are not delivered yet, 100,000 at most.", registry=WORKER
)
WEBHOOK_OLDEST_SECONDS = Gauge(
    "chat_webhook_oldest_seconds", "For how long the oldest has been due; 0 where none is.", registry=WORKER
)
WEBHOOK_ATTEMPTS = Counter(
    "chat_webhook_attempts",
    "Attempts to deliver, by how they ended: delivered, the class of the status, or none.",
    ["outcome"],
    registry=WORKER,
)
WEBHOOK_DEAD = Counter("chat_webhook_dead", "Webhooks that were given up.", registry=WORKER)
WEBHOOK_BREAKER_OPEN = Gauge(
    "chat_webhook_breaker_open", "Whether the master is taken for away, and tried once a second.", registry=WORKER
)


@functools.cache
def of(metric: _M, *labels: str) -> _M:
    """Give one series of a metric: the library's own look-up takes longer than all the rest."""
    return metric.labels(*labels)


def exposition(registry: CollectorRegistry) -> bytes:
    """Write what a process knows as Prometheus reads it."""
    return generate_latest(registry)
