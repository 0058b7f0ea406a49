"""OpenTelemetry traces, exported by OTLP over HTTP: sampler, endpoint and queue as the environment says."""

import threading
from collections.abc import Iterable
from contextlib import nullcontext
from contextvars import Token
from types import TracebackType
from uuid import uuid4

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app import __version__
from app.observability.tracing import Attributes, Block, Kind

_KINDS: dict[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
# A collector that is away must not hold up the end of the process: its exporter tries for longer.
STOP_TIMEOUT = 2.0

_NO_SPAN = nullcontext()
_NOWHERE = Context()
_propagator = TraceContextTextMapPropagator()


class _Current:
    """A span that is current for the length of a block; an error is recorded by its type alone."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._token: Token[Context] = context.attach(trace.set_span_in_context(self._span))

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is not None:
            self._span.set_attribute("error.type", kind.__qualname__)
            self._span.set_status(StatusCode.ERROR)
        context.detach(self._token)
        self._span.end()


class OpenTelemetry:
    """The tracer of this process."""

    def __init__(self) -> None:
        ours = {
            "service.name": "chat-service",
            "service.version": __version__,
            "service.instance.id": str(uuid4()),
        }
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes before our own.
        resource = Resource.create(ours).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("chat-service")

    def entry(self, name: str, parent: str | None) -> Block:
        return self._start(name, "server", _NOWHERE if parent is None else _place(parent), {}, ())

    def span(self, name: str, kind: Kind, attributes: Attributes) -> Block:
        if not trace.get_current_span().get_span_context().trace_flags.sampled:
            return _NO_SPAN
        return self._start(name, kind, None, attributes, ())

    def follow(self, name: str, kind: Kind, parents: Iterable[str | None], attributes: Attributes) -> Block:
        sampled = [_place(parent) for parent in parents if parent is not None and parent.endswith("1")]
        if not sampled:
            return _NO_SPAN
        first, *others = sampled
        links = [Link(trace.get_current_span(other).get_span_context()) for other in others]
        return self._start(name, kind, first, attributes, links)

    def _start(
        self, name: str, kind: Kind, parent: Context | None, attributes: Attributes, links: Iterable[Link]
    ) -> Block:
        return _Current(self._tracer.start_span(name, parent, _KINDS[kind], attributes, list(links)))

    def describe(self, name: str | None, attributes: Attributes, *, is_failure: bool) -> None:
        span = trace.get_current_span()
        if not span.is_recording():
            return
        if name is not None:
            span.update_name(name)
        span.set_attributes(attributes)
        if is_failure:
            span.set_status(StatusCode.ERROR)

    def traceparent(self) -> str | None:
        found = trace.get_current_span().get_span_context()
        if not found.is_valid:
            return None
        # Of the flags one alone is known: whether it is recorded.
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-0{found.trace_flags & 1}"

    def stop(self) -> None:
        """Send what waits, as far as that is possible in two seconds."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(STOP_TIMEOUT)


def _place(traceparent: str) -> Context:
    """Read a place in a trace; what is none is nowhere, so that a trace begins there."""
    return _propagator.extract({"traceparent": traceparent}, _NOWHERE)
