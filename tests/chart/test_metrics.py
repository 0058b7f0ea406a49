"""The metrics that alerts and dashboard stand on, asked of processes that run."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from charts import CHART, FULL, render, run, the
from pods import free_port, pods, until

pytestmark = pytest.mark.chart

# Between them the two processes have these, and a name means the same in both.
METRICS = {
    "chat_http_requests_total": "counter",
    "chat_http_request_seconds": "histogram",
    "chat_socket_events_total": "counter",
    "chat_sockets": "gauge",
    "chat_deliveries_total": "counter",
    "chat_delivery_seconds": "histogram",
    "chat_gaps_repaired_total": "counter",
    "chat_send_group_size": "histogram",
    "chat_slow_consumers_total": "counter",
    "chat_presence_changes_total": "counter",
    "chat_rate_limited_total": "counter",
    "chat_canary_seconds": "histogram",
    "chat_canary_failures_total": "counter",
    "chat_database_up": "gauge",
    "chat_redis_up": "gauge",
    "chat_webhook_pending": "gauge",
    "chat_webhook_oldest_seconds": "gauge",
    "chat_webhook_attempts_total": "counter",
    "chat_webhook_dead_total": "counter",
    "chat_webhook_breaker_open": "gauge",
    "chat_webhook_worker_missing": "gauge",
    "chat_loop_failures_total": "counter",
    "chat_database_errors_total": "counter",
}


@asynccontextmanager
async def worker(env: dict[str, str]) -> AsyncIterator[str]:
    """Run a webhook worker; gives its address once it is ready."""
    port = free_port()
    env = {**env, "WORKER_PORT": f"{port}", "WEBHOOK_URL": "http://127.0.0.1:9/hook", "WEBHOOK_SECRET": "s" * 32}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "app", "worker", env=env)
    try:
        async with aiohttp.ClientSession() as session:

            async def ready() -> bool:
                assert process.returncode is None, "the worker has ended"
                try:
                    async with session.get(f"http://127.0.0.1:{port}/health/ready") as answer:
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await until(ready, "/health/ready of the worker", 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.fixture(scope="module")
async def server_metrics(servers, http, tmp_path_factory) -> str:
    port = free_port()
    async with pods(servers.environment(METRICS_PORT=f"{port}"), tmp_path_factory.mktemp("metrics"), 1):
        return await metrics_of(http, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
async def worker_metrics(servers, http) -> str:
    async with worker(servers.environment()) as address:
        return await metrics_of(http, address)


async def metrics_of(http: aiohttp.ClientSession, address: str) -> str:
    async with http.get(f"{address}/metrics") as answer:
        assert answer.status == 200
        return await answer.text()


def lint(metrics: str) -> str:
    return run("promtool", "check", "metrics", given=metrics)


def types_of(metrics: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (chat_\w+) (\w+)$", metrics, re.MULTILINE))


def test_alerts_and_dashboard_look_at_nothing_else():
    rules = str(the(render(FULL), "PrometheusRule", "")["spec"])
    looked_at = set(re.findall(r"\bchat_[a-z_]+", rules + (CHART / "files/dashboard.json").read_text()))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in looked_at}
    assert families == METRICS.keys()


async def test_prometheus_takes_the_metrics_of_a_server(server_metrics):
    assert lint(server_metrics) == ""
    assert types_of(server_metrics).items() <= METRICS.items()


async def test_prometheus_takes_the_metrics_of_a_worker(worker_metrics):
    assert lint(worker_metrics) == ""
    assert types_of(worker_metrics).items() <= METRICS.items()


async def test_every_metric_is_there(server_metrics, worker_metrics):
    assert types_of(server_metrics) | types_of(worker_metrics) == METRICS
