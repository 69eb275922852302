"""The traces exporter ``introspect_console``: readable trees with the stacks of what was stuck."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO
from weakref import WeakMethod

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_introspect import faults
from otel_introspect.exporters.span_view import from_readable_span
from otel_introspect.exporters.styled import Line
from otel_introspect.exporters.terminal import glyphs_for, write
from otel_introspect.exporters.trace_buffer import DEFAULT_MAX_SPANS, Trace, TraceBuffer
from otel_introspect.exporters.trace_tree import render

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


class IntrospectConsoleExporter(SpanExporter):
    """Prints each trace when its entry span has ended.

    Nothing that a span carries, and nothing that happens to the stream, makes it raise.

    Args:
        out: Where to print; ``sys.stdout``, looked up each time, if there is none.
        max_spans: How many spans may wait for their entry span.
    """

    def __init__(self, out: TextIO | None = None, *, max_spans: int = DEFAULT_MAX_SPANS) -> None:
        self._out = out
        self._buffer = TraceBuffer(max_spans)
        self._lock = threading.Lock()
        self._stopped = False
        if hasattr(os, "register_at_fork"):
            # Weak, as a hook can't be taken back: an exporter that is gone must not be kept for it.
            weak = WeakMethod(self._start_afresh)
            os.register_at_fork(after_in_child=lambda: (method := weak()) and method())

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Print what is complete with *spans*, keep the rest."""
        if self._stopped:
            return SpanExportResult.FAILURE
        try:
            with self._lock:
                traces = self._buffer.add(map(from_readable_span, spans))
                return SpanExportResult.SUCCESS if self._print(traces) else SpanExportResult.FAILURE
        except Exception as error:  # noqa: BLE001 - an exporter may run on the application's own thread
            faults.failed("exporting spans to the console", error)
            return SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Print what still waits for its entry span, too."""
        del timeout_millis  # there is nothing to wait for
        try:
            with self._lock:
                return self._print(self._buffer.drain())
        except Exception as error:  # noqa: BLE001 - see export()
            faults.failed("flushing spans to the console", error)
            return False

    def shutdown(self) -> None:
        """Print what is left; nothing is printed after that."""
        if not self._stopped:
            self.force_flush()
            self._stopped = True

    def _print(self, traces: Sequence[Trace]) -> bool:
        if not traces:
            return True
        out = sys.stdout if self._out is None else self._out
        if out is None:  # a daemon, or pythonw
            faults.count("dropped", "trace for the console: there is no standard output")
            return False
        glyphs = glyphs_for(out)
        lines: list[Line] = []
        for trace in traces:
            try:
                lines += [*render(trace, glyphs), ()]
            except Exception as error:  # noqa: BLE001 - one trace that can't be shown is not to cost the others
                faults.failed("rendering a trace", error)
        try:
            write(out, lines)
        except (OSError, ValueError):  # the reader is gone; the stream is closed: normal at the end of a process
            faults.count("dropped", "trace for the console: its stream is closed")
            return False
        return True

    def _start_afresh(self) -> None:
        # Another thread may have held the lock when this process was forked; and what waits is the parent's to print.
        self._lock = threading.Lock()
        self._buffer.clear()
