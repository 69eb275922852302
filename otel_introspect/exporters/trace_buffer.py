"""Spans kept until the entry span of their trace arrives, within bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from otel_introspect import faults
from otel_introspect.exporters.span_view import SpanView

DEFAULT_MAX_SPANS: Final = 10_000
_MAX_REMEMBERED: Final = 20_000


@dataclass(frozen=True, slots=True)
class Trace:
    """What one process did in one trace, as far as it is known.

    Args:
        spans: In order of arrival.
        late: Whether this comes after the trace itself: the spans of a streamed body, of work left behind.
        partial: Whether the entry span has not arrived.
    """

    trace_id: str
    spans: tuple[SpanView, ...]
    late: bool = False
    partial: bool = False


class TraceBuffer:
    """Puts spans that arrive in any order together into traces.

    Children end before their parent, so a trace is complete enough to be read when its entry span arrives. What ends
    later still (a streamed body) is handed out by itself, as soon as its parent is known to have been handed out.

    Not safe for use from several threads at once: the caller has a lock anyway.

    Args:
        max_spans: How many spans may wait; then the oldest trace's oldest are dropped, and counted.
    """

    def __init__(self, max_spans: int = DEFAULT_MAX_SPANS) -> None:
        self._max_spans = max(max_spans, 1)
        self._waiting: dict[str, dict[str, SpanView]] = {}
        self._size = 0
        # Span ids, oldest first: whose children are late. Dictionaries keep their order, sets don't.
        self._handed_out: dict[str, None] = {}

    def __len__(self) -> int:
        return self._size

    def add(self, spans: Iterable[SpanView]) -> list[Trace]:
        """Take *spans* in; the traces that are complete now come back."""
        heads = [span for span in spans if self._put(span) and (span.entry or span.parent_id in self._handed_out)]
        traces = []
        for head in heads:
            late = not head.entry
            taken = self._take(head)
            if taken:
                traces.append(Trace(head.trace_id, taken, late=late))
        return traces

    def drain(self) -> list[Trace]:
        """Everything that still waits, in traces without their entry span."""
        traces = [
            Trace(trace_id, tuple(spans.values()), partial=True) for trace_id, spans in self._waiting.items() if spans
        ]
        for trace in traces:
            self._remember(trace.spans)
        self._waiting.clear()
        self._size = 0
        return traces

    def clear(self) -> None:
        """Forget all: in a forked child the spans are the parent's to hand out."""
        self._waiting.clear()
        self._handed_out.clear()
        self._size = 0

    def _put(self, span: SpanView) -> bool:
        spans = self._waiting.setdefault(span.trace_id, {})
        if span.span_id in spans:
            return False
        while self._size >= self._max_spans:
            self._drop_oldest()
            spans = self._waiting.setdefault(span.trace_id, {})
        spans[span.span_id] = span
        self._size += 1
        return True

    def _drop_oldest(self) -> None:
        faults.count("dropped", "span that waited for its entry span: too many wait")
        trace_id, spans = next(item for item in self._waiting.items() if item[1])
        del spans[next(iter(spans))]
        self._size -= 1
        if not spans:
            del self._waiting[trace_id]

    def _take(self, head: SpanView) -> tuple[SpanView, ...]:
        """*head* and all that is known to descend from it, no longer waiting; empty if it is gone."""
        waiting = self._waiting.get(head.trace_id, {})
        if head.span_id not in waiting:
            return ()
        children: dict[str, list[str]] = {}
        for span in waiting.values():
            children.setdefault(span.parent_id, []).append(span.span_id)
        wanted = {head.span_id}
        to_visit = [head.span_id]
        while to_visit:
            for child in children.get(to_visit.pop(), ()):
                # Another entry span of this process (it called itself) is its own head.
                if child not in wanted and not waiting[child].entry:
                    wanted.add(child)
                    to_visit.append(child)
        taken = tuple(span for span in waiting.values() if span.span_id in wanted)
        for span in taken:
            del waiting[span.span_id]
        self._size -= len(taken)
        if not waiting:
            del self._waiting[head.trace_id]
        self._remember(taken)
        return taken

    def _remember(self, spans: Iterable[SpanView]) -> None:
        for span in spans:
            self._handed_out[span.span_id] = None
        while len(self._handed_out) > _MAX_REMEMBERED:
            del self._handed_out[next(iter(self._handed_out))]
