"""Local variables on their way to the span: on which event, within which bounds, and what they are never to cost."""

from __future__ import annotations

import functools
import sys
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider

from otel_introspect import faults, introspection, snapshot
from otel_introspect.config import EvidenceConfig, IntrospectConfig, ProfilerConfig, RecorderConfig, WatchdogConfig
from otel_introspect.engine import locals as locals_module
from otel_introspect.engine.locals import LocalsTaker
from otel_introspect.engine.recorder_reading import read_record
from otel_introspect.engine.stacks import Capture, outwards, positions_of, trimmed
from otel_introspect.engine.watchdog import Snapshot
from otel_introspect.introspection import Introspection
from otel_introspect.processors.watchdog import WatchdogSpanProcessor
from otel_introspect.sinks.budget import PROCESS_BYTES, SPAN_BYTES, ProcessBudget, size_of
from otel_introspect.sinks.reporter import SpanReporter

LOCALS = "otel_introspect.stack.locals"
STACK = "code.stacktrace"


def of(event, name):
    (text,) = [text for text in event.attributes[LOCALS] if f"{name} ({__file__}:" in text.split("\n")[0]]
    return text.split("\n")


def untraced(function):
    """What is traced is not read, up to 3.12; and coverage traces."""

    @functools.wraps(function)
    def call(*arguments, **named):
        before = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*arguments, **named)
        finally:
            sys.settrace(before)

    return call


@untraced
def look_with_variables(tracing, milliseconds=1000):
    amount, password = 5, "hunter2"
    tracing.look(milliseconds)
    return amount, password


def test_a_slow_request_s_variables_are_on_its_snapshot(make_tracing):
    """
    The snapshot has a list of texts, innermost frame first, without what has a secret's name.
    """
    tracing = make_tracing(locals=True)
    span = tracing.start()
    look_with_variables(tracing)
    span.end()

    (event,) = tracing.events()
    given = event.attributes[LOCALS]
    assert type(given) is tuple
    assert {type(text) for text in given} == {str}
    assert of(event, "look_with_variables")[2:] == [
        "    milliseconds = 1000",
        "    amount = 5",
        "    password = <redacted>",
    ]
    assert "hunter2" not in str(given)
    assert f"File {__file__!r}, line".replace("'", '"') in event.attributes[STACK]


def test_words_of_one_s_own_are_hidden_too(make_tracing):
    """
    ``WATCHDOG_LOCALS_REDACT`` adds to what is hidden.
    """
    tracing = make_tracing(locals=True, locals_redact="iban, AMOUNT")
    span = tracing.start()
    look_with_variables(tracing)
    span.end()

    assert "    amount = <redacted>" in of(tracing.events()[0], "look_with_variables")


def test_off_by_default(tracing):
    """
    Without being asked for there are none, and what takes them is not even made.
    """
    span = tracing.start()
    look_with_variables(tracing)
    span.end()

    assert LOCALS not in tracing.events()[0].attributes
    assert tracing.introspection.watchdog._take_locals is None


def test_once_a_second_in_a_process(make_tracing):
    """
    Of two requests that turn slow at once one has its variables; both have their stack.
    """
    tracing = make_tracing(locals=True)
    spans = [tracing.start(), tracing.start()]
    look_with_variables(tracing)
    for span in spans:
        span.end()

    assert [LOCALS in event.attributes for event in tracing.events()] == [True, False]
    assert all(event.attributes[STACK] for event in tracing.events())
    assert faults.counts["refused", "locals: more than one in a second"] == 1


def test_the_others_are_looked_at_first(make_tracing, monkeypatch):
    """
    Variables are shown when every other span that was due has its snapshot, as that takes long.
    """
    tracing = make_tracing(locals=True)
    spans = [tracing.start(str(number)) for number in range(3)]
    seen = []
    resolve = locals_module.TakenLocals.resolve

    def noting(self):
        seen.append([len(span.events) for span in spans])
        resolve(self)

    monkeypatch.setattr(locals_module.TakenLocals, "resolve", noting)
    look_with_variables(tracing)
    for span in spans:
        span.end()

    assert seen == [[0, 1, 1]]
    assert len(tracing.events()) == 3


@pytest.mark.parametrize("ends", [True, False])
def test_a_request_that_ends_meanwhile_has_its_stack(make_tracing, monkeypatch, ends):
    """
    A request that ends while its variables are being shown, or for which that fails, has its snapshot without them.
    """
    tracing = make_tracing(locals=True)
    span = tracing.start()

    def ending(_self):
        if ends:
            span.end()
        raise ValueError

    monkeypatch.setattr(locals_module.TakenLocals, "resolve", ending)
    look_with_variables(tracing)
    if not ends:
        span.end()

    (event,) = tracing.events()
    assert LOCALS not in event.attributes
    assert "look_with_variables" in event.attributes[STACK]
    assert faults.counts["failed", "showing local variables"] == 1


def test_snapshot_in_code_has_none(make_tracing):
    """
    What the application asks for with ``snapshot()`` is taken on its own thread, which is not to pay for variables.
    """
    tracing = make_tracing(locals=True)
    introspection.activate(tracing.introspection)
    with tracing.tracer.start_as_current_span("GET /"):
        assert snapshot()

    assert LOCALS not in tracing.events()[0].attributes


@untraced
def deep_variables(depth, size, clock):
    return deep(depth, size, clock)


