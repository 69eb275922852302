"""The evidence of a dead process as log records, where evidence goes into these.

What is wanted: what had been found out about a request whose process is dead comes as records, joined to its recovered
span, with the resource of the dead process.

What does not work: a logger's own way, which puts the living process's resource on all that it emits.

So: a copy of the logger has the dead one's.

What can still fail: the dead process may have sent some of them itself, as nobody knows what was still in its
exporter's queue. So each says that it is recovered, and is otherwise the same, down to its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from otel_introspect import semconv
from otel_introspect.faults import count, fail_open
from otel_introspect.sinks.log_emission import LogEvent, emit, flusher_of, has_listeners
from otel_introspect.sinks.log_records import SCOPE
from otel_introspect.sinks.log_wording import body_of, severity_of

_FLUSH_MILLISECONDS: Final = 5_000


class RecoveredRecords:
    """Emits the events of recovered spans as log records.

    Args:
        provider: Returns the logger provider.
        instead: Whether the spans then have no events.
    """

    def __init__(self, provider: Callable[[], Any], *, instead: bool) -> None:
        self._provider = provider
        self._instead = instead

    def spans_to_send(self, spans: Sequence[ReadableSpan]) -> Sequence[ReadableSpan]:
        """*spans* as they are to be sent: without events if these go into records only, and somebody takes those."""
        if not (self._instead and has_listeners(self._provider())):
            return spans
        return [_without_events(each) for each in spans]

    def send(self, spans: Sequence[ReadableSpan]) -> None:
        """Emit the events of *spans*, and have them flushed; blocks."""
        provider = self._provider()
        if not has_listeners(provider):
            if not self._instead:  # otherwise it is on the spans after all
                count("dropped", "recovered log record: nobody listens")
            return
        logger = copy(provider.get_logger(SCOPE))
        for span in spans:
            with fail_open("emitting a recovered log record"):
                _emit_events(logger, span)
        flush = flusher_of(provider)
        if flush is not None:
            with fail_open("flushing recovered log records"):
                flush(_FLUSH_MILLISECONDS)


def _emit_events(logger: Any, span: ReadableSpan) -> None:  # noqa: ANN401 - the SDK's, or another
    resource: Resource = span.resource
    if hasattr(logger, "_resource"):
        logger._resource = resource  # noqa: SLF001 - all that emits with it puts it on the record
    span_context = span.get_span_context()
    if span_context is None:
        return
    context = set_span_in_context(NonRecordingSpan(span_context), Context())
    for event in span.events:
        attributes = dict(event.attributes or {})
        emit(
            logger,
            LogEvent(
                name=event.name,
                context=context,
                timestamp=event.timestamp,
                observed=time.time_ns(),
                severity=severity_of(event.name, attributes),
                body=body_of(span.name, event.name, attributes),
                attributes={**attributes, semconv.RECOVERED: True},
            ),
        )


def _without_events(span: ReadableSpan) -> ReadableSpan:
    bare = copy(span)
    bare._events = ()  # noqa: SLF001 - what a span has ended with can't be changed otherwise
    return bare
