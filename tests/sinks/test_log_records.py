"""Evidence as log records: what is on one, when it is emitted, and what happens where that is not possible."""

from __future__ import annotations

import logging
import os
import threading
import time
from types import SimpleNamespace

import pytest
from log_records import Blocking, Logs
from opentelemetry import trace
from opentelemetry._logs import NoOpLoggerProvider, SeverityNumber, get_logger_provider
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, get_value
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext
from profiled import until

from otel_introspect import faults, snapshot, timeout
from otel_introspect.introspection import activate
from otel_introspect.processors.event_bridge import EventToSpanEventBridge
from otel_introspect.sinks import log_emission, log_records, log_wording
from otel_introspect.sinks.budget import PROCESS_BYTES
from otel_introspect.sinks.courier import COURIER_NAME
from otel_introspect.sinks.log_emission import LogEvent, has_listeners
from otel_introspect.sinks.reporter import ProfileReport

SNAPSHOT = "otel_introspect.stack_snapshot"
MILLISECOND = 1_000_000


@pytest.fixture(name="make_logging")
def _make_logging(make_tracing):
    """Tracing whose evidence goes to the sinks that are named, and log records to the processors that are given."""
    made = []

    def make(*processors, events=("log",), provider=None, bridge=False, **settings):
        tracing = make_tracing({"events": events, "events_bridge": bridge}, **settings)
        logs = Logs(*processors)
        tracing.logs = logs
        tracing.introspection.given_logger_provider = logs.provider if provider is None else provider
        made.append(tracing)
        return tracing

    yield make

    for each in made:
        each.introspection.stop()
        each.logs.provider.shutdown()
    until(lambda: all(thread.name != COURIER_NAME for thread in threading.enumerate()))


def records(tracing, count):
    """What was emitted, once there are so many."""
    until(lambda: len(tracing.logs.records) >= count)
    return tracing.logs.records


def a_profile(taken):
    return ProfileReport(
        taken=taken,
        id="ab" * 16,
        text="1.000 view",
        trigger="slow",
        engine="sampler",
        interval_ms=10,
        sample_count=7,
        duration_ms=70,
        truncated=False,
        url=None,
    )


def test_a_record_says_what_the_span_event_would(make_logging):
    """
    The record of a snapshot has the ids of its span, the event's name, time and flat attributes, a severity and a body.
    """
    tracing, twin = make_logging(), make_logging(events=("span",))
    spans = []
    for each in (tracing, twin):
        span = each.start("GET /cart")
        each.look(1500)
        span.end()
        spans.append(span)

    (record,) = records(tracing, 1)
    (event,) = twin.events()
    context = spans[0].get_span_context()
    assert (record.name, record.trace_id, record.span_id) == (SNAPSHOT, context.trace_id, context.span_id)
    assert record.flags == context.trace_flags
    assert record.timestamp == event.timestamp - 1500 * MILLISECOND
    assert record.observed >= 1_700_000_000 * 1_000_000_000
    assert record.attributes.keys() == dict(event.attributes).keys()
    assert "\n    return self.introspection.watchdog.look()" in record.attributes["code.stacktrace"]
    assert (record.severity, record.number) == ("WARN", SeverityNumber.WARN.value)
    assert record.body.startswith("GET /cart: open for 1500 ms, in ")
    assert record.scope == "otel_introspect"


def test_the_span_has_no_event_but_says_that_it_is_slow(make_logging):
    """
    In log mode the attributes are on the span, the events are not.
    """
    tracing = make_logging()
    span = tracing.start()
    tracing.look(1500)
    tracing.look(1000)
    span.end()

    records(tracing, 2)
    (finished,) = tracing.exporter.get_finished_spans()
    assert finished.events == ()
    assert dict(finished.attributes) == {"otel_introspect.slow": True, "otel_introspect.snapshots": 2}


def test_both(make_logging):
    """
    With span,log each piece of evidence is an event and a record, and the process's budget counts the two.
    """
    tracing = make_logging(events=("span", "log"))
    span = tracing.start()
    tracing.look(1500)
    span.end()

    (record,) = records(tracing, 1)
    (event,) = tracing.events()
    assert record.attributes == dict(event.attributes)
    spent = tracing.introspection.reporter._budget._total
    size = sum(len(str(value)) for value in record.attributes.values() if isinstance(value, str))
    assert spent > 2 * size


def test_the_budgets_hold_for_records(make_logging):
    """
    What one span and one process may emit as records is bounded, and what is beyond is counted with a reason.
    """
    tracing = make_logging(events=("span", "log"))
    for _ in range(200):
        span = tracing.start()
        tracing.introspection.reporter.report_profile(span, a_profile(1)._replace(text="x" * 1900))
        span.end()

    taken = records(tracing, 1)
    sent = sum(len(each.attributes["otel_introspect.profile.text"]) for each in taken)
    assert 2 * sent <= PROCESS_BYTES
    assert len(taken) < 100
    assert faults.counts["dropped", "process budget"] > 100


