"""``snapshot()``: a stack on request."""

from __future__ import annotations

import threading

import pytest
from opentelemetry import trace

from otel_introspect import faults, introspection, snapshot, snapshots
from otel_introspect.introspection import activate
from otel_introspect.sinks.budget import PROCESS_BYTES, SPAN_BYTES, size_of


@pytest.fixture(name="active")
def _active(tracing, monkeypatch):
    monkeypatch.setattr(introspection, "_fallback", None)
    activate(tracing.introspection)
    return tracing


def ask() -> bool:
    return snapshot()


def test_a_snapshot_of_the_caller(active):
    """
    The current span gets one event whose innermost frame is the caller: nothing of ours is in it.
    """
    with active.tracer.start_as_current_span("GET /"):
        assert ask() is True

    (event,) = active.events()
    lines = event.attributes["code.stacktrace"].splitlines()
    assert lines[-1].strip() == "return snapshot()"
    assert lines[-2].endswith("in ask")
    assert "snapshots.py" not in event.attributes["code.stacktrace"].replace(__file__, "")
    assert event.attributes["code.function.name"].endswith("ask")
    assert event.attributes["code.file.path"] == __file__
    assert event.attributes["thread.id"] == threading.get_ident()
    assert event.attributes["thread.name"] == threading.current_thread().name
    assert event.attributes["otel_introspect.observer"] == "thread"
    assert event.attributes["otel_introspect.lateness_ms"] == 0
    assert event.attributes["otel_introspect.snapshot.index"] == 0
    assert event.attributes["otel_introspect.threshold_ms"] == 1000


def test_it_is_not_slow_for_that(active):
    """
    Asking for a snapshot counts it, and does not call the span slow.
    """
    with active.tracer.start_as_current_span("GET /"):
        snapshot()

    (span,) = active.exporter.get_finished_spans()
    assert dict(span.attributes) == {"otel_introspect.snapshots": 1}


def test_the_index_goes_on(active):
    """
    The watchdog's snapshots and ours have one numbering.
    """
    span = active.start()
    with trace.use_span(span, end_on_exit=True):
        assert snapshot()
        active.look(1001)
        assert snapshot()
        active.look(1001)

    assert [event.attributes["otel_introspect.snapshot.index"] for event in active.events()] == [0, 1, 2, 3]
    (span,) = active.exporter.get_finished_spans()
    assert span.attributes["otel_introspect.snapshots"] == 4
    assert span.attributes["otel_introspect.slow"] is True


def test_the_same_place_again(active):
    """
    A snapshot that is identical to its predecessor says how many there have been in a row.
    """
    with active.tracer.start_as_current_span("GET /"):
        for _ in range(3):
            ask()

    assert [event.attributes["otel_introspect.repeated"] for event in active.events()] == [1, 2, 3]


def test_a_child_span_gets_it_too(active):
    """
    It goes to the current span, entry or not.
    """
    with active.tracer.start_as_current_span("GET /"), active.tracer.start_as_current_span("SELECT"):
        assert snapshot()

    child, entry = active.exporter.get_finished_spans()
    assert len(child.events) == 1
    assert entry.events == ()


def test_no_recording_span(active):
    """
    Without a span, and with one that records nothing, it says no and does nothing.
    """
    assert snapshot() is False
    with trace.use_span(trace.NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)):
        assert snapshot() is False
    with active.tracer.start_as_current_span("GET /", end_on_exit=False) as span:
        span.end()
        assert snapshot() is False

    assert active.events() == []
    assert not faults.counts


@pytest.mark.parametrize("part", ["capture", "thread_name", "active_or_own", "Snapshot", "time_ns"])
def test_it_never_raises(active, monkeypatch, caplog, part):
    """
    Whatever of ours is broken, the caller gets False, the fault is counted, and logged once.
    """

    def broken(*_args, **_kwargs):
        raise RuntimeError

    monkeypatch.setattr(snapshots, part, broken)
    with active.tracer.start_as_current_span("GET /"):
        assert snapshot() is False
        assert snapshot() is False

    assert faults.counts == {("failed", "taking a snapshot on request"): 2}
    assert len(caplog.records) == 1


def test_a_span_that_raises(active):
    """
    A span of somebody else's making may raise at every call.
    """

    class Broken(trace.NonRecordingSpan):
        def is_recording(self):
            raise OSError

    with trace.use_span(Broken(trace.INVALID_SPAN_CONTEXT), record_exception=False, set_status_on_exception=False):
        assert snapshot() is False


def test_the_budget_of_the_span(active):
    """
    In a loop it fills the span up to its bound, then says no; the span is as large as may be and not larger.
    """
    with active.tracer.start_as_current_span("GET /"):
        answers = [snapshot() for _ in range(200)]

    taken = answers.count(True)
    assert 1 < taken < 200
    assert answers == [True] * taken + [False] * (200 - taken)
    assert len(active.events()) == taken
    assert sum(size_of(event.name, event.attributes) for event in active.events()) <= SPAN_BYTES
    assert faults.counts["dropped", "span budget"] == 200 - taken


def test_the_budget_of_the_process(active):
    """
    Many spans fill the process's bound; five seconds later there is room again.
    """

    def one() -> bool:
        with active.tracer.start_as_current_span("GET /"):
            return snapshot()

    answers = [one() for _ in range(1000)]

    assert answers.count(False) > 0
    assert sum(size_of(event.name, event.attributes) for event in active.events()) <= PROCESS_BYTES
    assert faults.counts["dropped", "process budget"] == answers.count(False)
    active.clock.advance(5001)
    assert one()


def test_no_stack_is_taken_for_nothing(active, monkeypatch):
    """
    Without a recording span, or without room, it does not even look at the stack.
    """
    taken = []
    monkeypatch.setattr(snapshots, "capture", taken.append)
    monkeypatch.setattr(active.introspection.reporter, "has_room", lambda: False)

    assert snapshot() is False
    with active.tracer.start_as_current_span("GET /"):
        assert snapshot() is False

    assert taken == []
    assert faults.counts == {("dropped", "process budget"): 1}


def test_without_an_instrumentor(tracing, monkeypatch):
    """
    In a process where nothing has been set up it works all the same, and still starts no thread.
    """
    monkeypatch.setattr(introspection, "_fallback", None)
    monkeypatch.setenv("OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD", "123")
    activate(None)
    before = threading.active_count()

    with tracing.tracer.start_as_current_span("GET /"):
        assert snapshot()
        assert snapshot()

    assert [event.attributes["otel_introspect.snapshot.index"] for event in tracing.events()] == [0, 1]
    assert tracing.events()[0].attributes["otel_introspect.threshold_ms"] == 123
    assert threading.active_count() == before
