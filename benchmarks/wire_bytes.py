"""What a request sends, in bytes of OTLP: a fast one, and a slow one with all that it may carry.

Real requests to a Django view with five queries, as the OTLP exporter encodes their spans.
How many collectors that takes is worked out in docs/how-to/collect-from-many-machines.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from statistics import median
from typing import Final

from benchmarks.effort import Effort
from benchmarks.programs import environment, program
from benchmarks.report import Part, Row
from benchmarks.request import requests_in_process

_THRESHOLD_MS: Final = 100
_SLOW_MS: Final = 450  # past the threshold, twice and four times: three snapshots
_THREADS: Final = 8
_PREFIX: Final = "OTEL_PYTHON_INTROSPECT_"
_SHALLOW: Final = 0
_DEEP: Final = 40
_SETTINGS: Final = {
    "no profile, no checkpoint": {"PROFILER_TRIGGERS": "none", "WATCHDOG_CHECKPOINT": "none"},
    "no profile": {"PROFILER_TRIGGERS": "none"},
    "default settings": {},
    f"{_THREADS} other threads": {"WATCHDOG_ALL_THREADS": "true"},
}


def measure(effort: Effort) -> Part:
    """Have a process for each setting serve itself."""
    part = Part(title="Bytes that a request sends", unit="bytes")
    itself = [program("opentelemetry-instrument"), sys.executable, "-m", "benchmarks.wire_bytes"]
    count = max(effort.generations, 3)
    for name, settings in _SETTINGS.items():
        variables = {f"{_PREFIX}{key}": value for key, value in settings.items()}
        environ = environment(
            OTEL_SEMCONV_STABILITY_OPT_IN="http",
            DJANGO_SETTINGS_MODULE="benchmarks.site.settings",
            BENCHMARK_WATCHED="true",
            **{f"{_PREFIX}WATCHDOG_THRESHOLD": str(_THRESHOLD_MS), f"{_PREFIX}RECORDER_DIR": "none", **variables},
        )
        ran = subprocess.run(
            [*itself, str(count)], env=environ, capture_output=True, text=True, check=True, timeout=120
        )
        for case, size in json.loads(ran.stdout).items():
            if case == "fast" and part.rows:
                continue
            part.rows.append(Row(case=case, variant="" if case == "fast" else name, median=size))
    part.rows.sort(key=lambda row: row.case)  # each kind's settings together, as they were measured
    part.notes.append("A request: one span of Django, five of sqlite3; a checkpoint is one more. New HTTP conventions.")
    part.notes.append(
        f"Three snapshots; {_DEEP} more frames make their text be cut, and the whole stack be sent beside it."
    )
    part.notes.append(f"The median of {count} requests. A span carries 16 KiB of ours at most, whatever it is.")
    return part


def _serve(count: int) -> None:
    """Answer fast requests and *count* slow ones; print what each kind sends."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        raise TypeError(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    over = threading.Event()
    for number in range(_THREADS):
        threading.Thread(target=over.wait, name=f"worker-{number}", daemon=True).start()

    def size(milliseconds: int, depth: int, times: int) -> float:
        answer = requests_in_process(f"/waiting/{milliseconds}/{depth}")
        answer(1)
        found = []
        for _ in range(times):
            exporter.clear()
            answer(1)
            found.append(encode_spans(exporter.get_finished_spans()).ByteSize())
        return median(found)

    fast = size(0, _SHALLOW, count)
    slow = {f"slow, {depth} more frames": size(_SLOW_MS, depth, count) for depth in (_SHALLOW, _DEEP)}
    print(json.dumps({"fast": fast, **slow}))
    over.set()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
