"""What the arrived traces say about each visit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from opentelemetry.semconv.attributes.code_attributes import CODE_STACKTRACE
from opentelemetry.semconv.attributes.http_attributes import HTTP_ROUTE

from otel_introspect import semconv
from otel_introspect.demo.visits import FAST_ROUTES, SlowVisit
from otel_introspect.exporters.span_view import SpanView
from otel_introspect.exporters.trace_buffer import Trace, TraceBuffer

_REMEMBERED_SPANS = 50_000


@dataclass(frozen=True)
class Arrival:
    """A trace that has something to show.

    Args:
        visit: What it is the trace of; none if it is of a request that was meant to be fast.
    """

    trace: Trace
    visit: SlowVisit | None


@dataclass
class Evidence:
    """Keeps account of what arrived.

    Args:
        visits: What is expected.
    """

    visits: tuple[SlowVisit, ...]
    spans: int = 0
    fast: int = 0
    fast_but_slow: int = 0
    longest_fast_ns: int = 0
    _seen: set[str] = field(default_factory=set)
    _stuck: set[str] = field(default_factory=set)
    _routes: dict[str, str] = field(default_factory=dict)
    _buffer: TraceBuffer = field(default_factory=lambda: TraceBuffer(_REMEMBERED_SPANS))

    def add(self, spans: Iterable[SpanView]) -> list[Arrival]:
        """Take *spans* in; what is slow among the traces that are complete now."""
        spans = list(spans)
        self.spans += len(spans)
        return [arrival for trace in self._buffer.add(spans) if (arrival := self._judge(trace)) is not None]

    def missing(self) -> list[SlowVisit]:
        """The visits without a stack that shows what they were stuck in."""
        return [visit for visit in self.visits if visit.route not in self._stuck]

    def without_trace(self, visit: SlowVisit) -> bool:
        """Whether not even the request's own span has come."""
        return visit.route not in self._seen

    def _judge(self, trace: Trace) -> Arrival | None:
        for span in trace.spans:
            if span.entry:
                self._routes[trace.trace_id] = str(span.attributes.get(HTTP_ROUTE, ""))
        route = self._routes.get(trace.trace_id, "")
        self._seen.add(route)
        slow = any(span.slow for span in trace.spans)
        visit = next((visit for visit in self.visits if visit.route == route), None)
        if visit is None:
            if route in FAST_ROUTES and not trace.late:
                self.fast += 1
                self.fast_but_slow += slow
                self.longest_fast_ns = max(self.longest_fast_ns, *(span.duration_ns for span in trace.spans))
        elif any(visit.function in stack for stack in _stacks(trace)):
            self._stuck.add(route)
        return Arrival(trace, visit) if slow else None


def _stacks(trace: Trace) -> Iterable[str]:
    """What is known of each stack: the text, and the whole of it where the text had to be cut."""
    for span in trace.spans:
        for event in span.events:
            if span.slow and event.name == semconv.STACK_SNAPSHOT_EVENT:
                frames = event.attributes.get(semconv.STACK_FRAMES, ())
                yield "\n".join([str(event.attributes.get(CODE_STACKTRACE, "")), *map(str, frames)])
