"""The span processor: which spans are watched, where they run, and that nothing of it reaches the application."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import types

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from otel_introspect import faults
from otel_introspect.config import IntrospectConfig, RecorderConfig, WatchdogConfig
from otel_introspect.engine.introspector import INTROSPECTOR_NAME
from otel_introspect.engine.places import GreenletPlace, TaskPlace
from otel_introspect.introspection import Introspection
from otel_introspect.processors.watchdog import WatchdogSpanProcessor

PATIENCE = 20


@pytest.fixture(autouse=True)
def _threads_are_threads(monkeypatch):
    """Another test may have loaded what says that they are not."""
    monkeypatch.delitem(sys.modules, "gevent.monkey", raising=False)


def context_of(*, remote: bool) -> SpanContext:
    return SpanContext(trace_id=0xABC, span_id=0xDEF, is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def under(*, remote: bool):
    return set_span_in_context(NonRecordingSpan(context_of(remote=remote)))


def key_of(span) -> int:
    return span.get_span_context().span_id


def watched(tracing) -> set[int]:
    return set(tracing.introspection.table.open) | set(tracing.introspection.table.slow)


def introspectors() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == INTROSPECTOR_NAME]


def tracer_with(processor, **given):
    provider = TracerProvider(**given)
    provider.add_span_processor(processor)
    return provider.get_tracer(__name__)


def test_an_entry_span_is_watched_while_it_is_open(tracing):
    """
    A span without a parent is in the table from its start to its end, under its id, on its thread.
    """
    span = tracing.start()
    reference, place = tracing.introspection.table.open[key_of(span)]
    assert reference() is span
    assert place == threading.get_ident()

    span.end()
    assert not tracing.introspection.table


def test_a_child_is_not_watched(tracing):
    """
    A span whose parent is of this process is none of our business, recording parent or not.
    """
    parent = tracing.start()
    child = tracing.start(context=set_span_in_context(parent))
    other = tracing.start(context=under(remote=False))

    assert watched(tracing) == {key_of(parent)}
    child.end()
    other.end()
    assert watched(tracing) == {key_of(parent)}
    parent.end()


def test_a_span_with_a_remote_parent_is_watched(tracing):
    """
    A request that comes with a trace of its caller's is an entry into this process.
    """
    span = tracing.start(context=under(remote=True))

    assert watched(tracing) == {key_of(span)}
    span.end()
    assert watched(tracing) == set()


def test_two_entry_spans_of_one_trace(tracing):
    """
    Two requests of the same caller's trace are watched separately.
    """
    one, two = (tracing.start(context=under(remote=True)) for _ in range(2))

    assert watched(tracing) == {key_of(one), key_of(two)}
    one.end()
    assert watched(tracing) == {key_of(two)}
    two.end()


class RecordOnly(Sampler):
    def should_sample(self, *_args, **_kwargs):
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self):
        return "RecordOnly"


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, RecordOnly()], ids=["dropped", "recorded only"])
def test_a_span_that_is_not_sampled_is_not_watched(tracing, sampler):
    """
    Evidence on a span that is never exported would be for nothing.
    """
    tracer = tracer_with(WatchdogSpanProcessor(tracing.introspection), sampler=sampler)
    span = tracer.start_span("GET /")

    assert not tracing.introspection.table
    span.end()
    assert not faults.counts


def test_ended_on_another_thread(tracing):
    """
    Whichever thread ends the span, it is out of the table.
    """
    span = tracing.start()
    tracing.look(1001)
    thread = threading.Thread(target=span.end)
    thread.start()
    thread.join()

    assert not tracing.introspection.table
    assert len(tracing.events()) == 1


def test_ended_twice(tracing, caplog):
    """
    Ending again is the application's mistake, of which OpenTelemetry tells; we do nothing then.
    """
    span = tracing.start()
    span.end()
    span.end()

    assert not tracing.introspection.table
    assert not faults.counts
    assert [record.name for record in caplog.records if record.name.startswith("otel_introspect")] == []


def test_the_hooks_may_be_called_again(tracing):
    """
    A span announced twice is watched once, one that ends unannounced is no fault.
    """
    processor = WatchdogSpanProcessor(tracing.introspection)
    span = tracing.start()
    processor.on_start(span, None)
    assert watched(tracing) == {key_of(span)}

    processor.on_end(span)
    processor.on_end(span)
    assert watched(tracing) == set()
    span.end()
    assert not faults.counts


def test_a_forgotten_span_is_not_kept_alive(tracing):
    """
    The table holds spans weakly: one that the application drops without ending it goes.
    """
    span = tracing.start()
    (reference, _place) = tracing.introspection.table.open[key_of(span)]
    del span
    gc.collect()

    assert reference() is None
    tracing.look(1001)
    assert not tracing.introspection.table


class RaisingDict(dict):
    error: type[BaseException] = RuntimeError

    def __setitem__(self, key, value):
        raise self.error

    def pop(self, *args):
        raise self.error

    def __bool__(self):
        return True

    def __contains__(self, key):
        raise self.error


class RaisingTable:
    def __init__(self, error: type[BaseException]) -> None:
        self.open = RaisingDict()
        self.open.error = error
        self.slow = RaisingDict()
        self.slow.error = error
        self.error = error

    def add(self, *_args):
        raise self.error

    discard = add


def broken_introspection(table, wake=lambda: None):
    return types.SimpleNamespace(
        table=table,
        introspector=types.SimpleNamespace(parked=True),
        wake=wake,
        watching=True,
        profiles=False,
        begins_profiles=False,
        recorder=None,
        stop=lambda: None,
    )


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, TypeError, KeyError, MemoryError, RecursionError])
def test_a_broken_table(error, caplog):
    """
    Whatever the table raises, spans start and end; one log line for each of the two.
    """
    tracer = tracer_with(WatchdogSpanProcessor(broken_introspection(RaisingTable(error))))

    for _ in range(3):
        tracer.start_span("GET /").end()

    assert faults.counts == {("failed", "watching a span"): 3, ("failed", "unwatching a span"): 3}
    assert len(caplog.records) == 2


def test_a_thread_that_cannot_be_woken(tracing):
    """
    If waking raises, the request goes on.
    """

    def wake():
        raise OSError

    tracer = tracer_with(WatchdogSpanProcessor(broken_introspection(tracing.introspection.table, wake)))
    tracer.start_span("GET /").end()

    assert faults.counts == {("failed", "watching a span"): 1}
    assert not tracing.introspection.table


def test_an_interruption_in_a_hook_passes():
    """
    A ``KeyboardInterrupt`` that arrives in our hook is the application's.
    """
    tracer = tracer_with(WatchdogSpanProcessor(broken_introspection(RaisingTable(KeyboardInterrupt))))

    with pytest.raises(KeyboardInterrupt):
        tracer.start_span("GET /")
    assert not faults.counts


def test_waking_only_when_it_is_parked(tracing):
    """
    A span wakes the thread if that sleeps without a limit, and leaves it alone otherwise.
    """
    woken = []
    introspection = broken_introspection(tracing.introspection.table, lambda: woken.append(1))
    tracer = tracer_with(WatchdogSpanProcessor(introspection))

    introspection.introspector.parked = False
    tracer.start_span("GET /").end()
    assert woken == []

    introspection.introspector.parked = True
    with tracer.start_as_current_span("GET /"), tracer.start_as_current_span("SELECT"):
        pass
    assert woken == [1]


class PublicSpan:
    """Has what the API and the SDK promise, and none of the SDK's private attributes."""

    def __init__(self, parent: SpanContext | None = None, flags: int = TraceFlags.SAMPLED) -> None:
        self.parent = parent
        self.context = SpanContext(trace_id=1, span_id=2, is_remote=False, trace_flags=TraceFlags(flags))

    def get_span_context(self) -> SpanContext:
        return self.context


