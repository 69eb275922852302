"""A million requests through everything at once, and what is left of them: memory, descriptors, threads.

    python tools/soak.py [--requests 1000000]

Most requests are fast. Some are slow, some are interrupted, some are profiled, by request and in code, some take their
own snapshot, some raise; each kind on the main thread and on others. What is counted at a fifth of the way, when all
has been used, is compared with what is counted at the end. The exit status is 1 if something has grown.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_introspect import DeadlineExceeded, faults, profile, snapshot, timeout
from otel_introspect.instrumentation.introspect import IntrospectInstrumentor

_THREADS: Final = 4
_GROWTH_BYTES: Final = 8 * 1024 * 1024
_ATTRIBUTES: Final = {"http.request.method": "GET", "url.path": "/soak"}
_CATASTROPHE: Final = re.compile(r"^(a+)+$")


class Nowhere(SpanExporter):
    """Counts what it is given."""

    def __init__(self) -> None:
        self.spans = 0
        self.events = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Count, and forget."""
        self.spans += len(spans)
        self.events += sum(len(span.events) for span in spans)
        return SpanExportResult.SUCCESS


class Count(NamedTuple):
    """What the process holds."""

    resident: int
    descriptors: int
    threads: int
    objects: int

    @classmethod
    def now(cls) -> Count:
        """Count it."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), descriptors, threads, len(gc.get_objects()))


def fast() -> None:
    """Like most."""


def slow() -> None:
    """Past the threshold."""
    time.sleep(0.03)


def stuck() -> None:
    """In a regular expression, until it is interrupted."""
    with suppress(DeadlineExceeded), timeout(0.03):
        _CATASTROPHE.match("a" * 26 + "!")


def interrupted() -> None:
    """Past its limit."""
    with suppress(DeadlineExceeded), timeout(0.005):
        time.sleep(0.05)


def limited() -> None:
    """Within its limit."""
    with timeout(10.0):
        pass


def profiled() -> None:
    """In code."""
    with profile():
        sum(range(20_000))


def taken() -> None:
    """Looks at itself."""
    snapshot()


def failing() -> None:
    """Ends in an error."""
    message = "soak"
    raise ValueError(message)


_SELDOM: Final[tuple[tuple[int, Callable[[], None]], ...]] = (
    (20_011, stuck),
    (5_003, slow),
    (4_001, interrupted),
    (2_003, profiled),
    (1_009, taken),
    (101, failing),
    (11, limited),
)


def run(requests: int, share: int) -> None:
    """As many requests, each a span."""
    tracer = trace.get_tracer(__name__)
    for number in range(share, share + requests):
        work = next((each for every, each in _SELDOM if number % every == 0), fast)
        with suppress(ValueError), tracer.start_as_current_span("GET /soak", attributes=_ATTRIBUTES):
            work()


def round_of(requests: int, done: int) -> None:
    """The same on the main thread as on the others."""
    each = requests // (_THREADS + 1)
    threads = [threading.Thread(target=run, args=(each, done + at * each)) for at in range(_THREADS)]
    for thread in threads:
        thread.start()
    run(each, done + _THREADS * each)
    for thread in threads:
        thread.join()


def main() -> int:
    """Run it all and say what has grown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    requests = parser.parse_args().requests
    exporter, provider = Nowhere(), TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=20_000))
    trace.set_tracer_provider(provider)
    with tempfile.TemporaryDirectory() as folder:
        IntrospectInstrumentor().instrument(
            watchdog_threshold=20,
            watchdog_observers="thread,signal,faulthandler",
            profiler_triggers="slow,tail",
            profiler_store=f"{folder}/profiles",
            profiler_store_max_count=50,
            recorder_dir=f"{folder}/recorder",
        )
        counts = []
        for tenth in range(10):
            began = time.monotonic()
            round_of(requests // 10, tenth * (requests // 10))
            counts.append(Count.now())
            seconds = time.monotonic() - began
            print(f"{(tenth + 1) * 10:3} %  {seconds:6.1f} s  {counts[-1]}  spans sent: {exporter.spans:,}", flush=True)
        print(f"events: {exporter.events:,}; our faults: {dict(faults.counts)}")
        IntrospectInstrumentor().uninstrument()
        provider.shutdown()
    # The second tenth: by then each kind has been there several times, and every cache is full.
    before, after = counts[1], counts[-1]
    grown = [
        name
        for name, room in (("resident", _GROWTH_BYTES), ("descriptors", 2), ("threads", 2), ("objects", 20_000))
        if getattr(after, name) > getattr(before, name) + room
    ]
    print(f"grown: {', '.join(grown) or 'nothing'}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
