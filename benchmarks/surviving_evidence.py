"""What an entry span costs more with all that lets evidence outlive its process: flight recorder, three observers."""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Tracer

from benchmarks.effort import Effort
from benchmarks.pairing import Measure, compare, in_turns
from benchmarks.report import Part
from otel_introspect.config import IntrospectConfig, RecorderConfig, WatchdogConfig
from otel_introspect.introspection import Introspection
from otel_introspect.processors.watchdog import WatchdogSpanProcessor

LIMIT: Final = 2.0

_OFF: Final = "watchdog alone"
_ON: Final = "otel_introspect"
_SPANS: Final = 200
_ATTRIBUTES: Final = {"http.request.method": "GET", "url.path": "/orders/1234", "url.scheme": "http"}
_ALL_OBSERVERS: Final = ("thread", "signal", "faulthandler")


def measure(effort: Effort) -> Part:
    """Start and end entry spans as a server does, with all of it on and off."""
    part = Part(title="Entry span, evidence that survives", unit="us CPU")
    folder = Path(tempfile.mkdtemp())
    try:
        with (
            _tracer("none", ("thread",), "none") as off,
            _tracer("none", ("thread",), "none") as again,
            _tracer(str(folder / "recorder"), _ALL_OBSERVERS, "first") as on,
        ):
            tracers = {_OFF: off, f"{_OFF}, again": again, _ON: on}
            figures = in_turns({name: _turn(tracer) for name, tracer in tracers.items()}, effort.span_rounds)
        part.add("a GET with its path", compare(figures, _OFF), _OFF, ours=_ON, limit=LIMIT)
    finally:
        shutil.rmtree(folder)
    if sys.platform != "linux":
        part.notes.append("The flight recorder's file is not allocated in one call here.")
    part.notes.append("CPU of all threads of one process; 'again' shows the noise.")
    return part


@contextmanager
def _tracer(recorder: str, observers: tuple[str, ...], checkpoint: str) -> Iterator[Tracer]:
    config = IntrospectConfig(
        watchdog=WatchdogConfig(observers=observers, checkpoint=checkpoint),
        recorder=RecorderConfig(directory=recorder),
    )
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(WatchdogSpanProcessor(Introspection(config, tracer_provider=provider)))
    try:
        yield provider.get_tracer(__name__)
    finally:
        provider.shutdown()
        gc.collect()


def _turn(tracer: Tracer) -> Measure:
    start_span = tracer.start_span

    def spend() -> float:
        began = time.process_time()
        for _ in range(_SPANS):
            start_span("GET orders/<int:number>", kind=SpanKind.SERVER, attributes=_ATTRIBUTES).end()
        return (time.process_time() - began) / _SPANS * 1e6

    spend()
    return spend
