"""When which span is looked at; a test's clock and no thread."""

from __future__ import annotations

import gc
import sys
import threading
import time

from opentelemetry.sdk.trace import SpanLimits, TracerProvider

from otel_introspect import faults
from otel_introspect.engine.places import ThreadPlace

MILLISECOND = 1_000_000


def test_a_span_within_the_threshold_gets_nothing(tracing):
    """
    A span that ends before it counts as slow has no event and no attribute of ours.
    """
    span = tracing.start()
    tracing.look(999)
    span.end()
    tracing.look(1000)

    (finished,) = tracing.exporter.get_finished_spans()
    assert dict(finished.attributes) == {}
    assert finished.events == ()


def test_snapshots_come_at_powers_of_two_times_the_threshold(tracing):
    """
    A span that stays open is looked at after 1, 2, 4, 8 and 16 thresholds, and then no more.
    """
    span = tracing.start()
    for _ in range(400):
        tracing.look(100)
    span.end()

    assert [event.attributes["otel_introspect.elapsed_ms"] for event in tracing.events()] == [
        1000,
        2000,
        4000,
        8000,
        16000,
    ]
    assert [event.attributes["otel_introspect.snapshot.index"] for event in tracing.events()] == [0, 1, 2, 3, 4]


def test_the_watchdog_says_when_to_come_again(tracing):
    """
    It sleeps until the oldest span is due, a whole threshold while none is due sooner, and for ever when there is none.
    """
    assert tracing.look() is None

    span = tracing.start()
    tracing.clock.advance(400)
    other = tracing.start()
    assert tracing.look() == 600 * MILLISECOND
    assert tracing.look(600) == 400 * MILLISECOND
    assert tracing.look(400) == 600 * MILLISECOND  # the first one's second snapshot
    span.end()
    assert tracing.look() == 1000 * MILLISECOND  # the other's second one, or anything new
    other.end()
    assert tracing.look() is None


def test_a_late_look_takes_one_snapshot_and_says_how_late(tracing):
    """
    Who was kept from looking for three thresholds takes one snapshot, not three, and goes on with the next that is due.
    """
    span = tracing.start()
    tracing.look(3300)
    tracing.look(700)
    span.end()

    first, second = tracing.events()
    assert first.attributes["otel_introspect.lateness_ms"] == 2300
    assert first.attributes["otel_introspect.elapsed_ms"] == 3300
    assert second.attributes["otel_introspect.elapsed_ms"] == 4000
    assert second.attributes["otel_introspect.lateness_ms"] == 0


def test_max_snapshots_is_kept(make_tracing):
    """
    A span gets as many snapshots as it may have and no more.
    """
    tracing = make_tracing(max_snapshots=2)
    span = tracing.start()
    for _ in range(50):
        tracing.look(1000)
    span.end()

    assert len(tracing.events()) == 2


def test_repeated_counts_identical_stacks_in_a_row(tracing):
    """
    Each snapshot says how many in a row have shown the identical stack, itself included.
    """
    span = tracing.start()
    for wait in (1000, 1000, 2000):
        tracing.look(wait)
    (lambda: tracing.look(4000))()
    span.end()

    assert [event.attributes["otel_introspect.repeated"] for event in tracing.events()] == [1, 2, 3, 1]


def test_spans_are_looked_at_in_the_order_of_their_start(tracing):
    """
    Of many open spans each is seen when it is due itself.
    """
    spans = []
    for number in range(10):
        spans.append(tracing.start(str(number)))
        tracing.clock.advance(100)
    tracing.look(0)
    tracing.look(150)
    for span in spans:
        span.end()

    slow = {s.name for s in tracing.exporter.get_finished_spans() if "otel_introspect.slow" in s.attributes}
    assert slow == {"0", "1"}


def test_a_start_in_the_future_holds_nobody_up(tracing):
    """
    A span whose caller gave it a start an hour ahead does not keep those behind it from being watched.
    """
    odd = tracing.start("odd", start_time=tracing.clock.wall() + 3_600_000 * MILLISECOND)
    span = tracing.start("normal")
    tracing.look(0)
    tracing.look(1000)
    span.end()
    odd.end()

    assert [event.attributes["otel_introspect.elapsed_ms"] for event in tracing.events()] == [1000, 1000]


def test_a_start_in_the_past_counts(tracing):
    """
    A span that began before it was made, as some servers do, is late from its real start.
    """
    span = tracing.start(start_time=tracing.clock.wall() - 700 * MILLISECOND)
    tracing.look(300)
    span.end()

    (event,) = tracing.events()
    assert event.attributes["otel_introspect.elapsed_ms"] == 1000


def test_a_wall_clock_that_jumps_ahead_makes_nobody_slow(tracing):
    """
    Setting the machine's clock an hour ahead gives no false evidence, and does not end the watching.
    """
    span = tracing.start()
    tracing.look(100)
    tracing.clock.set_wall(3_600_000)
    tracing.look(100)
    newer = tracing.start("newer")
    assert span.attributes.get("otel_introspect.slow") is None

    tracing.look(800)
    tracing.look(200)
    span.end()
    newer.end()

    assert [event.attributes["otel_introspect.elapsed_ms"] for event in tracing.events()] == [1000, 1000]


