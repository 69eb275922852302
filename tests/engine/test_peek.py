"""The observer ``signal``: the alarm looks where the introspector can't, and nobody else notices."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from math import inf

import pytest
from profiled import running, until

from otel_introspect import DeadlineExceeded, faults, timeout
from otel_introspect.engine.alarm import ALARM
from otel_introspect.engine.introspector import INTROSPECTOR_NAME
from otel_introspect.engine.live_table import Watch
from otel_introspect.engine.places import TaskPlace, ThreadPlace

THRESHOLD = 100
SNAPSHOT = "otel_introspect.stack_snapshot"
OBSERVER = "otel_introspect.observer"
ELAPSED = "otel_introspect.elapsed_ms"

SCRIPT = """
import json, math, os, re, signal, sys, threading, time
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otel_introspect import faults
from otel_introspect.config import IntrospectConfig, ProfilerConfig, RecorderConfig, WatchdogConfig
from otel_introspect.engine.alarm import ALARM
from otel_introspect.introspection import Introspection, activate
from otel_introspect.processors.watchdog import WatchdogSpanProcessor

def say(*what):
    print(json.dumps(what), flush=True)

introspection = Introspection(IntrospectConfig(
    watchdog=WatchdogConfig(threshold=200),
    profiler=ProfilerConfig(triggers=()),
    recorder=RecorderConfig(directory="none"),
))
activate(introspection)
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(WatchdogSpanProcessor(introspection))
provider.add_span_processor(SimpleSpanProcessor(exporter))
request = provider.get_tracer("test").start_as_current_span

def timer():
    return signal.getitimer(signal.ITIMER_REAL)

def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)

def observers():
    return [
        [event.attributes["otel_introspect.observer"] for event in span.events]
        for span in exporter.get_finished_spans()
    ]
"""


def stuck(seconds):
    """Keep the GIL for about that long, or twice that, in one call."""
    took = []
    for _ in range(3):
        began = time.perf_counter()
        re.match(r"^(a+)+$", "a" * 14 + "!")
        took.append(time.perf_counter() - began)
    length = 14 + math.ceil(math.log2(seconds / min(took)))  # each letter more takes twice as long
    re.match(r"^(a+)+$", "a" * length + "!")


def run(script, *, code=0):
    """Run *script* in a process of its own: what it said."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + inspect.getsource(stuck) + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(autouse=True)
def _given_back():
    yield
    ALARM.dismiss()
    ALARM.release()


@pytest.fixture(name="watched")
def _watched():
    with running() as make:
        yield make(watchdog={"threshold": THRESHOLD})


def snapshots(span):
    return [event for event in span.events if event.name == SNAPSHOT]


# What it sees.


def test_a_regular_expression_is_seen_while_it_runs(watched):
    """
    A request that keeps the GIL in a regular expression has snapshots by the alarm at its thresholds, of that line.
    """
    with watched.request():
        stuck(0.4)

    events = snapshots(watched.span())
    by_alarm = [event for event in events if event.attributes[OBSERVER] == "signal"]
    assert by_alarm
    assert "stuck" in {event.attributes["code.function.name"] for event in by_alarm}
    assert all("re.match" in event.attributes["code.stacktrace"] for event in by_alarm)
    assert all("otel_introspect/" not in event.attributes["code.stacktrace"] for event in events)
    assert [event.attributes["otel_introspect.snapshot.index"] for event in events] == list(range(len(events)))
    assert watched.span().attributes["otel_introspect.slow"] is True
    assert watched.span().attributes["otel_introspect.snapshots"] == len(events)
    assert not faults.counts


def test_the_first_request_is_seen_however_unprepared(watched):
    """
    A process whose very first request keeps the GIL from its start, so that nothing was loaded, has the snapshot.
    """
    assert watched
    said = run(
        """
        with request("GET /"):
            stuck(0.5)
        say(observers(), dict(faults.counts))
        provider.shutdown()
        """
    )

    (observers, counts) = said[0]
    assert "signal" in observers[0]
    assert counts == {}


def test_sleep_is_the_thread_s(watched):
    """
    Where the introspector comes in time it is the one who looks, and the alarm does not ring.
    """
    rings = []

    def onlooker(now, frame):
        if frame is not None:
            rings.append(now)
        return inf, None

    ALARM.look_on(onlooker)
    try:
        for _ in range(3):
            with watched.request():
                time.sleep(3.5 * THRESHOLD / 1000)
    finally:
        ALARM.look_away(onlooker)

    by = [event.attributes[OBSERVER] for span in watched.spans() for event in snapshots(span)]
    assert len(by) == 6
    assert by.count("thread") >= len(by) - len(rings)  # a machine that stands still makes it ring
    assert len(rings) <= 3


