"""Checkpoints: what is sent ahead of a slow request's own span."""

from __future__ import annotations

import threading
import time

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode
from profiled import until

from otel_introspect import faults, snapshot
from otel_introspect.config import IntrospectConfig, ProfilerConfig, RecorderConfig, WatchdogConfig
from otel_introspect.introspection import Introspection, activate
from otel_introspect.processors.watchdog import WatchdogSpanProcessor
from otel_introspect.sinks.courier import COURIER_NAME

SNAPSHOT = "otel_introspect.stack_snapshot"
OLD = {"http.method": "GET", "http.target": "/report/7?secret=1", "http.route": "/report/<int:id>"}
NEW = {"http.request.method": "GET", "url.path": "/report/7", "http.route": "/report/<int:id>"}


@pytest.fixture(name="make_tracing")
def _make_tracing_with_checkpoints(make_tracing):
    made = []

    def make(**settings):
        tracing = make_tracing(**{"checkpoint": "first", **settings})
        made.append(tracing)
        return tracing

    yield make

    for each in made:
        each.introspection.stop()
    until(lambda: all(thread.name != COURIER_NAME for thread in threading.enumerate()))


def look(tracing, milliseconds=0.0):
    """Let time pass, then let the introspector's work be done, and the courier's."""
    tracing.clock.advance(milliseconds)
    wait = tracing.introspection._look()
    done = threading.Event()
    tracing.introspection.courier.run(done.set)
    assert done.wait(10)
    return wait


def checkpoints(tracing):
    return [span for span in tracing.exporter.get_finished_spans() if span.name.startswith("slow: ")]


@pytest.mark.parametrize("request_", [OLD, NEW], ids=["old", "new"])
def test_what_a_checkpoint_says(make_tracing, request_):
    """
    It is a finished child from the request's start to the snapshot, with the same event, and says which request it is.
    """
    tracing = make_tracing()
    span = tracing.start("GET report", kind=SpanKind.SERVER, attributes={**request_, "user.id": 7})

    look(tracing, 1500)

    (found,) = checkpoints(tracing)
    (event,) = found.events
    assert found.name == "slow: GET report"
    assert found.kind is SpanKind.INTERNAL
    assert found.parent == span.get_span_context()
    assert not found.parent.is_remote
    assert found.start_time == span.start_time
    assert found.end_time == event.timestamp
    assert found.status.status_code is StatusCode.UNSET
    assert found.instrumentation_scope.name == "otel_introspect"
    assert dict(found.attributes) == {
        "otel_introspect.slow": True,
        "otel_introspect.snapshots": 1,
        "otel_introspect.checkpoint": True,
        **request_,
    }
    assert type(found.attributes["otel_introspect.snapshots"]) is int
    assert (event.name, dict(event.attributes)) == (SNAPSHOT, dict(span.events[0].attributes))
    span.end()


def test_first(make_tracing):
    """
    Under ``first`` a span has one, whatever comes after.
    """
    tracing = make_tracing()
    span = tracing.start()

    for milliseconds in (1000, 1000, 2000):
        look(tracing, milliseconds)

    assert len(span.events) == 3
    assert len(checkpoints(tracing)) == 1
    span.end()


def test_all(make_tracing):
    """
    Under ``all`` each snapshot has its own.
    """
    tracing = make_tracing(checkpoint="all")
    span = tracing.start()

    for milliseconds in (1000, 1000, 2000):
        look(tracing, milliseconds)

    indices = [each.events[0].attributes["otel_introspect.snapshot.index"] for each in checkpoints(tracing)]
    assert indices == [0, 1, 2]
    span.end()


def test_none(make_tracing):
    """
    Under ``none`` nothing is sent ahead.
    """
    tracing = make_tracing(checkpoint="none")
    span = tracing.start()

    look(tracing, 1000)

    assert len(span.events) == 1
    assert checkpoints(tracing) == []
    span.end()


def test_a_span_that_has_ended_needs_none(make_tracing):
    """
    What ends before it is handed on says all this itself.
    """
    tracing = make_tracing()
    span = tracing.start()
    tracing.look(1000)
    span.end()

    look(tracing)

    assert checkpoints(tracing) == []


def test_it_is_not_watched_itself(make_tracing):
    """
    A checkpoint is no entry span: the live table never holds it, and it gets no checkpoint.
    """
    tracing = make_tracing(checkpoint="all")
    seen = []

    class Looks(SpanProcessor):
        def on_start(self, span, parent_context=None):
            seen.append(len(tracing.introspection.table.open))

    tracing.provider.add_span_processor(Looks())
    span = tracing.start()

    look(tracing, 1000)

    assert seen == [1, 0]
    span.end()


