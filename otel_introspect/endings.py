"""What is still said about requests that are running when their process ends.

Wanted: the interpreter exits, or a server ends its worker, while requests are still running, in a daemon thread say.
Their spans arrive, and say that and where they were cut off.

Does not work: waiting for the exporter's own end, as a span that is open is not exported; nor ending the spans on the
thread that exits, as a span may be locked by a thread that never lets go, and a processor may export while it is
called.

So: whoever learns of the end takes the stacks down, which takes no lock, and leaves the rest to a bare thread: that
marks each span, adds the snapshot, ends it, and has what is finished exported. It is waited for, but only so long. From
then on every other end of such a span does nothing, as the SDK would warn of it.

What can still fail: a span that its own thread writes to after that is warned about by the SDK. What the parent of a
forked process has opened is the parent's to end, so it is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Final, NamedTuple
from weakref import ref

from opentelemetry import trace
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Status, StatusCode

from otel_introspect import semconv
from otel_introspect.engine import native
from otel_introspect.engine.live_table import Watch
from otel_introspect.engine.native import get_ident
from otel_introspect.engine.places import Place, Sighting, ThreadPlace, look
from otel_introspect.engine.stack_text import resolve
from otel_introspect.engine.stacks import can_walk_other_threads, current_frames
from otel_introspect.engine.threads import thread_name
from otel_introspect.engine.watchdog import Observer, Snapshot
from otel_introspect.faults import count, fail_open
from otel_introspect.introspection import Introspection
from otel_introspect.sinks.courier import flush
from otel_introspect.sinks.span_events import set_attribute

BOUND_SECONDS: Final = 5.0
"""How long the end of a process is kept waiting at most."""

_MILLISECOND: Final = 1_000_000
WHY: Final = "process ended while the request was running"


class ProcessEnded(Exception):  # noqa: N818 - names what happened
    """What such a request's span has as its ``error.type``; nobody raises it."""


class _Cut(NamedTuple):
    """A span that ends with its process.

    Args:
        key: In the live table.
        span: Or what an adapter has in its place.
        sighting: Where it was; None if that can't be told.
    """

    key: Hashable
    span: Any
    sighting: Sighting | None


def end_open_spans(introspection: Introspection, *, export: bool, seconds: float = BOUND_SECONDS) -> int:
    """End the entry spans that are open, and say on them why.

    Args:
        introspection: Of which.
        export: Whether to have all that is finished exported, these and others; somebody else does it if not.
        seconds: How long that may take; it goes on by itself after that.

    Returns:
        How many were open.
    """
    deadline = time.monotonic() + seconds
    cut_off = _cut_off(introspection)
    if not (cut_off or export):
        introspection.see_off_records(seconds)
        return 0
    taken = time.time_ns()
    done = native.allocate_lock()
    done.acquire()
    # An exporter's connections belong to the main thread under gevent.
    exports_here = export and native.is_patched()

    def run() -> None:
        try:
            error = ProcessEnded(WHY)
            for each in cut_off:
                with fail_open("ending a span with its process"):
                    _end_cut_off(introspection, each, taken, error)
            introspection.see_off_records(deadline - time.monotonic())
            if export and not exports_here:
                _export(introspection, deadline)
        finally:
            done.release()

    try:
        # Not the module's own start_thread(), which waits for that thread by way of a lock.
        native._original("start_new_thread")(run, ())  # noqa: SLF001 - the one way to it that knows gevent
    except RuntimeError:  # too many threads, or none any more
        run()
    done.acquire(timeout=max(deadline - time.monotonic(), 0))
    if exports_here:
        with fail_open("flushing"):
            _export(introspection, deadline)
    return len(cut_off)


