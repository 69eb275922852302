"""Checkpoints: finished child spans that carry a snapshot out of the process while the request still runs.

Wanted: the trace of a request that is stuck right now can be looked at, as a span that has not ended is not exported.

Does not work: making such a span where the snapshot is written, with the request's own span locked: span processors of
others run as it starts and ends, and a request that ends just then would wait for them. Nor making it on the
introspector's thread, as some processors export while they are called, and the collector may never answer.

So: the reporter hands over a copy of what it has put on a span; the introspector, between two looks, hands on what is
still of use; the courier makes the span, and has it flushed. What has ended meanwhile needs no checkpoint, as it is on
its way itself.

Where evidence goes into log records only, which leave the process by themselves, a checkpoint carries none: it is there
so that the trace which they refer to can be found.

A checkpoint counts for the process's budget, and only uses the half that leaves room for snapshots on the spans
themselves. Where there is no room it waits, and newer ones push out older ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple
from weakref import WeakSet, ref

from opentelemetry.context import Context
from opentelemetry.semconv._incubating.attributes import http_attributes as incubating_http
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD, HTTP_ROUTE
from opentelemetry.semconv.attributes.url_attributes import URL_PATH
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from otel_introspect import semconv
from otel_introspect.engine.live_table import Reference
from otel_introspect.engine.stack_text import cut
from otel_introspect.faults import count, fail_open
from otel_introspect.sinks.budget import PROCESS_BYTES, ProcessBudget, size_of
from otel_introspect.sinks.courier import Courier

_MAX_WAITING: Final = 64
# How soon those that wait for room in the budget are looked at again, in nanoseconds.
_AGAIN: Final = 1_000_000_000
# Which request it is, in the old conventions and in the new ones.
_REQUEST: Final = (
    HTTP_REQUEST_METHOD,
    HTTP_ROUTE,
    URL_PATH,
    incubating_http.HTTP_METHOD,
    incubating_http.HTTP_TARGET,
)
# What a checkpoint's name begins with; the name of its parent follows.
_PREFIX: Final = "slow: "
_MAX_NAME_BYTES: Final = 250


class _Note(NamedTuple):
    """A snapshot that is on a span.

    Args:
        reference: The span, as long as it is there.
        attributes: Of the snapshot's event.
        taken: When, in nanoseconds since the epoch.
    """

    reference: Reference
    attributes: dict[str, AttributeValue]
    taken: int


class Checkpoints:
    """Makes a checkpoint of the first or of every snapshot of a slow entry span.

    Args:
        every: Whether of every one.
        tracer: Returns what makes spans.
        courier: Makes them, and has them flushed.
        budget: The process's.
        max_bytes: The longest string.
        without_event: Says whether the event is left out; it never is if None is given.
    """

    def __init__(  # noqa: PLR0913 - settings, each by its name
        self,
        *,
        every: bool,
        tracer: Callable[[], Tracer],
        courier: Courier,
        budget: ProcessBudget,
        max_bytes: int,
        without_event: Callable[[], bool] | None = None,
    ) -> None:
        self._every = every
        self._tracer = tracer
        self._courier = courier
        self._budget = budget
        self._max_bytes = max_bytes
        self._without_event = without_event
        self._notes: deque[_Note] = deque(maxlen=_MAX_WAITING)
        self._done: WeakSet[Any] = WeakSet()
        """The spans that have a checkpoint; asked and told on the introspector's thread only."""

    def emit(self, span: Span, name: str, attributes: dict[str, AttributeValue], timestamp: int) -> bool:
        """See ``Sink``; takes down that *span* has a snapshot. Called with the span locked, so it does nothing else."""
        if name == semconv.STACK_SNAPSHOT_EVENT:
            if len(self._notes) == _MAX_WAITING:
                count("dropped", "checkpoint: too many wait")
            self._notes.append(_Note(ref(span), attributes, timestamp))
        return True

    def hand_on(self) -> int | None:
        """Give to the courier what is still of use. Runs on the introspector's thread.

        Returns:
            In how many nanoseconds to come again, as some wait for room; None if none do.
        """
        for _ in range(len(self._notes)):
            note = self._notes.popleft()
            span = note.reference()
            if span is None or not self._wants(span):
                continue
            size = self._size(span, note)
            # Half of the budget is for the snapshots on the spans themselves.
            if not self._budget.has_room(size + PROCESS_BYTES // 2):
                self._notes.appendleft(note)
                return _AGAIN
            if self._courier.run(partial(self._make, note)):
                self._budget.spend(size)
                self._done.add(span)
        return None

    def _wants(self, span: Any) -> bool:  # noqa: ANN401 - a span, or what an adapter has in its place
        # Not what an application has asked for with snapshot(), on a span that is not watched, or not slow.
        parent = getattr(span, "parent", None)
        is_entry = parent is None or parent.is_remote
        is_slow = is_entry and bool((getattr(span, "attributes", None) or {}).get(semconv.SLOW))
        return is_slow and span.is_recording() and (self._every or span not in self._done)

    def after_fork(self) -> None:
        """In a forked child: what was noted is the parent's to send."""
        self._notes.clear()
        self._done = WeakSet()

    def _size(self, span: Any, note: _Note) -> int:  # noqa: ANN401 - as above
        name = _name(span)
        size = size_of(name, self._attributes(span))
        return size + (size_of(semconv.STACK_SNAPSHOT_EVENT, note.attributes) if self._has_event() else 0)

    def _has_event(self) -> bool:
        return self._without_event is None or not self._without_event()

    def _attributes(self, span: Any) -> dict[str, AttributeValue]:  # noqa: ANN401 - as above
        given: Mapping[str, AttributeValue] = getattr(span, "attributes", None) or {}
        attributes: dict[str, AttributeValue] = {
            semconv.SLOW: True,
            semconv.SNAPSHOTS: 1,
            semconv.CHECKPOINT: True,
        }
        for key in _REQUEST:
            value = given.get(key)
            if value is not None:
                attributes[key] = cut(value, self._max_bytes) if isinstance(value, str) else value
        return attributes

    # What follows runs on the courier's thread.

    def _make(self, note: _Note) -> None:
        span = note.reference()
        if span is None or not span.is_recording():  # it has ended: it says all this itself
            return
        with fail_open("making a checkpoint"):
            parent = NonRecordingSpan(span.get_span_context())
            checkpoint = self._tracer().start_span(
                _name(span),
                # Not what is current on this thread, and as a local parent: so it is no entry span, and not watched.
                context=set_span_in_context(parent, Context()),
                kind=SpanKind.INTERNAL,
                attributes=self._attributes(span),
                start_time=span.start_time,
            )
            if checkpoint.is_recording():
                if self._has_event():
                    checkpoint.add_event(semconv.STACK_SNAPSHOT_EVENT, note.attributes, note.taken)
                self._courier.flush_soon()
            checkpoint.end(max(note.taken, span.start_time))


def _name(span: Any) -> str:  # noqa: ANN401 - as above
    return cut(f"{_PREFIX}{getattr(span, 'name', 'request')}", _MAX_NAME_BYTES)
