"""A receiver of traces, as OpenTelemetry's collector is one."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

WAIT_TIMEOUT = 20.0


@dataclass
class Recorded:
    """One span, and what recorded it."""

    process: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    is_failure: bool
    attributes: dict[str, Any]
    links: list[str]


@dataclass
class Collector:
    """What was received."""

    endpoint: str = ""
    spans: list[Recorded] = field(default_factory=list)
    raw: bytes = b""
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        async with self.news:
            self.raw += body
            self.spans += _read(ExportTraceServiceRequest.FromString(body))
            self.news.notify_all()
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )

    def trace(self, trace_id: str) -> list[Recorded]:
        return [span for span in self.spans if span.trace_id == trace_id]

    async def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until what was received fulfils a condition."""
        try:
            async with asyncio.timeout(WAIT_TIMEOUT), self.news:
                await self.news.wait_for(condition)
        except TimeoutError:
            got = [(span.process, span.name, span.trace_id[:6]) for span in self.spans]
            raise AssertionError(f"{what}: received {got}") from None


def _read(request: ExportTraceServiceRequest) -> list[Recorded]:
    return [
        Recorded(
            process=next(one.value.string_value for one in group.resource.attributes if one.key == "service.name"),
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            name=span.name,
            kind=span.kind,
            is_failure=span.status.code == span.status.STATUS_CODE_ERROR,
            attributes={one.key: one.value.string_value or one.value.int_value for one in span.attributes},
            links=[link.trace_id.hex() for link in span.links],
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a receiver for the length of a block."""
    found = Collector()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/traces", found.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield found
    finally:
        await runner.cleanup()
