"""What lands on a span: names, types and bounds."""

from __future__ import annotations

import sys
import threading
import weakref

import pytest
from opentelemetry.sdk.trace import TracerProvider

from otel_introspect import faults
from otel_introspect.config import EvidenceConfig
from otel_introspect.engine.closing import close_before_end
from otel_introspect.engine.live_table import Watch
from otel_introspect.engine.places import ThreadPlace
from otel_introspect.engine.stacks import Capture, capture, outwards
from otel_introspect.engine.threads import other_threads
from otel_introspect.engine.watchdog import Snapshot
from otel_introspect.sinks.budget import PROCESS_BYTES, SPAN_BYTES, ProcessBudget, size_of
from otel_introspect.sinks.reporter import SpanReporter


@pytest.fixture(name="reporter")
def _reporter(clock):
    return SpanReporter(EvidenceConfig(), clock=clock)


@pytest.fixture(name="span")
def _span():
    return TracerProvider().get_tracer(__name__).start_span("GET /")


def deep(n: int):
    return deep(n - 1) if n else capture(outwards(sys._getframe()))


def make(depth: int = 2, remaining: int = 4, **given) -> Snapshot:
    stack = deep(depth)
    values = {
        "taken": 1_700_000_000_000_000_000,
        "capture": stack,
        "thread_id": 7,
        "thread_name": "worker",
        "elapsed_ms": 1000,
        "threshold_ms": 1000,
        "observer": "thread",
        "lateness_ms": 0,
        "remaining": remaining,
    }
    return Snapshot(**{**values, **given})


def attached(span) -> int:
    return sum(size_of(event.name, event.attributes) for event in span.events)


def test_names_and_types_are_the_contract_s(reporter, span):
    """
    A snapshot event has exactly the attributes of the contract, each of its type.
    """
    assert reporter.report(span, make(depth=300, task_state="awaiting"))

    (event,) = span.events
    assert event.name == "otel_introspect.stack_snapshot"
    assert event.timestamp == 1_700_000_000_000_000_000
    assert {key: type(value) for key, value in event.attributes.items()} == {
        "code.stacktrace": str,
        "code.function.name": str,
        "code.file.path": str,
        "code.line.number": int,
        "thread.id": int,
        "thread.name": str,
        "otel_introspect.elapsed_ms": int,
        "otel_introspect.threshold_ms": int,
        "otel_introspect.snapshot.index": int,
        "otel_introspect.observer": str,
        "otel_introspect.lateness_ms": int,
        "otel_introspect.task.state": str,
        "otel_introspect.repeated": int,
        "otel_introspect.stack.frames": tuple,
    }
    assert type(span.attributes["otel_introspect.snapshots"]) is int
    reporter.mark_slow(span)
    assert span.attributes["otel_introspect.slow"] is True


def test_nothing_of_ours_is_called_an_exception(reporter, span):
    """
    No key of ours begins with ``exception.``: Grafana would show the event as *the* exception of the span.
    """
    reporter.report(span, make())

    assert not [key for event in span.events for key in event.attributes if key.startswith("exception.")]


def test_frames_are_there_only_when_the_text_was_cut(reporter, span):
    """
    A stack that fits is not repeated as a list; one that does not is there whole, innermost first.
    """
    reporter.report(span, make(capture=Capture(deep(0).positions[:2])))
    reporter.report(span, make(depth=300))

    short, long = span.events
    assert "otel_introspect.stack.frames" not in short.attributes
    frames = long.attributes["otel_introspect.stack.frames"]
    assert len(frames) == 129
    assert frames[0].startswith("deep (")
    assert frames[-1].endswith("outer frames omitted]")


def test_no_string_is_longer_than_it_may_be(span, clock):
    """
    Every string on the event, those in lists too, keeps to the configured number of UTF-8 bytes.
    """
    reporter = SpanReporter(EvidenceConfig(max_attribute_bytes=100), clock=clock)
    others = other_threads({1: sys._getframe(), 2: sys._getframe()}, shown=3)

    assert reporter.report(span, make(depth=300, thread_name="ä" * 500, others=others))

    strings = [v for event in span.events for v in event.attributes.values() if isinstance(v, str)]
    strings += [item for event in span.events for v in event.attributes.values() if isinstance(v, tuple) for item in v]
    assert max(len(string.encode()) for string in strings) <= 100
    assert len(span.events) == 2


@pytest.mark.parametrize("count", [5, 40])
def test_a_span_never_carries_more_than_its_budget(reporter, span, count):
    """
    However many and however deep the snapshots, a span carries 16 KiB of ours at most, and what is dropped is counted.
    """
    for number in range(count):
        reporter.report(span, make(depth=120 + number, remaining=max(4 - number, 0)))

    assert attached(span) <= SPAN_BYTES
    assert len(span.events) >= 5
    assert len(span.events) + faults.counts["dropped", "span budget"] == count