def test_an_sdk_without_the_private_attributes(tracing):
    """
    Spans with public names only are watched the same.
    """
    processor = WatchdogSpanProcessor(tracing.introspection)
    span = PublicSpan()

    processor.on_start(span)
    assert watched(tracing) == {2}
    assert tracing.introspection.table.open[2][1] == threading.get_ident()
    processor.on_end(span)
    assert watched(tracing) == set()
    assert not faults.counts


@pytest.mark.parametrize(
    ("span", "is_watched"),
    [
        (PublicSpan(context_of(remote=True)), True),
        (PublicSpan(context_of(remote=False)), False),
        (PublicSpan(flags=TraceFlags.DEFAULT), False),
    ],
    ids=["remote parent", "child", "not sampled"],
)
def test_the_rules_by_public_names(tracing, span, is_watched):
    """
    The same rules by public names: entry spans only, and sampled ones only.
    """
    processor = WatchdogSpanProcessor(tracing.introspection)
    processor.on_start(span)

    assert bool(tracing.introspection.table) is is_watched
    processor.on_end(span)
    assert not tracing.introspection.table


def test_by_public_names_the_thread_is_woken_too(tracing):
    """
    Such a span wakes the parked thread like any other.
    """
    woken = []
    introspection = broken_introspection(tracing.introspection.table, lambda: woken.append(1))
    processor = WatchdogSpanProcessor(introspection)
    span = PublicSpan()
    processor.on_start(span)
    processor.on_end(span)

    assert woken == [1]


