"""Tracing: spans of one call over pods, databases and the webhook that it led to.

Off unless the environment names an exporter; then neither OpenTelemetry's tracer nor its exporter is imported, and
every function here returns at once. A place in a trace is the text that travels as `traceparent` (W3C Trace
Context), between processes and between tasks of one. Names and attributes hold no content, no ids and no tokens.

    entry    a call from outside: continues the caller's trace, or begins one
    span     a step of whatever is current
    follow   a step of what was handed over with a `traceparent`, in another task or another process
"""

import functools
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int]
Block = AbstractContextManager[None]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_NONE: Attributes = {}
_NO_SPAN = nullcontext()
# What a statement does and to what: what it writes says more than what it reads.
_WRITES = re.compile(r"\b(INSERT|(?<!KEY )(?<!DO )UPDATE|DELETE) (?:INTO |FROM )?(\w+)")
_READS = re.compile(r"\b(?:FROM|JOIN) (?!unnest|LATERAL)(\w+)")


class Tracer(Protocol):
    """What records spans, once tracing is on."""

    def entry(self, name: str, parent: str | None) -> Block: ...

    def span(self, name: str, kind: Kind, attributes: Attributes) -> Block: ...

    def follow(self, name: str, kind: Kind, parents: Iterable[str | None], attributes: Attributes) -> Block: ...

    def describe(self, name: str | None, attributes: Attributes, *, is_failure: bool) -> None: ...

    def traceparent(self) -> str | None: ...


class _State:
    tracer: Tracer | None = None


def is_wanted(env: Mapping[str, str]) -> bool:
    """Read from the standard variables whether traces are wanted; raises ValueError where they cannot be had."""
    exporter = env.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter not in {"", "otlp", "none"}:
        raise ValueError("OTEL_TRACES_EXPORTER: must be otlp or none")
    for name in _PROTOCOLS:
        if env.get(name, "http/protobuf") != "http/protobuf":
            raise ValueError(f"{name}: must be http/protobuf")
    if exporter == "none" or env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return exporter == "otlp" or any(env.get(name) for name in _ENDPOINTS)


def start(tracer: Tracer) -> None:
    """Switch tracing on, for the rest of the process."""
    _State.tracer = tracer


def is_on() -> bool:
    return _State.tracer is not None


def entry(name: str, parent: str | None = None) -> Block:
    """Record a call from outside; `parent` is the `traceparent` that came with it, if any, and may be anything."""
    tracer = _State.tracer
    return _NO_SPAN if tracer is None else tracer.entry(name, parent)


def span(name: str, kind: Kind = "internal", attributes: Attributes = _NONE) -> Block:
    """Record a step of what is current; nothing where nothing is recorded."""
    tracer = _State.tracer
    return _NO_SPAN if tracer is None else tracer.span(name, kind, attributes)


def statement(sql: str) -> Block:
    """Record a statement of PostgreSQL by a summary; its values stay here."""
    tracer = _State.tracer
    if tracer is None:
        return _NO_SPAN
    name = _summary(sql)
    return tracer.span(name, "client", {"db.system.name": "postgresql", "db.query.summary": name})


def command(name: str) -> Block:
    """Record a command of Redis by its name."""
    tracer = _State.tracer
    if tracer is None:
        return _NO_SPAN
    return tracer.span(name, "client", {"db.system.name": "redis", "db.operation.name": name})


def follow(name: str, kind: Kind, parents: Iterable[str | None], attributes: Attributes = _NONE) -> Block:
    """Record what is done for several: as a step of the first that is recorded, with links to the others."""
    tracer = _State.tracer
    return _NO_SPAN if tracer is None else tracer.follow(name, kind, parents, attributes)


def describe(name: str | None = None, *, is_failure: bool = False, **attributes: str | int) -> None:
    """Add attributes to the current span; `http__route` becomes the attribute `http.route`."""
    tracer = _State.tracer
    if tracer is not None:
        dotted = {key.replace("__", "."): value for key, value in attributes.items()}
        tracer.describe(name, dotted, is_failure=is_failure)


def traceparent() -> str | None:
    """Give the place in the trace that is current, also where that is not recorded; None where there is none."""
    tracer = _State.tracer
    return None if tracer is None else tracer.traceparent()


def trace_id() -> str | None:
    found = traceparent()
    return None if found is None else found.split("-")[1]


@functools.lru_cache(1024)
def _summary(sql: str) -> str:
    if written := _WRITES.search(sql):
        return f"{written[1]} {written[2]}"
    read = _READS.search(sql)
    return "SELECT" if read is None else f"SELECT {read[1]}"
