"""Requests that are profiled without being asked for it: those that turn slow, that fail, or that are chosen."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanContext, StatusCode, TraceFlags
from profiled import ID, PROFILE, SNAPSHOT, TEXT, busy, idle, profiles_of, running, until

from otel_introspect import faults, introspection, profile, timeout
from otel_introspect.config import IntrospectConfig, ProfilerConfig
from otel_introspect.engine.sampler import MAX_THREADS
from otel_introspect.errors import DeadlineExceeded
from otel_introspect.introspection import Introspection
from otel_introspect.sinks.budget import SPAN_BYTES, size_of

THRESHOLD = 60
SLOW = 0.2
"""Seconds: well beyond the threshold."""
SOON = 0.25
"""Seconds: well beyond the age at which ``tail`` begins."""


@pytest.fixture(name="make_profiled")
def _make_profiled(monkeypatch):
    monkeypatch.setattr(introspection, "_fallback", None)
    with running() as make_profiled:
        yield make_profiled


@pytest.fixture(name="slow")
def _slow(make_profiled):
    return make_profiled(triggers=("slow",), watchdog={"threshold": THRESHOLD})


@pytest.fixture(name="tail")
def _tail(make_profiled):
    """No request is slow."""
    return make_profiled(triggers=("tail",), watchdog={"threshold": 60_000})


@pytest.fixture(name="tail_alone")
def _tail_alone(make_profiled):
    """Slow requests are not looked for."""
    return make_profiled(triggers=("tail",), watchdog={"threshold": 0})


def trigger_of(event):
    return event.attributes["otel_introspect.profile.trigger"]


def in_threads(functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- slow -----------------------------------------------------------------------------------------------------------


def early(seconds):
    busy(seconds)


def late(seconds):
    busy(seconds)


def test_a_request_that_turns_slow(slow):
    """
    A slow request has a profile of what it did since it was slow, beside its snapshots.
    """
    with slow.request():
        early(0.02)
        late(SLOW)

    span = slow.span()
    (event,) = profiles_of(span)
    assert trigger_of(event) == "slow"
    assert event.attributes[ID] == span.attributes[ID]
    assert "late" in event.attributes[TEXT]
    assert "early" not in event.attributes[TEXT]
    assert event.attributes["otel_introspect.profile.interval_ms"] == 10
    assert 50 < event.attributes["otel_introspect.profile.duration_ms"] <= 1000 * SLOW
    assert span.attributes["otel_introspect.slow"] is True
    assert any(each.name == SNAPSHOT for each in span.events)
    until(slow.is_clean)
    assert not faults.counts


def test_a_fast_request_has_none(slow):
    """
    A request within the threshold has nothing, and nothing is remembered of it.
    """
    with slow.request():
        busy(0.01)

    assert slow.span().events == ()
    assert dict(slow.span().attributes) == {}
    assert slow.is_clean()


def test_slow_in_a_thread(slow):
    """
    A request in a thread, and only that thread.
    """

    def run():
        with slow.request():
            late(SLOW)

    thread = threading.Thread(target=run)
    thread.start()
    early(SLOW / 2)
    thread.join()

    assert "late" in slow.text()
    assert "early" not in slow.text()


def test_slow_in_a_task(slow):
    """
    A request in a task, and only that task: what others do meanwhile is its waiting.
    """

    async def one():
        with slow.request():
            for number in range(12):
                late(0.02 + number / 1000)  # in no step with the sampling
                await asyncio.sleep(0.01)

    async def other():
        for _ in range(12):
            early(0.013)
            await asyncio.sleep(0.006)

    async def main():
        await asyncio.gather(one(), other())

    asyncio.run(main())

    assert "late" in slow.text()
    assert "sleep" in slow.text()
    assert "early" not in slow.text()


def test_slow_while_it_waits(slow):
    """
    A request that does nothing but wait shows where.
    """
    with slow.request():
        idle(SLOW)

    assert "idle" in slow.text()


def test_several_slow_at_once(slow):
    """
    Each of several slow requests has its own profile, with its own work.
    """

    def request(number):
        with slow.request(f"GET /{number}"):
            if number % 2:
                late(3 * SLOW)
            else:
                idle(3 * SLOW)

    in_threads([lambda number=number: request(number) for number in range(6)])

    for number in range(6):
        text = slow.text(f"GET /{number}")
        assert ("late" in text, "idle" in text) == (bool(number % 2), not number % 2)
    assert len({event.attributes[ID] for event in slow.profiles()}) == 6
    until(slow.is_clean)


def test_more_than_can_be_sampled(slow):
    """
    Of more slow requests than may be sampled at once the first ones have a profile; the others are counted.
    """
    gate = threading.Event()

    def request():
        with slow.request():
            gate.wait(10)

    threads = [threading.Thread(target=request) for _ in range(MAX_THREADS + 7)]
    for thread in threads:
        thread.start()
    until(lambda: len(slow.profiler.sampler) == MAX_THREADS and faults.counts["refused", "profile: busy"] >= 7)
    time.sleep(0.1)  # a sample of each
    gate.set()
    for thread in threads:
        thread.join()

    assert len(slow.spans()) == MAX_THREADS + 7
    assert len(slow.profiles()) == MAX_THREADS
    assert faults.counts == {("refused", "profile: busy"): 7}
    assert all("wait" in event.attributes[TEXT] for event in slow.profiles())
    until(slow.is_clean)


def test_slow_and_ended_on_another_thread(slow):
    """
    Whoever ends the span, the profile is on it before.
    """
    span = slow.tracer.start_span("GET /")
    late(SLOW)
    in_threads([span.end])

    assert "late" in slow.text()
    until(slow.is_clean)


def test_slow_and_renamed(slow):
    """
    A slow request that gets its name late has its profile under that.
    """
    with slow.request("GET") as span:
        late(SLOW)
        span.update_name("GET /report/<id>")

    assert "late" in slow.text("GET /report/<id>")


def test_slow_and_forgotten(slow):
    """
    A slow request whose span nobody ends: its profile goes with it.
    """
    span = slow.tracer.start_span("GET /")
    until(lambda: len(slow.profiler.sampler))
    del span
    gc.collect()

    until(slow.is_clean)
    assert slow.spans() == []


def test_slow_and_ended_by_a_finalizer(slow):
    """
    A span that ends as what holds it is forgotten has its profile.
    """

    class Holder:
        def __init__(self, span):
            self.span = span

        def __del__(self):
            self.span.end()

    holder = Holder(slow.tracer.start_span("GET /"))
    late(SLOW)
    del holder
    gc.collect()

    assert "late" in slow.text()
    until(slow.is_clean)


def test_slow_and_ended_inside_a_block(slow, caplog):
    """
    An application that ends its span early, and again later, has the profile once, and no warning because of it.
    """
    with slow.request(end_on_exit=False) as span:
        late(SLOW)
        span.end()
        busy(0.03)

    assert len(slow.profiles()) == 1
    assert caplog.records == []
    until(slow.is_clean)


def test_an_adapter_closes_early(slow):
    """
    Where an adapter takes the request out of the table before its span ends, the profile is on it by then.
    """
    with slow.request() as span:
        late(SLOW)
        slow.introspection.table.discard(span.get_span_context().span_id)
        assert [event.name for event in span.events].count(PROFILE) == 1
        until(slow.is_clean)

    assert len(slow.profiles()) == 1


@pytest.mark.parametrize("trigger", ["slow", "tail"])
def test_left_out_after_it_was_slow(make_profiled, trigger):
    """
    A request that turns out to be exempt after it was found slow is no longer sampled, and has no profile.
    """
    profiled = make_profiled(triggers=(trigger,), watchdog={"threshold": 100})
    with profiled.request() as span:
        until(lambda: len(profiled.profiler.sampler) and profiled.introspection.table.slow)
        profiled.introspection.leave_out(span.get_span_context().span_id)
        assert profiled.is_clean()

    assert profiled.profiles() == []


def test_a_slow_child_span(slow):
    """
    Only entry spans are profiled of themselves.
    """
    with slow.request(), slow.request("SELECT"):
        late(SLOW)

    assert profiles_of(slow.span("SELECT")) == []
    assert len(profiles_of(slow.span())) == 1


def test_slow_with_a_block_inside(slow):
    """
    A slow request with a block of its own code in it has both profiles, whose room neither takes from the other.
    """
    with slow.request():
        late(SLOW)
        with profile() as taken:
            busy(0.03)

    events = profiles_of(slow.span())
    assert [trigger_of(event) for event in events] == ["code", "slow"]
    assert events[0].attributes[ID] == taken.id
    assert "late" in events[1].attributes[TEXT]
    until(slow.is_clean)


def test_slow_requests_one_after_the_other(slow):
    """
    The next slow request on the same thread has its own work only.
    """
    for name, function in (("one", late), ("two", idle)):
        with slow.request(name):
            function(SLOW)

    assert "late" in slow.text("one")
    assert "late" not in slow.text("two")


def test_work_in_pools_is_seen(slow):
    """
    Work that a slow request hands to a thread and waits for is in its profile.
    """

    async def main():
        with slow.request():
            await asyncio.to_thread(late, SLOW)

    from otel_introspect.profiling import pools

    pools.follow()
    asyncio.run(main())

    assert "late" in slow.text()


def test_the_longest_duration(make_profiled):
    """
    A profile stops when it may not go on, and says so; the request does not notice.
    """
    slow = make_profiled(triggers=("slow",), watchdog={"threshold": THRESHOLD}, max_duration=60)
    with slow.request():
        late(SLOW)
        early(0.1)

    (event,) = slow.profiles()
    assert event.attributes["otel_introspect.profile.truncated"] is True
    assert event.attributes["otel_introspect.profile.duration_ms"] < 1000 * SLOW
    assert "late" in event.attributes[TEXT]
    assert "early" not in event.attributes[TEXT]
    until(slow.is_clean)


def test_off(make_profiled):
    """
    Without triggers slow requests have snapshots only.
    """
    off = make_profiled(triggers=(), watchdog={"threshold": THRESHOLD})
    with off.request():
        late(SLOW)

    assert off.profiles() == []
    assert off.span().attributes["otel_introspect.slow"] is True
    assert ID not in off.span().attributes


def test_all_that_is_on_a_slow_span_is_bounded(make_profiled):
    """
    Snapshots of a deep stack and the profile together keep to the bound, and the profile is among them.
    """
    slow = make_profiled(triggers=("slow",), watchdog={"threshold": 15, "all_threads": True})

    def deep(n):
        return deep(n - 1) if n else late(0.5)

    with slow.request():
        deep(150)

    span = slow.span()
    assert len([event for event in span.events if event.name == SNAPSHOT]) >= 3
    (event,) = profiles_of(span)
    assert "late" in event.attributes[TEXT]
    assert len(event.attributes[TEXT].encode()) <= 2000
    assert sum(size_of(event.name, event.attributes) for event in span.events) <= SPAN_BYTES


# --- tail -----------------------------------------------------------------------------------------------------------


def test_fast_and_good_leaves_nothing(tail):
    """
    A request that was neither slow nor failed leaves no event, no attribute and no memory.
    """
    with tail.request():
        until(lambda: tail.profiler._live)
        (live,) = tail.profiler._live.values()
        recording = weakref.ref(live.sampled.recording)
        reference = weakref.ref(live)
        del live
        busy(SOON)

    assert tail.span().events == ()
    assert dict(tail.span().attributes) == {}
    until(tail.is_clean)
    until(lambda: gc.collect() is not None and reference() is None and recording() is None)
    until(lambda: not tail.profiler._tails)
    assert not faults.counts


def test_very_fast_is_never_sampled(tail, monkeypatch):
    """
    A request that ends before the age of 50 ms is not even begun with.
    """
    begun = []
    monkeypatch.setattr(tail.profiler, "begin", lambda *args, **_: begun.append(args))
    for _ in range(50):
        with tail.request():
            busy(0.001)

    assert begun == []


def test_a_failure_that_is_still_to_be_written(tail):
    """
    What is known of a request and put off until it ends decides, too, whether its profile is kept.
    """
    with tail.request() as span:
        until(lambda: tail.profiler._live)
        key = span.get_span_context().span_id
        watch = tail.introspection.table.turn_slow(key, time.monotonic_ns())
        busy(SOON)
        watch.put_off(lambda: span.set_attribute("error.type", "DeadlineExceeded"))

    (event,) = tail.profiles()
    assert trigger_of(event) == "tail"


@pytest.mark.parametrize("service", ["tail", "tail_alone"])
def test_an_error_status(request, service):
    """
    A request that ends with an error keeps the profile, which covers all from its first 50 ms on.
    """
    tail = request.getfixturevalue(service)
    with tail.request() as span:
        early(SOON)
        late(SOON)
        span.set_status(StatusCode.ERROR)

    (event,) = tail.profiles()
    assert trigger_of(event) == "tail"
    assert "early" in event.attributes[TEXT]
    assert "late" in event.attributes[TEXT]
    assert event.attributes["otel_introspect.profile.duration_ms"] >= 1000 * SOON
    until(tail.is_clean)


def test_an_exception_that_comes_out(tail):
    """
    A request that fails with an exception keeps it.
    """

    def fail():
        with tail.request():
            early(SOON)
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert "early" in tail.text()


def test_an_exception_that_is_recorded(tail):
    """
    A request that only records an exception keeps it.
    """
    with tail.request() as span:
        early(SOON)
        span.record_exception(KeyError("x"))

    assert "early" in tail.text()


def test_an_ok_status(tail):
    """
    A request that says that it is well does not.
    """
    with tail.request() as span:
        early(SOON)
        span.set_status(StatusCode.OK)
        span.add_event("cache miss")

    assert tail.profiles() == []


def test_a_deadline(tail):
    """
    A request that was interrupted keeps it, though it went on and ended well.
    """
    with tail.request():
        try:
            with timeout(SOON):
                early(10)
        except DeadlineExceeded:
            pass

    assert tail.span().attributes["otel_introspect.interrupted"] is True
    assert "early" in tail.text()


def test_tail_and_slow(make_profiled):
    """
    A request that turns slow keeps it, from its first 50 ms on, not from when it was slow.
    """
    tail = make_profiled(triggers=("tail",), watchdog={"threshold": 400})
    with tail.request():
        early(0.3)
        late(0.3)

    (event,) = tail.profiles()
    assert trigger_of(event) == "tail"
    assert "early" in event.attributes[TEXT]
    assert "late" in event.attributes[TEXT]
    until(tail.is_clean)


def test_slow_after_the_profile_has_stopped(make_profiled):
    """
    A request that turns slow after its profile had to stop keeps what there is.
    """
    tail = make_profiled(triggers=("tail",), watchdog={"threshold": 400}, max_duration=100)
    with tail.request():
        early(0.3)
        late(0.3)

    (event,) = tail.profiles()
    assert "early" in event.attributes[TEXT]
    assert "late" not in event.attributes[TEXT]
    assert event.attributes["otel_introspect.profile.truncated"] is True


def test_tail_with_an_adapter_that_closes_early(tail):
    """
    Where an adapter has taken the request out of the table, what comes after is not in it, and an error keeps it.
    """
    with tail.request() as span:
        early(SOON)
        tail.introspection.table.discard(span.get_span_context().span_id)
        until(lambda: len(tail.profiler.sampler) == 0)
        late(SOON)
        span.set_status(StatusCode.ERROR)

    assert "early" in tail.text()
    assert "late" not in tail.text()


@pytest.mark.parametrize("after", [0, SOON])
def test_left_out(tail, after):
    """
    An exempt view or an excluded URL never has one, whether it is left out before or after it was begun.
    """
    with tail.request() as span:
        busy(after)
        tail.introspection.leave_out(span.get_span_context().span_id)
        early(SOON)
        span.set_status(StatusCode.ERROR)

    assert tail.profiles() == []
    until(tail.is_clean)


def test_left_out_in_between(tail, monkeypatch):
    """
    Also not when it is left out just as it is about to be begun with.
    """
    begin = tail.profiler.begin_for_entry

    def leave_out_first(trigger, span, key):
        tail.introspection.leave_out(key)
        return begin(trigger, span, key)

    monkeypatch.setattr(tail.profiler, "begin_for_entry", leave_out_first)
    with tail.request() as span:
        early(SOON)
        span.set_status(StatusCode.ERROR)

    assert tail.profiles() == []
    until(tail.is_clean)


def test_many_fast_ones_at_once(tail):
    """
    More requests at once than may be sampled: each that is refused is counted once, and all end well.
    """
    gate = threading.Event()

    def request(number):
        with tail.request(f"GET /{number}") as span:
            gate.wait(10)
            span.set_status(StatusCode.ERROR)

    threads = [threading.Thread(target=request, args=(number,)) for number in range(MAX_THREADS + 5)]
    for thread in threads:
        thread.start()
    until(lambda: len(tail.profiler.sampler) == MAX_THREADS and faults.counts["refused", "profile: busy"] >= 5)
    time.sleep(0.2)
    gate.set()
    for thread in threads:
        thread.join()

    assert len(tail.profiles()) == MAX_THREADS
    assert faults.counts == {("refused", "profile: busy"): 5}
    until(tail.is_clean)
    until(lambda: not tail.profiler._tails)


def test_an_end_that_nobody_heard_of(tail, monkeypatch):
    """
    A span whose end was running when its profile began: that is dropped, though the span is still held.
    """
    monkeypatch.setattr("otel_introspect.profiling.profiler.close_before_end", lambda _span, _live: None)
    with tail.request() as span:
        until(lambda: tail.profiler._live)

    assert not span.is_recording()
    until(tail.is_clean)


def test_a_forgotten_one(tail):
    """
    A span that nobody ends takes what was seen with it.
    """
    span = tail.tracer.start_span("GET /")
    until(lambda: tail.profiler._live)
    del span
    gc.collect()

    until(tail.is_clean)


def test_a_span_whose_start_lies_in_the_past(tail):
    """
    A span that is told to have begun long ago is begun with at once.
    """
    span = tail.tracer.start_span("GET /", start_time=time.time_ns() - 5_000_000_000)
    until(lambda: tail.profiler._live)
    early(SOON)
    span.set_status(StatusCode.ERROR)
    span.end()

    assert "early" in tail.text()


# --- ratio ----------------------------------------------------------------------------------------------------------


def test_every_one(make_profiled):
    """
    A ratio of 1 profiles each request, from its first line on.
    """
    profiled = make_profiled(triggers=("ratio",), ratio=1.0)
    for number in range(3):
        with profiled.request(f"GET /{number}"):
            early(0.04)

    assert [trigger_of(event) for event in profiled.profiles()] == ["ratio"] * 3
    assert all("early" in event.attributes[TEXT] for event in profiled.profiles())
    until(profiled.is_clean)


@pytest.mark.parametrize("settings", [{"triggers": ("ratio",), "ratio": 0.0}, {"triggers": ("slow",), "ratio": 1.0}])
def test_none(make_profiled, settings):
    """
    A ratio of 0, or without the trigger, profiles none.
    """
    profiled = make_profiled(**settings)
    for _ in range(3):
        with profiled.request():
            early(0.02)

    assert profiled.profiles() == []
    assert profiled.is_clean()


def chosen(ratio, trace_ids):
    made = Introspection(IntrospectConfig(profiler=ProfilerConfig(triggers=("ratio",), ratio=ratio)))
    return [made.profiler.is_chosen(trace_id) for trace_id in trace_ids]


def test_a_share_by_trace_id():
    """
    A tenth of the traces is chosen; a larger ratio chooses the same ones and more.
    """
    ids = [random.Random(7).getrandbits(128) for _ in range(1)] + [random.getrandbits(128) for _ in range(20_000)]
    tenth, half = chosen(0.1, ids), chosen(0.5, ids)

    assert 0.08 < sum(tenth) / len(ids) < 0.12
    assert 0.46 < sum(half) / len(ids) < 0.54
    assert all(more for less, more in zip(tenth, half, strict=True) if less)
    assert chosen(1.0, [0, 2**128 - 1, 2**64 - 1, 2**64]) == [True] * 4
    assert chosen(0.0, [0, 1]) == [False] * 2


def test_a_share_of_what_opentelemetry_s_sampler_leaves():
    """
    Of the traces that a sampler by trace id has chosen a tenth is profiled, not all.
    """
    ids = [random.getrandbits(64) << 64 | random.randrange(2**64 // 10) for _ in range(20_000)]

    assert 0.08 < sum(chosen(0.1, ids)) / len(ids) < 0.12


def test_another_process_chooses_the_same():
    """
    Whether a trace is chosen depends on its id only: each service that it touches decides alike.
    """
    ids = [random.getrandbits(128) for _ in range(500)]
    script = """
        import sys
        from otel_introspect.config import IntrospectConfig, ProfilerConfig
        from otel_introspect.introspection import Introspection
        profiler = Introspection(IntrospectConfig(profiler=ProfilerConfig(triggers=("ratio",), ratio=0.1))).profiler
        print("".join(str(int(profiler.is_chosen(int(each)))) for each in sys.stdin.read().split()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        input=" ".join(map(str, ids)),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.strip() == "".join(str(int(each)) for each in chosen(0.1, ids))


def test_the_caller_s_trace(make_profiled):
    """
    The trace's id decides, which comes from the caller.
    """
    profiled = make_profiled(triggers=("ratio",), ratio=0.5)

    def request(name, trace_id):
        parent = trace.NonRecordingSpan(
            SpanContext(trace_id, 5, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        )
        with profiled.request(name, context=trace.set_span_in_context(parent)):
            early(0.03)

    some = [random.getrandbits(128) | 1 for _ in range(100)]
    is_chosen = dict(zip(some, chosen(0.5, some), strict=True))
    request("in", next(each for each in some if is_chosen[each]))
    request("out", next(each for each in some if not is_chosen[each]))

    assert len(profiles_of(profiled.span("in"))) == 1
    assert profiles_of(profiled.span("out")) == []


def test_all_triggers_together(make_profiled):
    """
    A request that every trigger wants has one profile: the first.
    """
    profiled = make_profiled(triggers=("slow", "tail", "ratio"), ratio=1.0, watchdog={"threshold": THRESHOLD})

    def fail():
        with profiled.request():
            early(SLOW)
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    (event,) = profiled.profiles()
    assert trigger_of(event) == "ratio"
    until(profiled.is_clean)


def test_tail_and_slow_are_one(make_profiled):
    """
    With ``slow`` and ``tail`` a slow request has the one that covers more.
    """
    profiled = make_profiled(triggers=("slow", "tail"), watchdog={"threshold": 400})
    with profiled.request():
        early(0.3)
        late(0.3)

    (event,) = profiled.profiles()
    assert trigger_of(event) == "tail"
    assert "early" in event.attributes[TEXT]


def test_asked_for_after_it_was_chosen(make_profiled):
    """
    A request that was chosen by chance, and is then asked for, has one profile: the one that was asked for.
    """
    profiled = make_profiled(triggers=("ratio", "request"), ratio=1.0, key="k" * 40)
    with profiled.request() as span:
        live = profiled.profiler.begin_for_entry("request", span, span.get_span_context().span_id)
        early(0.05)

    (event,) = profiled.profiles()
    assert trigger_of(event) == "request"
    assert event.attributes[ID] == live.id
    assert event.attributes["otel_introspect.profile.interval_ms"] == 1
    until(profiled.is_clean)


# --- Whatever of ours is broken -------------------------------------------------------------------------------------


def broken(*_args, **_kwargs):
    raise RuntimeError("broken")


@pytest.mark.parametrize("trigger", ["slow", "tail", "ratio"])
@pytest.mark.parametrize(
    "part",
    [
        "otel_introspect.profiling.profiler.Sampled",
        "otel_introspect.profiling.profiler.LiveProfile",
        "otel_introspect.profiling.profiler.LiveProfile.close",
        "otel_introspect.profiling.profiler.LiveProfile.finish",
        "otel_introspect.profiling.profiler.LiveProfile.discard",
        "otel_introspect.profiling.profiler.Sampler.start",
        "otel_introspect.profiling.profiler.Sampler.tick",
        "otel_introspect.profiling.profiler.console_text",
        "otel_introspect.profiling.profiler.close_before_end",
        "otel_introspect.profiling.profiler._is_worth_keeping",
        "otel_introspect.profiling.profiler.Profiler.begin",
        "otel_introspect.profiling.profiler.Profiler.is_chosen",
        "otel_introspect.profiling.profiler.Profiler.look",
        "otel_introspect.sinks.reporter.SpanReporter.expect_profile",
        "otel_introspect.sinks.reporter.SpanReporter.report_profile",
        "otel_introspect.engine.introspector.Introspector.do",
    ],
)
def test_whatever_is_broken_requests_go_on(make_profiled, monkeypatch, part, trigger):
    """
    Whatever of ours raises, a request starts and ends as it would, and the next one has its profile.
    """
    profiled = make_profiled(triggers=(trigger,), ratio=1.0, watchdog={"threshold": 80})

    def request(name):
        with profiled.request(name) as span:
            early(0.15)
            span.set_status(StatusCode.ERROR)
            return 42

    with monkeypatch.context() as patch:
        patch.setattr(part, broken)
        assert request("GET /") == 42

    assert profiled.span().status.status_code is StatusCode.ERROR
    until(lambda: request("later") == 42 and profiled.profiles())
    profiled.exporter.clear()


# --- Fork -----------------------------------------------------------------------------------------------------------


def run(script):
    """What a script, which has a service named ``profiled``, printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", PREAMBLE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


PREAMBLE = f"""
import os, sys, threading, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from profiled import Profiled, busy, idle, profiles_of, running, until
from otel_introspect import faults, profile
from otel_introspect.introspection import activate

def early(seconds): busy(seconds)
def late(seconds): busy(seconds)
def say(*words): os.write(1, (" ".join(map(str, words)) + " ").encode())
def service(**settings):
    profiled = Profiled(**settings)
    activate(profiled.introspection)
    return profiled
"""


def test_a_fork_inside_a_block():
    """
    Parent and child both go on with the profile, the child under an id of its own; no one waits for anybody.
    """
    found = run(
        """
        profiled = service()
        with profiled.request(), profile() as taken:
            early(0.05)
            child = os.fork()
            late(0.2)
        name = "parent" if child else "child"
        (event,) = profiled.profiles()
        text = event.attributes["otel_introspect.profile.text"]
        say(name, "early" in text, "late" in text, taken.id == event.attributes["otel_introspect.profile.id"], taken.id)
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        assert not faults.counts, faults.counts
        profiled.provider.shutdown()
        """
    )

    assert sorted(found[:4] + found[5:9]) == sorted(["parent", "child", *["True"] * 6])
    assert found[4] != found[9]


def test_a_span_of_the_child_s_own():
    """
    What a child does in a span and a block of its own is profiled, though it was forked inside a block.
    """
    found = run(
        """
        profiled = service()
        with profiled.request(), profile():
            early(0.02)
            child = os.fork()
            if not child:
                from opentelemetry import context
                context.attach(context.Context())
                with profiled.request("child"), profile() as taken:
                    late(0.1)
                say(taken.refused, "late" in profiled.text("child"), "early" in profiled.text("child"))
                os._exit(0)
            os.waitpid(child, 0)
        profiled.provider.shutdown()
        """
    )

    assert found == ["None", "True", "False"]


def test_a_fork_while_another_thread_is_profiled():
    """
    In the child the other thread's profile is gone, and its own is taken.
    """
    found = run(
        """
        profiled = service(triggers=("slow",), watchdog={"threshold": 40})
        gate = threading.Event()
        def other():
            with profiled.request("other"):
                gate.wait(20)
        thread = threading.Thread(target=other)
        thread.start()
        until(lambda: len(profiled.profiler.sampler))
        child = os.fork()
        if not child:
            say(len(profiled.profiler.sampler), len(profiled.profiler._of_spans))
            with profiled.request("child"):
                late(0.2)
            say("late" in profiled.text("child"))
            os._exit(0)
        os.waitpid(child, 0)
        gate.set()
        thread.join()
        say(len(profiled.profiles()))
        profiled.provider.shutdown()
        """
    )

    assert found == ["0", "0", "True", "1"]


@pytest.mark.parametrize("trigger", ["slow", "tail"])
def test_a_fork_inside_a_slow_request(trigger):
    """
    A request that was being profiled when it forked has its profile in the parent; both end their span.
    """
    found = run(
        f"""
        from opentelemetry.trace import StatusCode
        profiled = service(triggers=({trigger!r},), watchdog={{"threshold": 60}})
        with profiled.request() as span:
            early(0.15)
            child = os.fork()
            late(0.15)
            span.set_status(StatusCode.ERROR)
        say("parent" if child else "child", len(profiled.spans()), len(profiled.profiles()))
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        profiled.provider.shutdown()
        """
    )

    assert found[found.index("parent") + 1 :][:2] == ["1", "1"]
    assert found[found.index("child") + 1] == "1"


@pytest.mark.parametrize("way", ["sys.exit(3)", "os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_an_exit_inside_a_block(way):
    """
    A process may end inside a block: it does so with its own status, and at once.
    """
    script = f"profiled = service()\nwith profiled.request(), profile():\n    busy(0.05)\n    {way}\n"
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script], capture_output=True, text=True, check=False, timeout=30
    )

    assert done.returncode == (-9 if "kill" in way else 3)
    assert done.stderr == ""


def test_an_exit_with_a_block_left_open():
    """
    A block that nobody leaves, of a generator or a thread, does not change how the process ends.
    """
    script = """
        @profile
        def items():
            yield from range(10)
        left = items()
        next(left)
        thread = threading.Thread(target=idle, args=(30,), daemon=True)
        thread.start()
        busy(0.05)
        say("done")
    """

    for _ in range(5):
        assert run(script) == ["done"]


def test_a_signal_through_a_block():
    """
    A ``KeyboardInterrupt`` passes through the block and is the application's; the profile is there.
    """
    found = run(
        """
        import signal
        profiled = service()
        try:
            with profiled.request(), profile():
                early(0.05)
                signal.raise_signal(signal.SIGINT)
                late(5)
        except KeyboardInterrupt:
            say("interrupted", "early" in profiled.text())
        profiled.provider.shutdown()
        """
    )

    assert found == ["interrupted", "True"]


# --- gevent ---------------------------------------------------------------------------------------------------------

# We are loaded before gevent patches, as under the launcher; or after that, in a script.
LOAD = "import otel_introspect.instrumentation.introspect\n"
PATCH = "from gevent import monkey; monkey.patch_all(); import gevent\n"


def run_under_gevent(script, *, patched_first=False):
    pytest.importorskip("gevent")
    load = PATCH + LOAD if patched_first else LOAD + PATCH
    done = subprocess.run(
        [sys.executable, "-c", load + PREAMBLE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("patched_first", [False, True])
@pytest.mark.parametrize("work", ["busy(0.2)", "[(busy(0.01), gevent.sleep(0.01)) for _ in range(10)]"])
def test_a_block_in_a_greenlet(work, patched_first):
    """
    Under gevent a block sees its own greenlet, CPU-bound too, and no other.
    """
    found = run_under_gevent(
        f"""
        profiled = service()
        def own():
            with profiled.request(), profile():
                {work}
        def foreign():
            for _ in range(20):
                late(0.005)
                gevent.sleep(0.005)
        gevent.joinall([gevent.spawn(own), gevent.spawn(foreign)])
        text = profiled.text()
        say("own" in text, "busy" in text, "foreign" in text)
        profiled.provider.shutdown()
        """,
        patched_first=patched_first,
    )

    assert found == ["True", "True", "False"]


@pytest.mark.parametrize("patched_first", [False, True])
@pytest.mark.parametrize("trigger", ["slow", "tail"])
def test_a_slow_request_in_a_greenlet(trigger, patched_first):
    """
    Under gevent a slow request has a profile of its own greenlet, whether it computes or waits.
    """
    found = run_under_gevent(
        f"""
        profiled = service(triggers=({trigger!r},), watchdog={{"threshold": 60}})
        def computes():
            with profiled.request("computes"):
                busy(0.3)
        def waits():
            with profiled.request("waits"):
                gevent.sleep(0.5)
        gevent.joinall([gevent.spawn(waits), gevent.spawn(computes)])
        say("busy" in profiled.text("computes"), "waits" in profiled.text("waits"), "busy" in profiled.text("waits"))
        until(profiled.is_clean)
        profiled.provider.shutdown()
        """,
        patched_first=patched_first,
    )

    assert found == ["True", "True", "False"]


# --- Many at once ---------------------------------------------------------------------------------------------------


@pytest.mark.realtime
def test_many_threads_begin_and_end(make_profiled, caplog):
    """
    Fifty threads that begin and end spans and blocks for a second: no exception, no deadlock, nothing left, and nothing
    is written to a span that has ended.
    """
    profiled = make_profiled(triggers=("slow", "tail", "ratio"), ratio=0.5, watchdog={"threshold": 20})
    end = time.monotonic() + 1.0
    errors = []

    @profile
    def decorated():
        time.sleep(0.001)

    def hammer(number):
        made = random.Random(number)
        try:
            while time.monotonic() < end:
                with profiled.request() as span:
                    for _ in range(made.randrange(3)):
                        with profile():
                            time.sleep(made.random() / 100)
                    decorated()
                    time.sleep(made.random() / 20)
                    if made.random() < 0.3:
                        span.set_status(StatusCode.ERROR)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test wants to see it
            errors.append(error)

    threads = [threading.Thread(target=hammer, args=(number,), daemon=True) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()

    assert errors == []
    assert not {reason for kind, reason in faults.counts if kind == "failed"}
    assert [record.getMessage() for record in caplog.records] == []
    until(profiled.is_clean)
    until(lambda: not profiled.profiler._tails)
    assert profiled.profiles()
    for span in profiled.spans():
        found = [event.attributes[ID] for event in profiles_of(span)]
        assert len(set(found)) == len(found)
        assert (span.attributes.get(ID) in found) == bool(found)
        assert sum(size_of(event.name, event.attributes) for event in span.events) <= SPAN_BYTES