def test_the_evidence_is_there_if_the_request_ends_right_after(watched):
    """
    The span that ends before the introspector has the GIL again is marked and has what the alarm has seen.
    """
    done = threading.Event()

    def end(span):
        span.end()
        done.set()

    span = watched.tracer.start_span("GET /")
    stuck(0.3)
    end(span)

    finished = watched.span()
    assert finished.attributes["otel_introspect.slow"] is True
    assert snapshots(finished)


def test_the_profile_of_what_the_alarm_found_begins_once():
    """
    The introspector begins the profile of a request that the alarm has found slow when it comes to it, once.
    """
    told = []
    with running() as make:
        watched = make(watchdog={"threshold": THRESHOLD}, triggers=("slow",))
        watchdog = watched.introspection.watchdog
        original = watchdog._turned_slow

        def turned_slow(span, watch):
            told.append((threading.current_thread().name, watch.key))
            original(span, watch)

        watchdog._turned_slow = turned_slow
        with watched.request():
            stuck(0.3)
            time.sleep(0.3)

    assert len(told) == 1
    assert told[0][0] == INTROSPECTOR_NAME


def test_who_wants_the_evidence_is_told_in_the_handler(watched):
    """
    ``peeked`` is called in the main thread while the request is stuck, with the key, the stack and the time.
    """
    seen = []
    peek = watched.introspection.peek
    peek.peeked = lambda key, capture, taken: seen.append((key, capture, taken, threading.get_ident()))
    before = time.time_ns()
    with watched.request() as span:
        stuck(0.3)
        key = span.get_span_context().span_id

    assert seen
    assert {each[0] for each in seen} == {key}
    assert all(before < taken <= time.time_ns() for _, _, taken, _ in seen)
    assert {each[3] for each in seen} == {threading.main_thread().ident}
    assert any(code.co_name == "stuck" for code, _ in seen[0][1].positions)


def test_who_raises_there_harms_nobody(watched):
    """
    A fault of whoever is told is counted, and the request has its evidence.
    """
    watched.introspection.peek.peeked = lambda *_: 1 / 0
    with watched.request():
        stuck(0.3)

    assert snapshots(watched.span())
    assert faults.counts["failed", "handing on what was peeked at"] >= 1


# Without a clock of its own: the handler is called by hand.


@pytest.fixture(name="by_hand")
def _by_hand(tracing, monkeypatch):
    """Looks by hand, at the tracing's own clock."""
    monkeypatch.setattr(ALARM, "is_standing_by", True)
    monkeypatch.setattr("otel_introspect.engine.peek._TURNS", 0)  # there is no thread to wait for
    peek = tracing.introspection.peek

    def look():
        peek._due = 0.0
        _, error = peek._answer(time.monotonic(), sys._getframe(1))
        assert error is None
        due, peek._due = peek._due, inf
        return round((due - time.monotonic() - 0.02) * 1000, -1)

    return look


def test_only_what_is_due_is_looked_at(tracing, by_hand):
    """
    The handler looks at spans past their threshold, at each power of two once, and says when it wants to come again.
    """
    span = tracing.start()
    tracing.clock.advance(600)
    assert by_hand() == 400
    tracing.clock.advance(400)
    assert by_hand() == 1000
    assert by_hand() == 1000
    tracing.clock.advance(7000)
    assert by_hand() == 1000  # a new one may be due by then
    span.end()

    assert [event.attributes[ELAPSED] for event in tracing.events()] == [1000, 8000]
    assert {event.attributes[OBSERVER] for event in tracing.events()} == {"signal"}
    assert [event.attributes["otel_introspect.lateness_ms"] for event in tracing.events()] == [0, 6000]


def test_a_first_look_is_the_alarm_s_where_the_introspector_was_stopped_before_its_own(tracing, by_hand):
    """
    What is added later to a span that the introspector has only moved to the slow ones is written before that ends.
    """
    span = tracing.start()
    tracing.clock.advance(1000)
    started = span.start_time - tracing.clock.offset
    key = span.get_span_context().span_id
    watch = tracing.introspection.table.turn_slow(key, started)
    watch.next_at = started + 1_000_000_000

    by_hand()
    recording = []
    watch.before_close(lambda: recording.append(span.is_recording()))
    span.end()

    assert [event.attributes[OBSERVER] for event in tracing.events()] == ["signal"]
    assert recording == [True]


def test_the_introspector_goes_on_where_the_alarm_was(tracing, by_hand):
    """
    What one of the two has looked at the other does not look at again; together they keep to the number of snapshots.
    """
    span = tracing.start()
    tracing.clock.advance(1000)
    by_hand()
    tracing.look()
    tracing.look(1000)
    by_hand()
    tracing.clock.advance(2000)
    by_hand()
    for _ in range(200):
        tracing.look(500)
        by_hand()
    span.end()

    assert [event.attributes[ELAPSED] for event in tracing.events()] == [1000, 2000, 4000, 8000, 16000]
    assert [event.attributes[OBSERVER] for event in tracing.events()][:3] == ["signal", "thread", "signal"]