@pytest.mark.parametrize("span", [None, object(), types.SimpleNamespace(_parent=None, _context=None)])
def test_something_that_is_no_span(tracing, span):
    """
    An object that has neither the one nor the other is a fault of ours, counted, not raised.
    """
    processor = WatchdogSpanProcessor(tracing.introspection)
    processor.on_start(span)
    processor.on_end(span)

    assert faults.counts == {("failed", "watching a span"): 1, ("failed", "unwatching a span"): 1}
    assert not tracing.introspection.table


def test_the_place_in_a_task(tracing):
    """
    In a task the span runs in that task, whichever task the loop runs meanwhile.
    """

    async def request():
        span = tracing.start()
        await asyncio.sleep(0)
        place = tracing.introspection.table.open[key_of(span)][1]
        task = asyncio.current_task()
        span.end()
        return place, place._task() is task

    async def both():
        return await asyncio.gather(request(), request())

    (one, is_own), (two, is_own_too) = asyncio.run(both())

    assert isinstance(one, TaskPlace)
    assert isinstance(two, TaskPlace)
    assert is_own
    assert is_own_too


def test_the_place_in_a_callback(tracing):
    """
    In a callback of the loop there is no task: the span runs on the loop's thread.
    """
    places = []

    def callback():
        span = tracing.start()
        places.append(tracing.introspection.table.open[key_of(span)][1])
        span.end()

    async def main():
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)

    asyncio.run(main())

    assert places == [threading.get_ident()]


def test_the_place_by_public_names_in_a_task(tracing):
    """
    Also without the private attributes a task is a task.
    """
    processor = WatchdogSpanProcessor(tracing.introspection)

    async def main():
        span = PublicSpan()
        processor.on_start(span)
        place = tracing.introspection.table.open[2][1]
        processor.on_end(span)
        return place

    assert isinstance(asyncio.run(main()), TaskPlace)


def test_the_place_under_gevent(tracing, monkeypatch):
    """
    Where threads are replaced by greenlets the span runs in its greenlet.
    """
    pytest.importorskip("greenlet")
    monkeypatch.setitem(sys.modules, "gevent.monkey", types.ModuleType("gevent.monkey"))
    span = tracing.start()

    assert isinstance(tracing.introspection.table.open[key_of(span)][1], GreenletPlace)
    span.end()


@pytest.mark.parametrize("make", [lambda tracing: tracing.start(), lambda tracing: PublicSpan()])
def test_the_package_greenlet_alone(tracing, monkeypatch, make):
    """
    That some library has loaded greenlet does not make a thread one that is shared.
    """
    monkeypatch.setitem(sys.modules, "greenlet", types.SimpleNamespace(getcurrent=PublicSpan))
    span = make(tracing)
    tracing.introspection.table.clear()
    WatchdogSpanProcessor(tracing.introspection).on_start(span)

    assert tracing.introspection.table.open[key_of(span)][1] == threading.get_ident()
    WatchdogSpanProcessor(tracing.introspection).on_end(span)
    if hasattr(span, "end"):
        span.end()