def test_every_planned_snapshot_of_a_deep_stack_has_its_place(reporter, span):
    """
    The first snapshot's long list does not take the room of the four that follow.
    """
    for number in range(5):
        assert reporter.report(span, make(depth=300 - number, remaining=4 - number))

    assert [event.attributes["otel_introspect.snapshot.index"] for event in span.events] == [0, 1, 2, 3, 4]
    assert all("in deep" in event.attributes["code.stacktrace"] for event in span.events)


def test_a_process_emits_no_more_than_its_budget_in_five_seconds(reporter, clock):
    """
    256 KiB in five seconds, counted over a sliding window; afterwards there is room again.
    """
    tracer = TracerProvider().get_tracer(__name__)
    spans = [tracer.start_span(str(number)) for number in range(200)]
    taken = [reporter.report(span, make(depth=300)) for span in spans]

    assert sum(attached(span) for span in spans) <= PROCESS_BYTES
    assert taken[0]
    assert not taken[-1]
    clock.advance(5001)
    assert reporter.has_room()


def test_the_window_slides(clock):
    """
    What was emitted five seconds ago counts no more, what was emitted since does.
    """
    budget = ProcessBudget(clock)
    budget.spend(PROCESS_BYTES - 100)
    clock.advance(3000)
    budget.spend(50)
    assert budget.has_room(50)
    assert not budget.has_room(51)
    clock.advance(2000)
    assert budget.has_room(PROCESS_BYTES - 50)
    assert not budget.has_room(PROCESS_BYTES - 49)


def test_an_ended_span_is_left_alone(reporter, span, caplog):
    """
    To a span that has ended nothing is written, so that the SDK has nothing to warn about.
    """
    span.end()

    assert not reporter.report(span, make())
    reporter.mark_slow(span)
    assert caplog.records == []


def watch_of(span) -> Watch:
    return Watch(1, weakref.ref(span), ThreadPlace(1), 0)


def test_end_closes_first(span):
    """
    The end of an adopted span closes its evidence before the span is read-only, and the span is as it was.
    """
    seen = []

    class Noting(Watch):
        __slots__ = ()

        def close(self) -> None:
            seen.append(span.is_recording())
            super().close()

    watch = Noting(1, weakref.ref(span), ThreadPlace(1), 0)
    close_before_end(span, watch)
    span.end(end_time=12)

    assert seen == [True]
    assert watch.closed
    assert span.end_time == 12
    assert "end" not in vars(span)


def test_somebody_else_s_wrapping_of_end_is_kept(span):
    """
    Who had wrapped the span's ``end`` before us is still called.
    """
    calls = []
    span.end = lambda *args, **kwargs: (calls.append(kwargs), type(span).end(span, *args, **kwargs))
    close_before_end(span, watch_of(span))
    span.end(end_time=5)

    assert calls == [{"end_time": 5}]
    assert span.end_time == 5


def test_a_fault_while_closing_does_not_keep_the_span_from_ending(span):
    """
    If our part of the end fails, the span ends all the same and the fault is counted.
    """

    class Broken:
        def close(self):
            raise RuntimeError("broken")

    close_before_end(span, Broken())
    span.end()

    assert not span.is_recording()
    assert faults.counts["failed", "closing a span's evidence"] == 1


def test_an_adopted_span_is_not_kept_alive(span):
    """
    Wrapping a span's end makes no cycle that only the collector would break.
    """
    other = TracerProvider().get_tracer(__name__).start_span("other")
    close_before_end(other, watch_of(other))
    reference = weakref.ref(other)
    del other

    assert reference() is None


def test_a_sink_that_raises_costs_its_event_only(span, clock):
    """
    One sink's fault is counted; the other sinks still get the evidence.
    """

    class Broken:
        def emit(self, *_args):
            raise RuntimeError("broken")

    class Keeping:
        names: list[str] = []

        def emit(self, _span, name, _attributes, _timestamp):
            self.names.append(name)
            return True

    reporter = SpanReporter(EvidenceConfig(), clock=clock, sinks=[Broken(), Keeping()])

    assert reporter.report(span, make())
    assert Keeping.names == ["otel_introspect.stack_snapshot"]
    assert faults.counts["failed", "emitting to Broken"] == 1


def test_two_threads_that_report_at_once_number_their_snapshots(reporter, span):
    """
    A ``snapshot()`` of the request and the watchdog's never get the same index.
    """
    # A short stack: five whole ones of the test runner's own length may be more than a span may carry.
    whole = deep(2)
    short = whole._replace(positions=whole.positions[:3])
    threads = [threading.Thread(target=reporter.report, args=(span, make(capture=short))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(event.attributes["otel_introspect.snapshot.index"] for event in span.events) == list(range(5))