def test_other_threads_spans_are_not_its_business(tracing, by_hand):
    """
    A span whose place is another thread is left to the introspector.
    """
    span = tracing.start()
    tracing.introspection.table.relocate(span.get_span_context().span_id, threading.get_ident() + 1)
    tracing.clock.advance(1000)
    by_hand()

    assert not tracing.introspection.table.slow
    span.end()
    assert tracing.events() == []


def test_only_the_task_that_runs_is_seen(tracing, by_hand):
    """
    Of two tasks in the main thread the one that keeps it has a snapshot, down from itself; the parked one has none.
    """

    async def request(name, *, blocks):
        span = tracing.start(name)
        tracing.introspection.table.relocate(
            span.get_span_context().span_id, TaskPlace(asyncio.current_task(), threading.get_ident())
        )
        if blocks:
            await asyncio.sleep(0)
            tracing.clock.advance(1500)
            by_hand()
        else:
            await asyncio.sleep(0.05)
        span.end()

    async def both():
        await asyncio.gather(request("parked", blocks=False), request("running", blocks=True))

    asyncio.run(both())

    found = {span.name: snapshots(span) for span in tracing.exporter.get_finished_spans()}
    assert found["parked"] == []
    (event,) = found["running"]
    assert event.attributes["otel_introspect.task.state"] == "running"
    assert "in request" in event.attributes["code.stacktrace"]
    assert "in both" not in event.attributes["code.stacktrace"]


def test_a_lock_that_is_held_is_not_waited_for(tracing, by_hand):
    """
    The handler takes neither the watch's lock nor the span's: what it leaves is written when they are free.
    """
    span = tracing.start()
    tracing.clock.advance(1000)
    by_hand()
    (watch,) = tracing.introspection.table.slow.values()
    holds, let_go = threading.Event(), threading.Event()

    def hold():
        with watch.lock, span._lock:
            holds.set()
            let_go.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(20)
    tracing.clock.advance(1000)
    by_hand()
    let_go.set()
    thread.join()
    span.end()

    assert [event.attributes[ELAPSED] for event in tracing.events()] == [1000, 2000]


def test_a_span_that_can_t_be_changed_is_seen_all_the_same(tracing, by_hand, monkeypatch):
    """
    Where the span's end can't be wrapped that is counted, not logged, and the introspector writes what there is.
    """

    def refuse(_span, _watch):
        raise AttributeError

    monkeypatch.setattr("otel_introspect.engine.closing.adopt", refuse)
    span = tracing.start()
    tracing.clock.advance(1000)
    by_hand()
    tracing.look()
    span.end()

    assert len(tracing.events()) == 1
    assert faults.counts["failed", "adopting a slow span"] == 1


def test_a_forgotten_span_is_not_kept(tracing, by_hand):
    """
    What the handler leaves keeps a span that nobody ends no longer than until the introspector comes.
    """
    span = tracing.start()
    key = span.get_span_context().span_id
    tracing.clock.advance(1000)
    by_hand()
    tracing.look()
    del span
    watch = tracing.introspection.table.slow.get(key)

    assert watch is None or watch.reference() is None


def test_a_forked_child_has_nothing_of_it(tracing, by_hand):
    """
    In a child nothing waits to be gone on with, and no ring is due.
    """
    span = tracing.start()
    tracing.clock.advance(1000)
    by_hand()
    peek = tracing.introspection.peek
    assert peek.handed
    peek.after_fork()

    assert not peek.handed
    assert peek._next_due() == inf
    span.end()


# Whose SIGALRM it is.


def test_no_timer_runs_when_nothing_is_open(watched):
    """
    Once the introspector has parked, no timer runs; the handler stands by.
    """
    for _ in range(3):
        with watched.request():
            time.sleep(0.01)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        until(lambda: watched.introspection.introspector.parked)
        until(lambda: signal.getitimer(signal.ITIMER_REAL) == (0, 0))

    assert ALARM.is_standing_by


def test_somebody_else_s_handler_is_left_alone():
    """
    Who has SIGALRM before us keeps it, and their timer; slow requests are seen by the thread only.
    """
    said = run(
        """
        rang = []
        signal.signal(signal.SIGALRM, lambda *_: rang.append(time.monotonic()))
        signal.setitimer(signal.ITIMER_REAL, 0.7)
        with request("GET /"):
            time.sleep(0.3)
            say(timer()[0] < 0.5, timer()[1])
            until(lambda: rang)
        say(len(rang), observers(), ALARM.is_standing_by)
        provider.shutdown()
        """
    )

    assert said[0] == [True, 0]
    assert said[1][0] == 1
    assert set(said[1][1][0]) == {"thread"}
    assert said[1][2] is False