def deep(depth, size, clock):
    text = "x" * size
    if depth:
        return deep(depth - 1, size, clock)
    # Without whoever runs the tests, whose frames are many, and whose paths long.
    frames = [frame for frame in outwards(sys._getframe()) if frame.f_code.co_filename == __file__]
    positions = positions_of(frames)
    taken = LocalsTaker(clock=clock).take(frames, positions, trimmed(positions), ())
    taken.resolve()
    return trimmed(positions), taken, text


def make(stack, taken, remaining):
    return Snapshot(
        taken=1,
        capture=stack,
        thread_id=7,
        thread_name="worker",
        elapsed_ms=1000,
        threshold_ms=1000,
        observer="thread",
        lateness_ms=0,
        remaining=remaining,
        locals=taken,
    )


@pytest.mark.parametrize("max_bytes", [64, 300, 2000, 20_000])
@pytest.mark.parametrize("depth", [0, 3, 10, 40, 120])
@pytest.mark.parametrize("profiled", [True, False])
def test_its_own_stack_is_never_shortened_for_them(clock, max_bytes, depth, profiled):
    """
    An event's stack is the same with variables and without; no text is too long, no span carries more than it may.
    """
    stack, taken, _ = deep_variables(depth, 200, clock)
    spans = []
    for given in (taken, None):
        reporter = SpanReporter(EvidenceConfig(max_attribute_bytes=max_bytes), clock=clock)
        span = TracerProvider().get_tracer(__name__).start_span("GET /")
        if profiled:
            reporter.expect_profile(span)
        for number in range(5):
            reporter.report(span, make(stack, given if not number else None, 5 - number))
        spans.append(span)
    with_them, without = (span.events for span in spans)
    first = dict(with_them[0].attributes)
    given = first.pop(LOCALS, ())

    assert first == dict(without[0].attributes)
    # The fifth is not saved for where paths are very long and texts very short.
    assert len(with_them) >= min(len(without), 4)
    assert all(len(text.encode()) <= max_bytes for text in given)
    assert sum(size_of(event.name, event.attributes) for event in with_them) <= SPAN_BYTES
    # And the later ones keep enough to say where the request is.
    shown = [len(event.attributes[STACK].encode()) for event in with_them[1:]]
    others = [len(event.attributes[STACK].encode()) for event in without[1:]]
    assert all(mine >= min(theirs, 500) for mine, theirs in zip(shown, others, strict=False))


def test_they_are_there_beside_a_stack_of_usual_size(clock):
    """
    A request of usual depth that is profiled, too, has room for its innermost variables.
    """
    stack, taken, _ = deep_variables(12, 50, clock)
    reporter = SpanReporter(EvidenceConfig(), clock=clock)
    span = TracerProvider().get_tracer(__name__).start_span("GET /")
    reporter.expect_profile(span)
    reporter.report(span, make(stack, taken, 5))

    # How many frames' depends on how long the paths are here.
    assert span.events[0].attributes[LOCALS]


def test_a_process_without_room_for_them_has_it_for_the_stack(clock):
    """
    Where the process may emit the stack but not the variables, the stack is emitted.
    """
    stack, taken, _ = deep_variables(3, 200, clock)
    budget = ProcessBudget(clock)
    budget.spend(PROCESS_BYTES - 3000)
    reporter = SpanReporter(EvidenceConfig(), clock=clock, budget=budget)
    taken.shown = tuple(("in f (x:1)", "    a = " + "b" * 1500) for _ in range(3))
    span = TracerProvider().get_tracer(__name__).start_span("GET /")

    assert reporter.report(span, make(Capture(stack.positions[:3]), taken, 1))
    assert LOCALS not in span.events[0].attributes
    assert faults.counts["dropped", "locals: no room"] == 1


def test_they_survive_the_process(tmp_path):
    """
    The flight recorder has them as the span has, as a list of texts.
    """
    config = IntrospectConfig(
        watchdog=WatchdogConfig(threshold=60, observers=("thread",), locals=True, checkpoint="none"),
        profiler=ProfilerConfig(triggers=()),
        recorder=RecorderConfig(directory=str(tmp_path / "flight")),
    )
    provider = TracerProvider()
    made = Introspection(config, tracer_provider=provider)
    provider.add_span_processor(WatchdogSpanProcessor(made))

    @untraced
    def stuck():
        word = "abc"
        done.wait(0.4)
        return word

    done = threading.Event()
    span = provider.get_tracer(__name__).start_span("GET /")
    stuck()
    (recorded,) = read_record(made.recorder.path, alive=True).spans
    made.stop()
    span.end()
    provider.shutdown()

    attributes = next(event.attributes for event in recorded.events if LOCALS in event.attributes)
    assert list(attributes[LOCALS]) == list(span.events[0].attributes[LOCALS])
    assert "    word = 'abc'" in attributes[LOCALS][0].split("\n")


def test_a_checkpoint_has_them(make_tracing):
    """
    What is sent ahead of a request's span has them, as it has all else of the snapshot.
    """
    tracing = make_tracing(locals=True, checkpoint="first")
    span = tracing.start()
    look_with_variables(tracing)
    (note,) = tracing.introspection._checkpoints._notes
    span.end()

    assert list(note.attributes[LOCALS]) == list(tracing.events()[0].attributes[LOCALS])


def test_what_the_alarm_has_seen_has_none(make_tracing):
    """
    The alarm's handler, which runs on top of the application, takes no variables.
    """
    tracing = make_tracing(locals=True)
    peek = tracing.introspection.peek
    span = tracing.start()
    tracing.clock.advance(1500)
    peek._look(sys._getframe())
    tracing.look()
    span.end()

    (event,) = tracing.events()
    assert event.attributes["otel_introspect.observer"] == "signal"
    assert LOCALS not in event.attributes
