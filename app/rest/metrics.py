"""`/metrics`, where it has no port of its own, and what is counted of every call."""

import functools
import re
import time

from sanic import Blueprint, HTTPResponse, Request
from sanic.response import BaseHTTPResponse

from app import metrics, tracing
from app.rest.operations import METHODS, endpoint

# What is no route of ours, or no method of HTTP that we know.
UNKNOWN = "unknown"

blueprint = Blueprint("metrics")


@blueprint.get("/metrics")
@endpoint(needs_database=False, answers={200: "text/plain"})
async def read_metrics(_: Request) -> HTTPResponse:
    """Tell what this process counts and measures, for Prometheus.

    With `METRICS_PORT` it is told there and not here.
    """
    return HTTPResponse(metrics.exposition(metrics.SERVER), content_type=metrics.CONTENT_TYPE)


def count(request: Request, started: float, response: BaseHTTPResponse) -> None:
    """Count a call that is about to be answered, and name its span: by its route and never by its path."""
    route = UNKNOWN if request.route is None else _pattern(request.route.path)
    method = request.method if request.method in (*METHODS, "OPTIONS") else UNKNOWN
    metrics.of(metrics.HTTP_REQUESTS, method, route, str(response.status)).inc()
    metrics.of(metrics.HTTP_REQUEST_SECONDS, route).observe(time.perf_counter() - started)
    tracing.describe(
        f"{method} {route}",
        is_failure=response.status >= 500,
        http__request__method=method,
        http__route=route,
        http__response__status_code=response.status,
    )


@functools.cache
def _pattern(path: str) -> str:
    return "/" + re.sub(r"<(\w+):\w+>", r"{\1}", path)