def test_every_kind_of_evidence(make_logging):
    """
    Threads, a profile and an interruption come as records, too, each with its severity and its body.
    """
    tracing = make_logging(all_threads=True)
    activate(tracing.introspection)
    with tracing.tracer.start_as_current_span("job", start_time=tracing.clock.wall()) as span:
        tracing.look(1500)
        tracing.introspection.reporter.report_profile(span, a_profile(tracing.clock.wall()))
        with pytest.raises(RuntimeError), timeout(0.01, RuntimeError):
            time.sleep(5)

    taken = {each.name: each for each in records(tracing, 4)}
    assert {name.removeprefix("otel_introspect."): each.severity for name, each in taken.items()} == {
        "stack_snapshot": "WARN",
        "threads": "WARN",
        "profile": "INFO",
        "timeout": "WARN",
    }
    assert taken["otel_introspect.profile"].body == "job: profile of 70 ms, 7 samples (slow)"
    assert taken["otel_introspect.timeout"].body.startswith("job: interrupted after ")
    assert taken["otel_introspect.threads"].body.startswith("job: what the other ")
    (finished,) = tracing.exporter.get_finished_spans()
    assert [each for each in finished.events if each.name.startswith("otel_introspect")] == []
    assert finished.attributes["otel_introspect.interrupted"] is True
    assert finished.attributes["otel_introspect.profile.id"] == "ab" * 16


@pytest.mark.parametrize("events", [("log",), ("span", "log")])
def test_evidence_after_the_span_s_end(make_logging, caplog, events):
    """
    What comes late goes out as a record, and leaves the ended span alone.
    """
    tracing = make_logging(events=events)
    activate(tracing.introspection)
    span = tracing.start()
    span.end()

    with trace.use_span(span):
        assert snapshot()
        with timeout(0.01, RuntimeError), pytest.raises(RuntimeError):
            time.sleep(5)
    assert tracing.introspection.reporter.report_profile(span, a_profile(tracing.clock.wall()))

    taken = records(tracing, 3)
    assert {each.name for each in taken} == {SNAPSHOT, "otel_introspect.timeout", "otel_introspect.profile"}
    assert {each.span_id for each in taken} == {span.get_span_context().span_id}
    (finished,) = tracing.exporter.get_finished_spans()
    assert (finished.events, dict(finished.attributes)) == ((), {})
    assert "ended span" not in caplog.text


def test_late_evidence_without_records(make_logging):
    """
    In span mode, and of a span that was not sampled, late evidence is left alone as before.
    """
    for tracing in (make_logging(events=("span",)), make_logging()):
        activate(tracing.introspection)
        ended = tracing.start()
        ended.end()
        unsampled = NonRecordingSpan(SpanContext(1, 2, is_remote=False))
        for span in (unsampled, *([ended] if tracing.config.evidence.events == ("span",) else [])):
            with trace.use_span(span):
                assert not snapshot()
        assert tracing.logs.records == []


def test_a_snapshot_that_was_asked_for_is_no_warning(make_logging):
    """
    The severity of a snapshot of work that is not slow is INFO.
    """
    tracing = make_logging()
    activate(tracing.introspection)
    with tracing.tracer.start_as_current_span("job"):
        assert snapshot()

    assert [each.severity for each in records(tracing, 1)] == ["INFO"]


@pytest.mark.parametrize(
    "make_provider",
    [get_logger_provider, NoOpLoggerProvider, lambda: LoggerProvider(shutdown_on_exit=False)],
    ids=["none is set", "no-op", "without a processor"],
)
def test_where_nobody_listens(make_logging, caplog, make_provider):
    """
    Without a provider that takes records evidence goes on the span, and the user is told once what to do.
    """
    tracing = make_logging(provider=make_provider())
    for _ in range(2):
        span = tracing.start()
        tracing.look(1500)
        span.end()

    assert len(tracing.events()) == 2
    (message,) = {each.getMessage() for each in caplog.records}
    assert "OTEL_LOGS_EXPORTER=otlp" in message
    assert len(caplog.records) == 1
    assert not faults.counts


def test_a_provider_that_is_set_late_or_shut_down(make_logging):
    """
    The provider is looked at for each piece of evidence: once it takes records they go there, once it is shut down not.
    """
    empty = LoggerProvider(shutdown_on_exit=False)
    tracing = make_logging(provider=empty)
    span = tracing.start()
    tracing.look(1500)
    tracing.introspection.given_logger_provider = tracing.logs.provider
    tracing.look(1000)
    records(tracing, 1)
    tracing.logs.provider.shutdown()
    tracing.look(2000)
    span.end()

    assert [each.attributes["otel_introspect.snapshot.index"] for each in tracing.events()] == [0, 2]
    assert [each.attributes["otel_introspect.snapshot.index"] for each in tracing.logs.records] == [1]