def _cut_off(introspection: Introspection) -> list[_Cut]:
    table = introspection.table
    places: dict[Hashable, tuple[Any, int | Place]] = dict(list(table.open.items()))
    places.update({key: (watch.reference, watch.place) for key, watch in list(table.slow.items())})
    spans = [
        (key, span, place)
        for key, (reference, place) in places.items()
        if key not in introspection.inherited and (span := reference()) is not None and span.is_recording()
    ]
    if not spans:
        return []
    frames = current_frames() if can_walk_other_threads() else {}
    cut_off = []
    for key, span, place in spans:
        sighting = None
        with fail_open("looking where a request ends with its process"):
            sighting = look(ThreadPlace(place) if isinstance(place, int) else place, frames) if frames else None
            # Who runs on this very thread has been left already: what is to be seen is the process's end.
            if sighting is not None and sighting.thread_id == get_ident() and sighting.task_state in (None, "running"):
                sighting = None
        cut_off.append(_Cut(key, span, sighting))
    return cut_off


def _end_cut_off(introspection: Introspection, cut: _Cut, taken: int, error: ProcessEnded) -> None:
    snapshot = None
    if cut.sighting is not None:
        if introspection.reporter.has_room():
            snapshot = last_snapshot(introspection, cut.span, cut.sighting, taken, "thread")
        else:
            count("dropped", "process budget")
    mark(introspection, cut.key, cut.span, snapshot, error)
    end(cut.span, error)


def _export(introspection: Introspection, deadline: float) -> None:
    provider = introspection.tracer_provider or trace.get_tracer_provider()
    flush(provider, max(deadline - time.monotonic(), 0.001))
    introspection.flush_records(max(deadline - time.monotonic(), 0.001))


def last_snapshot(
    introspection: Introspection,
    span: Any,  # noqa: ANN401 - a span, or what an adapter has in its place
    sighting: Sighting,
    taken: int,
    observer: Observer,
) -> Snapshot:
    """The snapshot that goes with the end of *span*."""
    return Snapshot(
        taken=taken,
        capture=sighting.capture,
        thread_id=sighting.thread_id,
        thread_name=thread_name(sighting.thread_id),
        elapsed_ms=max(taken - span.start_time, 0) // _MILLISECOND,
        threshold_ms=introspection.config.watchdog.threshold,
        observer=observer,
        lateness_ms=0,
        remaining=0,
        task_state=sighting.task_state,
    )


def mark(
    introspection: Introspection,
    key: Hashable,
    span: Any,  # noqa: ANN401 - as above
    snapshot: Snapshot | None,
    error: Exception,
) -> None:
    """Say on *span* that it was cut off and where; after that only the first end of it counts.

    It is put off to the span's end first: if a lock has to be waited for, whoever ends the span writes it all the same.
    """
    reporter = introspection.reporter

    def write() -> None:
        if not span.is_recording():
            return
        set_attribute(span, semconv.INTERRUPTED, value=True)
        set_attribute(span, ERROR_TYPE, type(error).__qualname__)
        set_status = getattr(span, "set_status", None)
        if set_status is not None:
            set_status(Status(StatusCode.ERROR, str(error)))
        if snapshot is not None:
            if introspection.finds_slow and snapshot.elapsed_ms >= snapshot.threshold_ms:
                reporter.mark_slow(span)  # the watchdog may not have come to it
            reporter.report(span, snapshot)

    watch = Watch(key, ref(span), ThreadPlace(get_ident()), span.start_time)
    reporter.adopt(span, watch)
    end_once(span)
    watch.put_off(write)
    # From here on whoever ends the span writes that first, should we have to wait for a lock.
    introspection.table.discard(key)
    if snapshot is not None:
        resolve(snapshot.capture)
    watch.catch_up()


def end_once(span: Any) -> None:  # noqa: ANN401 - as above
    """Have only the first end of *span* count: the SDK warns of every other one."""
    original: Callable[..., None] = span.end
    turns = [None]

    def first_end(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on as they are
        try:
            turns.pop()  # of two threads only one can
        except IndexError:
            return
        original(*args, **kwargs)

    with suppress(AttributeError):  # a span with slots
        span.end = first_end


def end(span: Any, error: Exception) -> None:  # noqa: ANN401 - as above
    """End *span*, which is marked."""
    if hasattr(span, "set_status"):
        span.end()
    else:
        span.end(error)  # what stands for a streamed body's span
