"""What a child span costs more with the watchdog on: it is not watched, only looked at."""

from __future__ import annotations

import time
from typing import Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import set_span_in_context

from benchmarks.effort import Effort
from benchmarks.pairing import Measure, compare, in_turns
from benchmarks.report import Part
from otel_introspect.config import IntrospectConfig
from otel_introspect.introspection import Introspection
from otel_introspect.processors.watchdog import WatchdogSpanProcessor

LIMIT: Final = 0.3

_BASE: Final = "without"
_OURS: Final = "otel_introspect"
_SPANS_A_TURN: Final = 200


def measure(effort: Effort) -> Part:
    """Start and end child spans of one open entry span."""
    part = Part(title="Child span, start and end", unit="us CPU")
    providers = {name: TracerProvider(shutdown_on_exit=False) for name in (_BASE, f"{_BASE}, again", _OURS)}
    providers[_OURS].add_span_processor(WatchdogSpanProcessor(Introspection(IntrospectConfig())))
    figures = in_turns({name: _turn(provider) for name, provider in providers.items()}, 2 * effort.span_rounds)
    part.add("in 1 entry span", compare(figures, _BASE), _BASE, ours=_OURS, limit=LIMIT)
    for provider in providers.values():
        provider.shutdown()
    return part


def _turn(provider: TracerProvider) -> Measure:
    start_span = provider.get_tracer(__name__).start_span
    inside = set_span_in_context(start_span("GET /"))

    def spend() -> float:
        began = time.process_time()
        for _ in range(_SPANS_A_TURN):
            start_span("SELECT", inside).end()
        return (time.process_time() - began) / _SPANS_A_TURN * 1e6

    spend()
    return spend