def test_a_disabled_sdk_does_not_listen(monkeypatch):
    """
    A provider that OTEL_SDK_DISABLED has switched off takes nothing, whatever processors it has.
    """
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    assert not has_listeners(Logs().provider)
    assert has_listeners(SimpleNamespace())  # another implementation of the API


def test_a_bridge_alone_does_not_listen():
    """
    A provider whose only processor bridges to spans sends nothing, so evidence goes on the span by itself.
    """
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(EventToSpanEventBridge())

    assert not has_listeners(provider)


def test_a_dead_collector_delays_nobody(make_logging):
    """
    A processor that never comes back delays neither reports nor ends of spans; what has no room to wait goes on the
    span; nothing is lost.
    """
    may_go_on = threading.Event()
    tracing = make_logging(Blocking(may_go_on))
    count = log_records.MAX_WAITING + 20
    began = time.monotonic()
    for _ in range(count):
        with tracing.start() as span:
            assert tracing.introspection.reporter.report_profile(span, a_profile(1))
    took = time.monotonic() - began

    assert took < 5
    assert 19 <= len(tracing.events("otel_introspect.profile")) <= 20  # one may be with the processor
    may_go_on.set()
    assert len(records(tracing, log_records.MAX_WAITING)) + len(tracing.events("otel_introspect.profile")) == count
    assert not faults.counts


def test_what_waits_is_emitted_at_the_end(make_logging):
    """
    Records that the courier has not come to are emitted before the introspection has stopped.
    """
    tracing = make_logging()
    sink = tracing.introspection.records
    sink.courier.run = lambda _job: False  # as when no thread can be started
    with tracing.start() as span:
        assert tracing.introspection.reporter.report_profile(span, a_profile(1))
    assert tracing.logs.records == []

    tracing.introspection.stop()

    assert len(tracing.logs.records) == 1
    assert not faults.counts


def test_what_can_t_be_emitted_at_the_end_is_counted(make_logging):
    """
    With a collector that never answers the end is not put off for long, and what is lost is counted.
    """
    may_go_on = threading.Event()
    tracing = make_logging(Blocking(may_go_on))
    with tracing.start() as span:
        for _ in range(3):
            assert tracing.introspection.reporter.report_profile(span, a_profile(1))
    began = time.monotonic()
    tracing.introspection.stop()
    took = time.monotonic() - began
    may_go_on.set()

    assert took < 4
    assert faults.counts["dropped", "log record: the process has ended"] == 2


def test_a_processor_that_raises(make_logging):
    """
    A fault in somebody's log processor is counted, and the next record is emitted all the same.
    """

    class Raising(LogRecordProcessor):
        def on_emit(self, _record):
            why = "broken"
            raise ValueError(why)

        emit = on_emit

        def shutdown(self):
            pass

        def force_flush(self, _timeout_millis=0):
            return True

    tracing = make_logging(Raising())
    with tracing.start() as span:
        for _ in range(2):
            assert tracing.introspection.reporter.report_profile(span, a_profile(1))

    until(lambda: faults.counts["failed", "emitting a log record"] == 2)


def test_a_fault_that_is_logged_into_the_same_provider(make_logging):
    """
    Where the application's logging goes to the provider that fails, the fault is said once and does not go in circles.
    """

    class Raising(LogRecordProcessor):
        def on_emit(self, _record):
            times.append(None)
            why = "broken"
            raise ValueError(why)

        emit = on_emit

        def shutdown(self):
            pass

        def force_flush(self, _timeout_millis=0):
            return True

    class Bridging(logging.Handler):
        def emit(self, record):
            event = LogEvent("", Context(), 1, 1, SeverityNumber.ERROR, record.getMessage(), {})
            log_emission.emit(tracing.logs.provider.get_logger("logging"), event)

    times = []
    tracing = make_logging(Raising())
    handler = Bridging()
    logging.getLogger("otel_introspect").addHandler(handler)
    try:
        with tracing.start() as span:
            for _ in range(2):
                assert tracing.introspection.reporter.report_profile(span, a_profile(1))
        until(lambda: faults.counts["failed", "emitting a log record"] == 2)
    finally:
        logging.getLogger("otel_introspect").removeHandler(handler)

    assert len(times) == 3  # two records, and the one line that said so


