"""What a call-dense Django request costs more while it is profiled, in process and in the main thread."""

# ruff: noqa: ANN401 - a span processor is told of spans without being one of the SDK's

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks.effort import Effort
from benchmarks.pairing import Comparison, Measure, compare, in_turns
from benchmarks.programs import program
from benchmarks.report import Part, Row
from benchmarks.request import requests_in_process
from benchmarks.site.variants import OURS, variants

TAIL_LIMIT: Final = 1.02
EXPLICIT_LIMIT: Final = 1.05
MISSED_LIMIT: Final = 20.0
"""Percent of the samples that the time of a request allows at 1 ms."""

_BASE: Final = "not profiled"
_CONTROL: Final = f"{_BASE}, again"
_TAIL: Final = "tail, at 10 ms"
_EXPLICIT: Final = "each request, at 1 ms"
_PYINSTRUMENT: Final = "pyinstrument's own hook, at 1 ms"
_OFF: Final = {"profiler_triggers": "none", "watchdog_threshold": 60_000}
# ``ratio`` profiles each request from its first moment, as ``request`` does, and without a limit on how many.
_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    _BASE: _OFF,
    _CONTROL: _OFF,
    _TAIL: {**_OFF, "profiler_triggers": "tail"},
    _EXPLICIT: {**_OFF, "profiler_triggers": "ratio", "profiler_ratio": 1.0, "profiler_interval": 1},
    _PYINSTRUMENT: _OFF,
}
_MILLISECONDS: Final = (50, 200)
_TRIED_ROWS: Final = 1_000
_TURN: Final = 0.2
_PATIENCE: Final = 120.0
_SECONDS_A_ROUND: Final = 5.0


def measure(effort: Effort) -> Part:
    """Have a process serve itself, profiled and not in turns, with requests of several lengths."""
    part = Part(title="Call-dense Django request while it is profiled", unit="ms CPU")
    for milliseconds in _MILLISECONDS:
        process = subprocess.run(
            [
                program("opentelemetry-instrument"),
                *(sys.executable, "-W", "ignore", "-m", "benchmarks.profiled_request"),
                *(str(milliseconds), str(effort.profiled_rounds)),
            ],
            env=variants()[OURS],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_PATIENCE + effort.profiled_rounds * _SECONDS_A_ROUND,
        )
        answer = json.loads(process.stdout)
        case = f"request of {milliseconds} ms"
        part.rows += [_row(case, name, found) for name, found in compare(answer["figures"], _BASE).items()]
        part.rows.append(
            Row(
                case=case,
                variant="samples missed at 1 ms, %",
                median=answer["missed"],
                limit=MISSED_LIMIT,
                limited="median",
            )
        )
    part.notes.append(
        "CPU of all threads of one process, whose settings are changed between turns; text of profiles included."
    )
    part.notes.append(
        "The part that does not grow with the request is some 2.5 ms: beginning, the text for the span, ending."
    )
    return part


def _row(case: str, name: str, found: Comparison) -> Row:
    limit = {_TAIL: TAIL_LIMIT, _EXPLICIT: EXPLICIT_LIMIT}.get(name)
    is_base = name == _BASE
    return Row(
        case=case,
        variant=name,
        median=found.median,
        more=None if is_base else found.more,
        ratio=None if is_base else found.ratio,
        spread=None if is_base else found.spread,
        limit=limit,
        limited="ratio",
    )


def _serve(milliseconds: int, rounds: int) -> None:
    """Be such a process; prints the CPU time of a request in each turn, and how many samples were missed."""
    from opentelemetry import trace

    seen = _Seen()
    provider: Any = trace.get_tracer_provider()
    provider.add_span_processor(seen)
    answer = requests_in_process(f"/dense/{_rows_for(milliseconds)}")
    requests = max(round(_TURN / milliseconds * 1e3), 1)
    turns: dict[str, Measure] = {name: _turn(answer, name, requests) for name in _SETTINGS}
    in_turns(turns, 2)
    seen.missed.clear()
    figures = in_turns(turns, rounds)
    missed = sorted(seen.missed)
    print(json.dumps({"figures": figures, "missed": missed[len(missed) // 2]}), flush=True)


def _rows_for(milliseconds: int) -> int:
    answer = requests_in_process(f"/dense/{_TRIED_ROWS}")
    answer(3)
    began = time.process_time()
    answer(3)
    return round(_TRIED_ROWS * milliseconds / 1e3 / ((time.process_time() - began) / 3))


def _turn(answer: Callable[[int], None], name: str, requests: int) -> Measure:
    from pyinstrument import Profiler

    from otel_introspect.instrumentation.introspect import IntrospectInstrumentor

    def turn() -> float:
        instrumentor = IntrospectInstrumentor()
        instrumentor.uninstrument()
        instrumentor.instrument(**_SETTINGS[name])
        answer(1)
        profiler = Profiler(interval=0.001) if name == _PYINSTRUMENT else None
        began = time.process_time()
        if profiler is not None:
            profiler.start()
        answer(requests)
        if profiler is not None:
            profiler.stop()
        return (time.process_time() - began) / requests * 1e3

    return turn


class _Seen:
    """A span processor that looks at the profiles."""

    def __init__(self) -> None:
        self.missed: list[float] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """As of a span processor."""

    def _on_ending(self, span: Any) -> None:
        pass

    def on_end(self, span: Any) -> None:
        """As of a span processor."""
        for event in span.events:
            if event.name == "otel_introspect.profile":
                allowed = event.attributes["otel_introspect.profile.duration_ms"]
                taken = event.attributes["otel_introspect.profile.sample_count"]
                self.missed.append(100 * (1 - taken / allowed))

    def shutdown(self) -> None:
        """As of a span processor."""

    def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002 - the SDK's signature
        """As of a span processor."""
        return True


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
