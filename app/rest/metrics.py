"""`GET /metrics` of the REST listener, and the metrics of each call."""

import functools
import re
import time

from prometheus_client import Counter, Histogram
from sanic import Blueprint, HTTPResponse, Request
from sanic.response import BaseHTTPResponse

from app.observability import metrics, tracing
from app.rest.endpoint import METHODS, endpoint

# What is no route of ours, or no method of HTTP that we know.
UNKNOWN = "unknown"
COUNTED = {*METHODS, "OPTIONS"}

blueprint = Blueprint("metrics")


@blueprint.get("/metrics")
@endpoint(needs_database=False, answers={200: "text/plain"})
async def read_metrics(_: Request) -> HTTPResponse:
    """Tell what this process counts and measures, for Prometheus.

    With `METRICS_PORT` the metrics are there and not here.
    """
    return HTTPResponse(metrics.exposition(metrics.SERVER), content_type=metrics.CONTENT_TYPE)


def count(request: Request, started: float, response: BaseHTTPResponse) -> None:
    """Count a call that is about to be answered, and name its span: by its route and never by its path."""
    method = request.method if request.method in COUNTED else UNKNOWN
    status = response.status
    calls, seconds, route = _series(method, None if request.route is None else request.route.path, status)
    calls.inc()
    seconds.observe(time.perf_counter() - started)
    tracing.describe(
        f"{method} {route}",
        is_failure=status >= 500,
        http__request__method=method,
        http__route=route,
        http__response__status_code=status,
    )


@functools.cache
def _series(method: str, path: str | None, status: int) -> tuple[Counter, Histogram, str]:
    """Give what counts and measures the calls of a route, and its name."""
    route = UNKNOWN if path is None else "/" + re.sub(r"<(\w+):\w+>", r"{\1}", path)
    calls = metrics.of(metrics.HTTP_REQUESTS, method, route, str(status))
    return calls, metrics.of(metrics.HTTP_REQUEST_SECONDS, route), route
