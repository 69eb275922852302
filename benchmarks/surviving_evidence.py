"""What an entry span costs more with all that lets evidence outlive its process: flight recorder, three observers."""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from opentelemetry.trace import Tracer

from benchmarks.effort import Effort
from benchmarks.pairing import compare, in_turns
from benchmarks.report import Part
from benchmarks.spans import turn, watched
from otel_introspect.config import IntrospectConfig, RecorderConfig, WatchdogConfig

LIMIT: Final = 2.0

_OFF: Final = "watchdog alone"
_ON: Final = "otel_introspect"
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
            figures = in_turns({name: turn(tracer) for name, tracer in tracers.items()}, effort.span_rounds)
        part.add("a GET with its path", compare(figures, _OFF), _OFF, ours=_ON, limit=LIMIT)
    finally:
        shutil.rmtree(folder)
    if sys.platform != "linux":
        part.notes.append("The flight recorder's file is not allocated in one call here.")
    part.notes.append("CPU of all threads of one process; 'again' shows the noise.")
    return part


def _tracer(recorder: str, observers: tuple[str, ...], checkpoint: str) -> AbstractContextManager[Tracer]:
    config = IntrospectConfig(
        watchdog=WatchdogConfig(observers=observers, checkpoint=checkpoint),
        recorder=RecorderConfig(directory=recorder),
    )
    return watched(config)