def test_who_takes_sigalrm_later_has_it_for_themselves():
    """
    A handler that is set while a request is open is never called for a ring of ours, and its timer rings on time.
    """
    said = run(
        """
        rang = []
        with request("GET /"):
            signal.signal(signal.SIGALRM, lambda *_: rang.append(time.monotonic()))
            time.sleep(0.7)
            say(len(rang), timer()[0])
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            time.sleep(0.3)
            say(len(rang))
            until(lambda: rang)
            time.sleep(0.5)
        say(len(rang))
        provider.shutdown()
        """
    )

    assert said == [[0, 0], [0], [1]]


@pytest.mark.parametrize("seconds", [1, 2])
def test_an_alarm_without_a_handler_still_ends_the_process(seconds):
    """
    Who sets an alarm within a request and counts on what SIGALRM does by default is not kept from it.
    """
    run(
        f"""
        with request("GET /"):
            signal.alarm({seconds})
            for _ in range(300):
                time.sleep(0.05)
        """,
        code=-signal.SIGALRM,
    )


def test_a_program_that_takes_this_one_s_place_lives():
    """
    ``os.exec`` in the middle of a request, or right after one, starts a program without a timer.
    """
    said = run(
        """
        with request("GET /"):
            time.sleep(0.01)
            assert timer()[0] > 0
            try:
                os.execvp("/nowhere/at/all", ["x"])
            except OSError:
                say("still here", timer()[0] > 0)
            child = "import signal, time; print(list(signal.getitimer(0))); time.sleep(1)"
            os.execl(sys.executable, sys.executable, "-c", child)
        """
    )

    assert said == [["still here", True], [0.0, 0.0]]


def test_exec_is_as_it_was_when_sigalrm_is_given_back():
    """
    Nothing of ``os`` is changed for longer than the handler is ours.
    """
    before = (os.execv, os.execve)
    assert ALARM.stand_by()
    assert os.execv is not before[0]
    ALARM.dismiss()

    assert (os.execv, os.execve) == before


def test_a_limit_keeps_its_time_beside_it(watched):
    """
    A limit that is due before or after the alarm's own time fires on time, in a call that blocks, too.
    """
    for limit in (0.05, 0.15, 0.35):
        with watched.request():
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded), timeout(limit, DeadlineExceeded):
                time.sleep(20)
            took = time.monotonic() - began
        assert limit - 0.001 < took < limit + 5


def test_other_threads_requests_do_nothing_to_it(watched):
    """
    Requests of other threads are watched as ever, and nothing of ours comes into the main thread's way.
    """

    def work():
        with watched.request():
            time.sleep(0.25)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert {event.attributes[OBSERVER] for event in snapshots(watched.span())} == {"thread"}


def test_without_the_observer_sigalrm_is_left_alone():
    """
    With ``thread`` as the only observer, and no profiles, the handler is nobody's.
    """
    with running() as make:
        watched = make(watchdog={"threshold": THRESHOLD, "observers": ("thread",)})
        before = signal.getsignal(signal.SIGALRM)
        with watched.request():
            assert signal.getsignal(signal.SIGALRM) is before
            assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)

    assert watched.introspection.peek is None


# The two at once.


def test_of_two_who_turn_a_span_slow_one_has_it(tracing):
    """
    However the introspector and the handler meet in the middle of it, a span becomes slow once and is in no limbo.
    """
    table = tracing.introspection.table
    for _ in range(300):
        span = tracing.start()
        key = span.get_span_context().span_id
        found = []
        barrier = threading.Barrier(2)

        def turn(key=key, found=found, barrier=barrier):
            barrier.wait()
            found.append(table.turn_slow(key, 0))

        threads = [threading.Thread(target=turn) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (watch,) = [each for each in found if each is not None]
        assert table.slow[key] is watch
        assert watch.is_settled
        assert key not in table.open
        assert not watch.closed
        span.end()
        assert watch.closed
        assert key not in table


def test_one_that_is_just_turning_slow_is_left_alone(tracing):
    """
    The introspector waits for a handler that it has interrupted in the middle, and goes on when that is done.
    """
    span = tracing.start()
    table = tracing.introspection.table
    key = span.get_span_context().span_id
    watch = Watch(key, table.open[key][0], ThreadPlace(threading.get_ident()), tracing.clock.now)
    table.slow[key] = watch
    assert tracing.look(1000) == 0
    assert key in table.open
    watch.is_settled = True
    tracing.look()

    assert key not in table.open
    assert table.slow[key] is watch
    span.end()
