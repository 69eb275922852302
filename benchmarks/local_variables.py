"""What local variables cost: a fast request nothing, a slow one the moment in which its frames are read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from statistics import median
from typing import Final

from opentelemetry.trace import Tracer

from benchmarks.effort import Effort
from benchmarks.pairing import compare, in_turns
from benchmarks.report import Part, Row
from benchmarks.spans import turn, watched
from otel_introspect.config import IntrospectConfig, RecorderConfig, WatchdogConfig
from otel_introspect.engine.clock import SystemClock
from otel_introspect.engine.locals import SECONDS, LocalsTaker
from otel_introspect.engine.places import ThreadPlace, look
from otel_introspect.engine.stacks import current_frames

LIMIT: Final = 0.3

_OFF: Final = "without"
_ON: Final = "with variables"
_ROUNDS: Final = 50
_MICROSECONDS: Final = 1e6
_DEPTH: Final = 12


def measure(effort: Effort) -> Part:
    """Start and end entry spans with and without; read the variables of a request that is stuck."""
    part = Part(title="Local variables", unit="us")
    with _tracer(variables=False) as off, _tracer(variables=False) as again, _tracer(variables=True) as on:
        tracers = {_OFF: off, f"{_OFF}, again": again, _ON: on}
        figures = in_turns({name: turn(tracer) for name, tracer in tracers.items()}, effort.span_rounds)
    part.add("an entry span that is fast, CPU", compare(figures, _OFF), _OFF, ours=_ON, limit=LIMIT)
    for case, values in {"small": _small(), "large and nested": _large()}.items():
        taken, shown = _stuck(values)
        name = f"{_DEPTH} frames, {case} values"
        part.rows.append(Row(case=name, variant="read, beside the stack", median=median(taken), worst=max(taken)))
        limit = SECONDS * _MICROSECONDS
        part.rows.append(
            Row(case=name, variant="shown", median=median(shown), worst=max(shown), limit=limit, limited="median")
        )
    part.notes.append("Both on the introspector's thread; once a second and once an hour for each stack at most.")
    return part


def _tracer(*, variables: bool) -> AbstractContextManager[Tracer]:
    config = IntrospectConfig(
        watchdog=WatchdogConfig(locals=variables, checkpoint="none"), recorder=RecorderConfig(directory="none")
    )
    return watched(config)


def _small() -> dict[str, object]:
    return {"number": 5, "name": "kettle", "price": 9.5, "tags": ["a", "b"], "row": {"id": 7, "password": "x"}}


def _large() -> dict[str, object]:
    nested = {f"key {i}": [{"x": "y" * 2000, "z": list(range(100))} for _ in range(50)] for i in range(500)}
    return {"nested": nested, "text": "password=x " * 1_000_000, "rows": [nested] * 10_000, "digits": 10**5000}


def _stuck(values: Mapping[str, object]) -> tuple[list[float], list[float]]:
    """How long it took to read the variables, and to show them, each time, in microseconds."""
    waits, goes_on = threading.Event(), threading.Event()

    def work(depth: int, given: Mapping[str, object], wait: Callable[[], object]) -> object:
        one, two, three, four = (given.get(key) for key in (*given, *[""] * 4)[:4])
        if depth:
            return work(depth - 1, given, wait), one
        waits.set()
        return wait(), two, three, four

    thread = threading.Thread(target=work, args=(_DEPTH - 1, values, goes_on.wait))
    thread.start()
    waits.wait()
    taken, shown = [], []
    try:
        for _ in range(_ROUNDS):
            take = LocalsTaker(clock=SystemClock()).take
            place, frames = ThreadPlace(thread.ident or 0), current_frames()
            began = time.perf_counter()
            plain = look(place, frames)
            middle = time.perf_counter()
            sighting = look(place, frames, take)
            ended = time.perf_counter()
            if plain is not None and sighting is not None and sighting.locals is not None:
                sighting.locals.resolve()
                shown.append((time.perf_counter() - ended) * _MICROSECONDS)
                taken.append(max((ended - middle) - (middle - began), 0) * _MICROSECONDS)
    finally:
        goes_on.set()
        thread.join()
    return taken, shown
