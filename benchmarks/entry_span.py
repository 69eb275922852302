"""What an entry span costs more with the watchdog on, however many other spans are open or slow."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Final

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Tracer

from benchmarks.effort import Effort
from benchmarks.pairing import Measure, compare, in_turns
from benchmarks.peers import NO_DOGSLOW, DogslowSpanProcessor, TimerSpanProcessor, dogslow_is_there
from benchmarks.report import Part
from otel_introspect.config import IntrospectConfig, RecorderConfig, WatchdogConfig
from otel_introspect.introspection import Introspection
from otel_introspect.processors.watchdog import WatchdogSpanProcessor

LIMIT: Final = 1.0

_BASE: Final = "without"
_OURS: Final = "otel_introspect"
_OPEN: Final = (0, 1_000, 10_000)
# So that the open spans stay what they are while they are measured.
_NEVER: Final = 600_000
_SOON: Final = 100
# A round takes about this long for each variant: long beside a look at the clock, short beside the machine's moods.
_SECONDS_A_TURN: Final = 0.002
_TURN_SLOW_SECONDS: Final = 20.0


def measure(effort: Effort) -> Part:
    """Start and end entry spans, with other ones open."""
    part = Part(title="Entry span, start and end", unit="us CPU")
    for count in _OPEN:
        with _watched(_NEVER, count) as ours:
            _against_none(part, f"{count:,} open", ours, effort.span_rounds)
    for count in _OPEN[1:]:
        with _watched(_SOON, count) as ours:
            _against_none(part, f"{count:,} slow", ours, effort.span_rounds)
    if not dogslow_is_there():
        part.notes.append(NO_DOGSLOW)
    else:
        for count in _OPEN:
            if count <= effort.dogslow_open:
                with _provider(DogslowSpanProcessor()) as dogslow:
                    _peer(part, count, "dogslow's timer", dogslow, effort.span_rounds // 3)
    with _provider(TimerSpanProcessor()) as timer:
        _peer(part, 0, "threading.Timer", timer, effort.span_rounds // 3)
    part.notes.append("CPU of all threads; +- is the scatter of the paired differences; 'again' shows the noise.")
    part.notes.append("A threading.Timer is a thread for each open span, so it is not tried with thousands.")
    return part


@contextmanager
def _provider(*processors: SpanProcessor) -> Iterator[Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    for processor in processors:
        provider.add_span_processor(processor)
    try:
        yield provider.get_tracer(__name__)
    finally:
        provider.shutdown()
        gc.collect()


@contextmanager
def _watched(threshold: int, count: int) -> Iterator[Tracer]:
    """A provider with the watchdog on and *count* spans open: slow ones, if the threshold is short."""
    # What the flight recorder adds is another benchmark's.
    config = IntrospectConfig(watchdog=WatchdogConfig(threshold=threshold), recorder=RecorderConfig(directory="none"))
    introspection = Introspection(config)
    with _provider(WatchdogSpanProcessor(introspection)) as tracer:
        spans = [tracer.start_span("open", kind=SpanKind.SERVER) for _ in range(count)]
        if threshold == _SOON:
            _wait_until_slow(introspection.table.slow, count)
        yield tracer
        for span in spans:
            span.end()


def _wait_until_slow(slow: Sized, count: int) -> None:
    until = time.monotonic() + _TURN_SLOW_SECONDS
    while len(slow) < count:
        if time.monotonic() > until:
            msg = f"only {len(slow)} of {count} spans turned slow"
            raise RuntimeError(msg)
        time.sleep(0.01)


def _against_none(part: Part, case: str, ours: Tracer, rounds: int) -> None:
    with _provider() as base, _provider() as again:
        tracers = {_BASE: base, f"{_BASE}, again": again, _OURS: ours}
        figures = in_turns({name: _turn(tracer) for name, tracer in tracers.items()}, rounds)
    part.add(case, compare(figures, _BASE), _BASE, ours=_OURS, limit=LIMIT)


def _peer(part: Part, count: int, name: str, tracer: Tracer, rounds: int) -> None:
    # A comparison of its own: its thread may not disturb the others' turns.
    others = [tracer.start_span("open", kind=SpanKind.SERVER) for _ in range(count)]
    with _provider() as base:
        figures = in_turns({_BASE: _turn(base), name: _turn(tracer)}, rounds)
    part.add(f"{count:,} open", {name: compare(figures, _BASE)[name]}, _BASE)
    del others


def _turn(tracer: Tracer) -> Measure:
    start_span = tracer.start_span

    def spend(count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            start_span("GET /", kind=SpanKind.SERVER).end()
        return time.process_time() - began

    spend(5)
    count = max(5, min(500, int(_SECONDS_A_TURN / (spend(20) / 20))))
    return lambda: spend(count) / count * 1e6
