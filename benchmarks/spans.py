"""Entry spans as a server makes them, with ours on; for the benchmarks that only differ in its settings."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Tracer

from benchmarks.pairing import Measure
from otel_introspect.config import IntrospectConfig
from otel_introspect.introspection import Introspection
from otel_introspect.processors.watchdog import WatchdogSpanProcessor

_SPANS: Final = 200
_ATTRIBUTES: Final = {"http.request.method": "GET", "url.path": "/orders/1234", "url.scheme": "http"}
_MICROSECONDS: Final = 1e6


@contextmanager
def watched(config: IntrospectConfig) -> Iterator[Tracer]:
    """A provider whose spans are watched, without an exporter."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(WatchdogSpanProcessor(Introspection(config, tracer_provider=provider)))
    try:
        yield provider.get_tracer(__name__)
    finally:
        provider.shutdown()
        gc.collect()


def turn(tracer: Tracer) -> Measure:
    """Start and end some; how much CPU one of them took, in microseconds."""
    start_span = tracer.start_span

    def spend() -> float:
        began = time.process_time()
        for _ in range(_SPANS):
            start_span("GET orders/<int:number>", kind=SpanKind.SERVER, attributes=_ATTRIBUTES).end()
        return (time.process_time() - began) / _SPANS * _MICROSECONDS

    spend()
    return spend