def test_nothing_that_exports_is_traced(make_logging):
    """
    Processors run with instrumentation suppressed, on the courier's thread, and with the span as the current one.
    """
    seen = []

    class Looking(LogRecordProcessor):
        def on_emit(self, _record):
            current = trace.get_current_span().get_span_context().span_id
            seen.append((get_value(_SUPPRESS_INSTRUMENTATION_KEY), threading.current_thread().name, current))

        emit = on_emit

        def shutdown(self):
            pass

        def force_flush(self, _timeout_millis=0):
            return True

    tracing = make_logging(Looking())
    with tracing.start() as span:
        tracing.introspection.reporter.report_profile(span, a_profile(1))

    until(lambda: seen)
    assert seen == [(True, COURIER_NAME, span.get_span_context().span_id)]


def test_a_logger_that_is_switched_off(make_logging):
    """
    What a logger does not want is counted as dropped.
    """

    class Unwilling(LoggerProvider):
        def get_logger(self, *_args, **_kwargs):
            return SimpleNamespace(enabled=lambda **_given: False)

    provider = Unwilling(shutdown_on_exit=False)
    provider.add_log_record_processor(Logs().provider._multi_log_record_processor._log_record_processors[0])
    tracing = make_logging(provider=provider)
    with tracing.start() as span:
        tracing.introspection.reporter.report_profile(span, a_profile(1))

    until(lambda: faults.counts["dropped", "log record: its logger is switched off"] == 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_sends_nothing_twice(make_logging):
    """
    What waited when the process forked is the parent's to send.
    """
    tracing = make_logging()
    sink = tracing.introspection.records
    sink.courier.run = lambda _job: False
    with tracing.start() as span:
        tracing.introspection.reporter.report_profile(span, a_profile(1))
    assert len(sink._waiting) == 1

    sink.after_fork()  # what a forked child does

    assert not sink._waiting
    tracing.introspection.stop()
    assert tracing.logs.records == []


def test_the_checkpoint_of_a_request_whose_evidence_is_in_records(make_logging):
    """
    It comes all the same, so that the record's trace can be found, but without the event.
    """
    tracing = make_logging(checkpoint="first")
    span = tracing.start("GET /")
    tracing.clock.advance(1500)
    tracing.introspection._look()

    until(tracing.exporter.get_finished_spans)
    span.end()
    checkpoint = tracing.exporter.get_finished_spans()[0]
    assert checkpoint.name == "slow: GET /"
    assert checkpoint.events == ()


def test_a_bridge_finds_the_span(make_logging):
    """
    A bridge of the user's adds our records to their span; with span,log it adds nothing, as the event is there already.
    """
    for events in (("log",), ("span", "log")):
        tracing = make_logging(EventToSpanEventBridge(), events=events)
        span = tracing.start()
        tracing.look(1500)
        records(tracing, 1)
        span.end()

        (event,) = tracing.events()
        assert event.attributes["otel_introspect.snapshot.index"] == 0


def test_the_bridge_s_own_setting_loses_no_late_event(make_logging):
    """
    With EVENTS_BRIDGE our evidence is on the span even if that ends before the courier comes to it.
    """
    tracing = make_logging(bridge=True)
    tracing.introspection.records.courier.run = lambda _job: False
    with tracing.start() as span:
        tracing.introspection.reporter.report_profile(span, a_profile(1))

    assert len(tracing.events("otel_introspect.profile")) == 1
    tracing.introspection.stop()
    assert len(tracing.logs.records) == 1


def test_a_body_is_one_short_line():
    """
    Whatever a span is called, the body is one line and no longer than it may be.
    """
    body = log_wording.body_of("GET /\n" + "ä" * 500, "something.else", {})

    assert "\n" not in body
    assert len(body.encode()) <= log_wording.BODY_BYTES


def test_an_old_logger_gets_a_record_of_the_kind_that_it_takes(monkeypatch):
    """
    Where records know neither a context nor an event's name, they have the ids and the attribute event.name.
    """

    class LogRecord:
        def __init__(
            self, *, timestamp=None, trace_id=None, span_id=None, trace_flags=None, resource=None, attributes=None
        ):
            self.given = (timestamp, trace_id, span_id, trace_flags, resource, attributes)

    class OldLogger:
        resource = "the resource"

        def emit(self, record):
            taken.append(record.given)

    taken = []
    monkeypatch.setitem(log_emission.sys.modules, OldLogger.__module__, SimpleNamespace(LogRecord=LogRecord))
    span = NonRecordingSpan(SpanContext(1, 2, is_remote=False))
    event = LogEvent("an.event", trace.set_span_in_context(span), 3, 4, SeverityNumber.INFO, "body", {"a": 1})

    log_emission.emit(OldLogger(), event)

    assert taken == [(3, 1, 2, 0, "the resource", {"a": 1, "event.name": "an.event"})]
    assert event.attributes == {"a": 1}
