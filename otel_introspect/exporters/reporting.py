"""What the exporters share that tell a person of slow requests: which spans, and off the request's path."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_introspect import faults
from otel_introspect.exporters.background import Background
from otel_introspect.exporters.report import is_reportable
from otel_introspect.exporters.span_view import SpanView, from_readable_span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

MAX_WAITING: Final = 64
"""How many reports may wait for a slow disk, or a slow handler of log records."""
EXIT_SECONDS: Final = 3.0
"""How long the end of a process waits for its last reports."""


class ReportExporter(SpanExporter):
    """Takes slow, interrupted and recovered requests out of what is exported, and leaves the rest to its thread.

    ``export`` may run on the request's own thread: it never waits, and nothing that happens later reaches it.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stopped = False
        self._background = Background(name, self._work, self._start_afresh)
        _alive.add(self)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take what is to be told."""
        if self._stopped:
            return SpanExportResult.FAILURE
        try:
            self._background.look_for_fork()
            chosen = [span for span in spans if _is_chosen(span)]
            taken = [self._take(from_readable_span(span)) for span in chosen]
            if any(taken):
                self._background.wake()
        except Exception as error:  # noqa: BLE001 - an exporter may run on the application's own thread
            faults.failed(f"exporting spans for {self._name}", error)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until everybody has been told what may be told now."""
        return self._background.wait(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Tell what is left, within a bound; nothing is told after that."""
        if self._stopped:
            return
        self._stopped = True
        self._finish()
        self._background.stop()

    def tell_last(self) -> None:
        """As ``shutdown``, for a process that may go on after all."""
        if self._stopped:
            return
        self._stopped = True
        try:
            self._finish()
        finally:
            self._stopped = False

    def _finish(self) -> None:
        began = time.monotonic()
        with faults.fail_open(f"ending {self._name}"):
            self._background.look_for_fork()  # or a child would tell what is its parent's
            if self._outstanding() and not self._background.finish(EXIT_SECONDS):
                faults.count("failed", f"ending {self._name} in time")
            self._tell_the_rest(time.monotonic() - began)

    @abstractmethod
    def _take(self, span: SpanView) -> bool:
        """Note what is to be told; never waits, and may be called while it is running. Returns whether it was noted."""

    @abstractmethod
    def _work(self) -> float | None:
        """Tell it, on the exporter's thread; see ``Background``."""

    @abstractmethod
    def _outstanding(self) -> int:
        """How many requests nobody has been told of."""

    @abstractmethod
    def _start_afresh(self) -> None:
        """Forget everything, in a forked child: it is the parent's to tell."""

    def _tell_the_rest(self, seconds: float) -> None:
        left = self._outstanding()
        if left:
            faults.counts["dropped", f"report for {self._name}: the process ended"] += left
            faults.warn(
                "%s ends after waiting %.1f s, and nobody was told of %d slow requests.", self._name, seconds, left
            )


# Those of this process, for who ends it without shutting the tracer provider down.
_alive: WeakSet[ReportExporter] = WeakSet()


def tell_last() -> None:
    """Have all of them tell what is left, within a bound: where the process ends and nobody shuts them down."""
    for each in list(_alive):
        each.tell_last()


class QueuedReports(ReportExporter):
    """Tells of each request by itself. What there is no room for is counted, and told with the next.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._queue: deque[SpanView] = deque()
        self._missed = 0
        self._busy = False

    def _take(self, span: SpanView) -> bool:
        if len(self._queue) >= MAX_WAITING:
            self._missed += 1
            faults.count("dropped", f"report for {self._name}: it is behind")
            return False
        self._queue.append(span)
        return True

    def _outstanding(self) -> int:
        return len(self._queue) + self._missed + self._busy

    def _work(self) -> float | None:
        while self._queue:
            self._busy = True  # first, as who ends it looks at it last
            span = self._queue.popleft()
            missed = self._missed
            with faults.fail_open(f"telling of a slow request by {self._name}"):
                self._tell(span, missed)
            self._missed -= missed
            self._busy = False
        return None

    @abstractmethod
    def _tell(self, span: SpanView, missed: int) -> None:
        """Tell of one request, and that *missed* more were not told."""


def missed_note(missed: int) -> str:
    """A sentence on those that there was no room for; empty if there are none."""
    return f"{missed} more slow requests before this one were not reported: they came too fast.\n" if missed else ""


def _is_chosen(span: ReadableSpan) -> bool:
    attributes, parent = span.attributes, span.parent
    return bool(attributes) and is_reportable(attributes or {}, entry=parent is None or parent.is_remote)