def test_a_snapshot_on_request_is_none(make_tracing):
    """
    What an application asks for with ``snapshot()`` on a span that is not slow, or on a child, is not sent ahead.
    """
    tracing = make_tracing(checkpoint="all")
    activate(tracing.introspection)
    with tracing.tracer.start_as_current_span("GET /", start_time=tracing.clock.wall()):
        assert snapshot()
        with tracing.tracer.start_as_current_span("child"):
            assert snapshot()

        look(tracing)

        assert checkpoints(tracing) == []


class DropsOurs(Sampler):
    def should_sample(self, parent_context, trace_id, name, *args, **kwargs):
        return SamplingResult(Decision.DROP if name.startswith("slow: ") else Decision.RECORD_AND_SAMPLE)

    def get_description(self):
        return "drops ours"


def test_the_sampler_decides(make_tracing):
    """
    A sampler that drops it is obeyed.
    """
    tracing = make_tracing()
    tracing.provider.sampler = DropsOurs()
    tracing.tracer = tracing.provider.get_tracer("another")
    span = tracing.start()

    look(tracing, 1000)

    assert len(span.events) == 1
    assert checkpoints(tracing) == []
    span.end()


def test_the_process_s_budget_counts_it(make_tracing):
    """
    Checkpoints use half of the budget at most; what finds no room waits, and is sent when there is some.
    """
    tracing = make_tracing()
    spans = [tracing.start(f"GET /{number}") for number in range(100)]
    wait = look(tracing, 1000)

    sent = len(checkpoints(tracing))
    snapshots = sum(bool(span.events) for span in spans)

    assert sent < 50
    assert wait <= 1_000_000_000
    tracing.clock.advance(6000)
    tracing.introspection._checkpoints.hand_on()
    until(lambda: len(checkpoints(tracing)) > sent)
    assert len(checkpoints(tracing)) <= snapshots
    for span in spans:
        span.end()


def test_what_waits_is_bounded(make_tracing):
    """
    Newer ones push out older ones, which are counted.
    """
    tracing = make_tracing()
    sink = tracing.introspection.reporter and tracing.introspection._checkpoints
    spans = [tracing.start(f"GET /{number}") for number in range(80)]

    for span in spans:
        sink.emit(span, SNAPSHOT, {}, 1)

    assert len(sink._notes) == 64
    assert faults.counts["dropped", "checkpoint: too many wait"] == 16
    for span in spans:
        span.end()


def test_no_string_is_longer_than_it_may_be(make_tracing):
    """
    The name and what says which request it is are cut as everything else is.
    """
    tracing = make_tracing()
    span = tracing.start("GET " + "x" * 5000, attributes={"http.route": "/" + "y" * 5000})

    look(tracing, 1000)

    (found,) = checkpoints(tracing)
    assert len(found.name) <= 250
    assert len(found.attributes["http.route"]) <= 2000
    span.end()


class Silent(InMemorySpanExporter):
    """A collector that does not answer before it is let."""

    def __init__(self):
        super().__init__()
        self.answer = threading.Event()

    def export(self, spans):
        self.answer.wait(20)
        return super().export(spans)


def test_a_collector_that_never_answers_delays_nobody():
    """
    Neither requests nor the introspector wait for a span processor that exports while it is called.
    """
    introspection = Introspection(
        IntrospectConfig(
            watchdog=WatchdogConfig(threshold=20, checkpoint="all"),
            profiler=ProfilerConfig(triggers=()),
            recorder=RecorderConfig(directory="none"),
        )
    )
    exporter = Silent()
    provider = TracerProvider()
    provider.add_span_processor(WatchdogSpanProcessor(introspection))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    introspection.tracer_provider = provider
    tracer = provider.get_tracer(__name__)
    try:
        first = tracer.start_span("GET /first")
        until(lambda: any(thread.name == COURIER_NAME for thread in threading.enumerate()))
        second = tracer.start_span("GET /second")

        began = time.monotonic()
        until(lambda: len(first.events) >= 3 and len(second.events) >= 3)

        assert time.monotonic() - began < 10
    finally:
        exporter.answer.set()
        for span in (first, second):
            span.end()
        provider.shutdown()
        until(lambda: all(thread.name != COURIER_NAME for thread in threading.enumerate()))
