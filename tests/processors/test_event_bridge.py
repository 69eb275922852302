"""The bridge: which log records are added to their span, as what, and which are not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from log_records import Logs
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from otel_introspect import faults
from otel_introspect.processors.event_bridge import EventToSpanEventBridge
from otel_introspect.sinks import log_emission
from otel_introspect.sinks.log_emission import LogEvent


@pytest.fixture(name="span")
def _span():
    provider = TracerProvider(shutdown_on_exit=False)
    span = provider.get_tracer(__name__).start_span("GET /")
    yield span
    span.end()


@pytest.fixture(name="logs")
def _logs():
    logs = Logs(EventToSpanEventBridge())
    yield logs
    logs.provider.shutdown()


def emit(logs, context, *, name="an.event", timestamp=5, observed=7, attributes=None):
    event = LogEvent(name, context, timestamp, observed, SeverityNumber.INFO, "the body", attributes or {})
    log_emission.emit(logs.provider.get_logger("others"), event)


def test_an_event_of_the_current_span(logs, span):
    """
    It is added once, with its name, its time and all its attributes, and goes on to the exporter.
    """
    emit(logs, set_span_in_context(span, Context()), attributes={"a": 1, "b": ["x", "y"]})

    (event,) = span.events
    assert (event.name, event.timestamp, dict(event.attributes)) == ("an.event", 5, {"a": 1, "b": ("x", "y")})
    (record,) = logs.records
    assert (record.name, record.body) == ("an.event", "the body")
    assert not faults.counts


def test_without_a_timestamp(logs, span):
    """
    The time at which it was observed stands for one that is missing.
    """
    emit(logs, set_span_in_context(span, Context()), timestamp=None)

    assert [each.timestamp for each in span.events] == [7]


def test_what_is_no_event(logs, span):
    """
    A record without an event's name stays a record only.
    """
    emit(logs, set_span_in_context(span, Context()), name="")

    assert span.events == ()
    assert len(logs.records) == 1


def test_the_span_of_another_thread_or_none(logs, span):
    """
    A span that isn't recording, and a context without one, get nothing.
    """
    emit(logs, Context())
    emit(logs, set_span_in_context(NonRecordingSpan(span.get_span_context()), Context()))
    span.end()
    emit(logs, set_span_in_context(span, Context()))

    assert span.events == ()
    assert len(logs.records) == 3


def straight(span, **changed):
    """Give a bridge a record of the current *span*, without the SDK, which may not let all of it through."""
    context = span.get_span_context()
    record = SimpleNamespace(
        event_name="an.event",
        context=set_span_in_context(span, Context()),
        trace_id=context.trace_id,
        span_id=context.span_id,
        attributes=None,
        timestamp=5,
    )
    vars(record).update(changed)
    EventToSpanEventBridge().on_emit(SimpleNamespace(log_record=record))


@pytest.mark.parametrize("changed", [{"trace_id": 9}, {"span_id": 9}, {"trace_id": 0}, {"span_id": None}])
def test_ids_of_another_span(span, changed):
    """
    A record whose ids are not the current span's, or not valid, is left alone.
    """
    straight(span)
    straight(span, **changed)

    assert len(span.events) == 1


def test_attributes_that_a_span_event_can_t_have(span, caplog):
    """
    What is nested becomes JSON, and nothing is complained about.
    """
    straight(span, attributes={"a": {"b": [1, None, {"c": b"\x01"}]}, "d": [1, "x"], "e": None, "f": (1.5, 2.5)})

    (event,) = span.events
    assert dict(event.attributes) == {"a": '{"b": [1, null, {"c": "01"}]}', "d": '[1, "x"]', "f": (1.5, 2.5)}
    assert caplog.records == []


def test_a_fault_stays_here(logs):
    """
    A span that raises does not keep the record from the exporter.
    """

    class Broken(NonRecordingSpan):
        def is_recording(self):
            return True

        def add_event(self, *_args, **_kwargs):
            why = "broken"
            raise ValueError(why)

    broken = Broken(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))
    emit(logs, set_span_in_context(broken, Context()))

    assert faults.counts["failed", "bridging an event to its span"] == 1
    assert len(logs.records) == 1


def test_switched_off(span):
    """
    After its shutdown it adds nothing, and it never has anything to flush.
    """
    bridge = EventToSpanEventBridge()
    logs = Logs(bridge)
    bridge.shutdown()
    with trace.use_span(span):
        emit(logs, set_span_in_context(span, Context()))

    assert span.events == ()
    assert bridge.force_flush()
