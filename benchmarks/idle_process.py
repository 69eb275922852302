"""What a process costs that does nothing: watched processes must sleep as others do."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Final

from benchmarks.effort import Effort
from benchmarks.report import Part, Row

LIMIT: Final = 0.1

_SETTLE_SECONDS: Final = 1.5
# The introspector lingers for ten thresholds; at this one it is over soon.
_SHORT_THRESHOLD: Final = 100
_CASES: Final = {
    "without us": "without",
    "without us, again": "without",
    "dogslow's timer": "dogslow",
    "just after a span": "after",
    "long after a span": "long_after",
    "a slow span open": "open",
}
# A process with a slow span open is not idle: it takes snapshots. Its figure is there to be known.
_LIMITED: Final = ("after", "long_after")


def measure(effort: Effort) -> Part:
    """Let processes of each kind idle, all at the same time, as they have nothing to do."""
    part = Part(title="Idle process", unit="ms CPU a second")
    processes = {
        case: [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.idle_process", kind, str(effort.idle_seconds)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for case, kind in _CASES.items()
    }
    for case, started in processes.items():
        found = [_result(process, effort) for process in started]
        part.rows.append(
            Row(
                case=f"{effort.idle_seconds} s",
                variant=case,
                median=statistics.median(each["cpu"] for each in found),
                limit=LIMIT if _CASES[case] in _LIMITED else None,
                limited="median",
            )
        )
        wakeups = statistics.median(each["wakeups"] for each in found)
        part.notes.append(f"{case}: woke up {wakeups:.2g} times a second.")
    part.notes.append(
        "Medians of three processes each. 'Just after': while the introspector lingers, at the default threshold."
    )
    return part


def _result(process: subprocess.Popen[str], effort: Effort) -> dict[str, float]:
    output, _ = process.communicate(timeout=effort.idle_seconds + 60)
    if process.returncode:
        msg = f"an idle process ended with {process.returncode}"
        raise RuntimeError(msg)
    result: dict[str, float] = json.loads(output)
    return result


def _idle(kind: str, seconds: float) -> None:
    """Be such a process; prints what it has cost."""
    import resource

    from opentelemetry.sdk.trace import TracerProvider

    from benchmarks.peers import DogslowSpanProcessor
    from otel_introspect.instrumentation.introspect import IntrospectInstrumentor

    provider = TracerProvider()
    tracer = provider.get_tracer(__name__)
    if kind == "dogslow":
        provider.add_span_processor(DogslowSpanProcessor())
    elif kind != "without":
        threshold = _SHORT_THRESHOLD if kind == "long_after" else 1_000
        IntrospectInstrumentor().instrument(tracer_provider=provider, watchdog_threshold=threshold)
    span = tracer.start_span("GET /")
    if kind != "open":
        span.end()
    time.sleep(_SETTLE_SECONDS)

    before, began = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    time.sleep(seconds)
    spent, after = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps({"cpu": spent * 1e3 / seconds, "wakeups": (after.ru_nvcsw - before.ru_nvcsw) / seconds}), flush=True
    )
    # Not by way of the interpreter's own end, which would wait for nothing here but be measured by nobody.
    os._exit(0)


if __name__ == "__main__":
    _idle(sys.argv[1], float(sys.argv[2]))