def test_a_wall_clock_that_jumps_back_makes_nobody_blind(tracing):
    """
    Setting the machine's clock an hour back does not delay the evidence by an hour.
    """
    span = tracing.start()
    tracing.look(100)
    tracing.clock.set_wall(-3_600_000)
    tracing.look(100)
    tracing.look(800)
    span.end()

    assert len(tracing.events()) == 1


def test_a_span_that_is_forgotten_is_dropped(tracing):
    """
    A span that nobody ends and nobody holds leaves the table when it would be due, and later ones are still watched.
    """
    tracing.start("forgotten")
    gc.collect()
    span = tracing.start("kept")
    tracing.look(1000)
    span.end()

    assert not tracing.introspection.table
    assert len(tracing.events()) == 1


def test_a_slow_span_that_is_forgotten_is_swept(tracing):
    """
    A span that turned slow and is then forgotten leaves the table too, some looks later.
    """
    span = tracing.start()
    tracing.look(1000)
    del span
    gc.collect()
    for _ in range(200):
        tracing.look(1)

    assert not tracing.introspection.table


def test_other_spans_are_looked_at_when_one_look_fails(tracing, monkeypatch):
    """
    A fault of ours with one span costs that span's snapshot, one log line, and nothing else.
    """
    spans = [tracing.start(str(number)) for number in range(3)]
    real = ThreadPlace.stack
    calls = []

    def fails_once(place, frames):
        calls.append(place)
        if len(calls) == 1:
            raise RuntimeError("broken")
        return real(place, frames)

    monkeypatch.setattr(ThreadPlace, "stack", fails_once)
    tracing.look(1000)
    for span in spans:
        span.end()

    assert len(tracing.events()) == 2
    assert faults.counts["failed", "taking a snapshot"] == 1


def test_a_thousand_due_at_once_are_bounded_by_the_process_s_budget(tracing):
    """
    When everything is slow at once the process emits its 256 KiB, counts what it drops, and marks all spans as slow.
    """
    spans = [tracing.start(str(number)) for number in range(1000)]
    tracing.look(1000)
    for _ in range(20):
        tracing.look(1)
    for span in spans:
        span.end()

    finished = tracing.exporter.get_finished_spans()
    assert all(span.attributes["otel_introspect.slow"] for span in finished)
    assert 0 < len(tracing.events()) < 1000
    assert faults.counts["dropped", "process budget"] == 1000 - len(tracing.events())


def test_without_the_gil_slow_spans_are_marked_and_the_user_told_once(tracing, monkeypatch, caplog):
    """
    On a free-threaded build no stack is read; the span is marked slow all the same.
    """
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    span = tracing.start()
    tracing.look(1000)
    tracing.look(1000)
    span.end()

    (finished,) = tracing.exporter.get_finished_spans()
    assert dict(finished.attributes) == {"otel_introspect.slow": True, "otel_introspect.snapshots": 0}
    assert tracing.events() == []
    assert sum("free-threaded" in record.message for record in caplog.records) == 1


def test_the_other_threads_are_shown_once_and_grouped(make_tracing):
    """
    With ALL_THREADS a slow span has one event that counts the threads which wait for the same lock.
    """
    tracing = make_tracing(all_threads=True)
    lock, started = threading.Lock(), threading.Barrier(5)

    def contender():
        started.wait()
        with lock:
            pass

    with lock:
        threads = [threading.Thread(target=contender, name=f"contender-{n}") for n in range(4)]
        for thread in threads:
            thread.start()
        started.wait()
        time.sleep(0.1)  # until all of them are at the lock, which can't be seen from outside
        span = tracing.start()
        tracing.look(1000)
        tracing.look(1000)
        span.end()
    for thread in threads:
        thread.join()

    (event,) = tracing.events("otel_introspect.threads")
    text = event.attributes["otel_introspect.threads.text"]
    assert event.attributes["otel_introspect.threads.count"] >= 4
    assert "4 threads: contender-0, contender-1, contender-2, contender-3" in text
    assert "with lock:" in text
    assert len(text.encode()) <= 2000


def test_the_application_s_events_are_never_pushed_out(make_tracing, clock):
    """
    A span that is full of the application's own events and attributes keeps them all.
    """
    tracing = make_tracing()
    provider = TracerProvider(span_limits=SpanLimits(max_events=3, max_span_attributes=2))
    for processor in tracing.provider._active_span_processor._span_processors:
        provider.add_span_processor(processor)
    span = provider.get_tracer("t").start_span("full", start_time=clock.wall(), attributes={"a": 1, "b": 2})
    for number in range(3):
        span.add_event(f"own {number}")
    tracing.look(1000)
    span.end()

    (finished,) = tracing.exporter.get_finished_spans()
    assert [event.name for event in finished.events] == ["own 0", "own 1", "own 2"]
    assert dict(finished.attributes) == {"a": 1, "b": 2}
    assert faults.counts["dropped", "span has no room for events"] == 1