def test_the_place_of_each_thread(tracing):
    """
    Each request is on the thread that started its span.
    """
    found = {}

    def request():
        span = tracing.start()
        found[threading.get_ident()] = tracing.introspection.table.open[key_of(span)][1]
        span.end()

    threads = [threading.Thread(target=request) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found
    assert all(thread_id == place for thread_id, place in found.items())


def test_shutdown_stops(tracing):
    """
    After the provider's shutdown nothing is watched any more, what was open is forgotten.
    """
    span = tracing.start()
    tracing.provider.shutdown()
    assert not tracing.introspection.table

    later = tracing.start()
    assert not tracing.introspection.table
    tracing.look(5000)
    later.end()
    span.end()
    assert tracing.events() == []
    assert not faults.counts


def test_shutdown_twice(tracing):
    """
    Shutting down again is no fault, nor is it if stopping fails.
    """
    processor = WatchdogSpanProcessor(tracing.introspection)
    processor.shutdown()
    processor.shutdown()
    assert not faults.counts

    def stop():
        raise OSError

    tracing.introspection.stop = stop
    processor.shutdown()
    assert faults.counts == {("failed", "shutting down"): 1}
    del tracing.introspection.stop


def test_force_flush(tracing):
    """
    There is never anything to flush.
    """
    assert tracing.provider.force_flush() is True
    assert WatchdogSpanProcessor(tracing.introspection).force_flush(0) is True


def test_switch_to(make_tracing):
    """
    One processor goes on with another configuration; the one before watches nothing more.
    """
    before, after = make_tracing(), make_tracing(threshold=10)
    processor = WatchdogSpanProcessor(before.introspection)
    tracer = tracer_with(processor)
    early = tracer.start_span("GET /")
    assert watched(before) == {key_of(early)}

    processor.switch_to(after.introspection)
    late = tracer.start_span("GET /")

    assert processor.introspection is after.introspection
    assert watched(before) == set()
    assert not before.introspection.watching
    assert watched(after) == {key_of(late)}
    early.end()
    late.end()
    assert watched(after) == set()
    assert not faults.counts


def test_its_own_introspection(monkeypatch):
    """
    Added by hand without anything it takes the environment's settings.
    """
    monkeypatch.setenv("OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD", "77")
    processor = WatchdogSpanProcessor()

    assert processor.introspection.config.watchdog.threshold == 77
    assert introspectors() == []


def test_watchdog_off():
    """
    Under a threshold of 0, or without the observer that there is, no span is watched and no thread started.
    """
    for watchdog in (WatchdogConfig(threshold=0), WatchdogConfig(observers=("signal",))):
        introspection = Introspection(IntrospectConfig(watchdog=watchdog, recorder=RecorderConfig(directory="none")))
        tracer = tracer_with(WatchdogSpanProcessor(introspection))
        span = tracer.start_span("GET /")
        assert not introspection.table
        assert introspectors() == []
        span.end()


def test_end_to_end_with_the_real_thread():
    """
    A span that stays open gets its first snapshot from the real thread while it is still open; then that is stopped.
    """
    introspection = Introspection(IntrospectConfig(watchdog=WatchdogConfig(threshold=50)))
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(WatchdogSpanProcessor(introspection))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer(__name__)

    def stuck(span):
        deadline = time.monotonic() + PATIENCE
        while not span.events:
            assert time.monotonic() < deadline, "no snapshot"
            time.sleep(0.005)

    assert introspectors() == []
    with tracer.start_as_current_span("fast"):
        pass
    with tracer.start_as_current_span("slow") as span:
        stuck(span)
    assert len(introspectors()) == 1
    provider.shutdown()

    fast, slow = exporter.get_finished_spans()
    assert (fast.name, fast.events, dict(fast.attributes)) == ("fast", (), {})
    event = slow.events[0]
    assert event.name == "otel_introspect.stack_snapshot"
    assert "in stuck" in event.attributes["code.stacktrace"]
    assert event.attributes["otel_introspect.elapsed_ms"] >= 50
    assert event.attributes["otel_introspect.snapshot.index"] == 0
    assert slow.attributes["otel_introspect.slow"] is True
    assert introspectors() == []


def test_the_current_span_is_left_alone(tracing):
    """
    Watching changes nothing about what is the current span.
    """
    assert trace.get_current_span() is trace.INVALID_SPAN
    with tracing.tracer.start_as_current_span("GET /") as span:
        tracing.look(1001)
        assert trace.get_current_span() is span
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_who_is_interrupted_at_closing_has_struck_it_out(tmp_path, monkeypatch):
    """
    Who ends a slow span and is interrupted at it no longer has it in the recorder, whence it would be recovered.
    """
    introspection = Introspection(
        IntrospectConfig(watchdog=WatchdogConfig(threshold=0), recorder=RecorderConfig(directory=str(tmp_path / "r")))
    )
    struck = []
    monkeypatch.setattr(introspection.recorder, "end", struck.append)

    def interrupted(_key):
        raise KeyboardInterrupt

    # What the processor takes of the table is bound when it is made.
    monkeypatch.setattr(type(introspection.table), "discard", lambda _table, key: interrupted(key))
    on_end = WatchdogSpanProcessor(introspection).on_end
    span = TracerProvider().get_tracer(__name__).start_span("slow")
    introspection.table.slow[key_of(span)] = None
    try:
        with pytest.raises(KeyboardInterrupt):
            on_end(span)
    finally:
        introspection.table.slow.clear()
        monkeypatch.undo()
        introspection.stop()

    assert struck == [key_of(span)]
