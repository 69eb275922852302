"""What is still said about a request when gunicorn gives up on its worker, or the worker has to go.

The arbiter sends such a worker SIGABRT, and SIGKILL about a second later. The handler of the first runs in the main
thread, on the stack of whatever that is stuck in: within that second the request's span must be written to, ended and
exported, or it is lost.

What does not work: doing so in the handler. The code that it interrupts may hold any lock, the span's own, the
exporter's, logging's, and these are not re-entrant: the worker would hang in its handler until it is killed. Nor may
the handler start a ``threading.Thread``, which waits for that thread by way of such a lock.

So: the handler takes the stack down, which takes no lock, and leaves the rest to a bare thread. It waits for that
thread, as what comes after it is the worker's exit, but only so long: a lock that the interrupted code holds is not
given back before the handler is left, and a collector may be down.

What was to be written is put off to the span's end, as the watchdog does it. So where the thread has to wait for such a
lock, whoever ends the span as ``SystemExit`` passes by writes it all the same.

A worker that is told to quit leaves its requests in the middle, and is served in the same way. One that may finish them
first is killed when its grace is over; just before that, what still runs is ended. On a reload nobody kills it: then a
request that outlives the grace is reported as ended a little before it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextvars import copy_context
from functools import wraps
from types import FrameType
from typing import Any, Final, NamedTuple

from opentelemetry import trace

from otel_introspect.endings import WHY, ProcessEnded, end, end_open_spans, last_snapshot, mark
from otel_introspect.engine import native
from otel_introspect.engine.live_table import Reference
from otel_introspect.engine.native import get_ident
from otel_introspect.engine.places import Place, Sighting, ThreadPlace, look
from otel_introspect.engine.stacks import capture, outwards
from otel_introspect.faults import count, fail_open
from otel_introspect.introspection import Introspection, active

BOUND_SECONDS: Final = 0.8
"""How long the handler waits at most; what is left until SIGKILL is for the user's own hook and for the exit."""
WRITING_SECONDS: Final = 0.4
"""How long of that it waits for the evidence to be on the span: what takes longer waits for the interrupted code."""

LEAD_SECONDS: Final = 1.0
"""How long before the end of gunicorn's grace what is still running is ended."""
_MOMENT: Final = 0.005


class WorkerAborted(Exception):  # noqa: N818 - as gunicorn calls it
    """What an aborted request's span has as its ``error.type``; nobody raises it."""


class _Stuck(NamedTuple):
    """A span that ends with its worker.

    Args:
        key: In the live table.
        span: Or what an adapter has in its place.
        sighting: Where it was; None if its stack is not to be shown.
    """

    key: Hashable
    span: Any
    sighting: Sighting | None


def aborting(original: Callable[..., None], wanted: Callable[[], bool]) -> Callable[..., None]:
    """What is to handle SIGABRT in place of *original*, which it calls whatever happens."""

    @wraps(original)
    def handle_abort(self: Any, sig: int, frame: FrameType | None) -> None:  # noqa: ANN401 - gunicorn's signature
        try:
            if wanted():
                last_words = LastWords(self, frame)
                last_words.start()
                last_words.wait()
        except Exception:  # noqa: BLE001 - it would reach the application; nor can it be logged, as that takes a lock
            count("failed", "reporting a worker that gunicorn has given up on")
        finally:
            original(self, sig, frame)

    return handle_abort


def quitting(original: Callable[..., None], wanted: Callable[[], bool]) -> Callable[..., None]:
    """What is to handle SIGQUIT and SIGINT: the worker leaves its requests in the middle, those of its threads too."""

    def handle_quit(sig: int, frame: FrameType | None) -> None:
        try:
            if wanted():
                last_words = LastWords(None, frame)
                last_words.start()
                last_words.wait()
        except Exception:  # noqa: BLE001 - as above
            count("failed", "reporting a worker that quits")
        finally:
            original(sig, frame)

    return handle_quit


def leaving(original: Callable[..., None], wanted: Callable[[], bool], grace: float) -> Callable[..., None]:
    """What is to handle SIGTERM: the worker may finish what it is at, until the arbiter kills it after *grace* seconds.

    Just before that, what is still running is ended: from a bare thread, as the main one may be at it.
    """
    begun: list[None] = []

    def end_in_time() -> None:
        lead = min(LEAD_SECONDS, grace / 2)
        time.sleep(grace - lead)
        introspection = active()
        if introspection is not None and wanted():
            with fail_open("ending what outlives gunicorn's grace"):
                end_open_spans(introspection, export=True, seconds=lead)  # what is done, too, may not be sent yet

    def handle_exit(sig: int, frame: FrameType | None) -> None:
        try:
            if wanted() and not begun:
                begun.append(None)
                start_new_thread = native._original("start_new_thread")  # noqa: SLF001 - as below
                start_new_thread(end_in_time, ())
        except Exception:  # noqa: BLE001 - as above
            count("failed", "waiting for the end of gunicorn's grace")
        finally:
            original(sig, frame)

    return handle_exit


class LastWords:
    """Ends what the main thread is stuck in, and sends it off.

    Made, started and waited for in the handler: none of that takes a lock that anybody else has.

    Args:
        worker: Gunicorn's, if it is given up on; None if it quits, with all that it does.
        frame: What was interrupted.
    """

    def __init__(self, worker: Any, frame: FrameType | None) -> None:  # noqa: ANN401 - gunicorn is not imported
        self._worker = worker
        self._deadline = time.monotonic() + BOUND_SECONDS
        self._taken = time.time_ns()
        self._thread_id = get_ident()
        self._frame = frame
        self._here = Sighting(capture(outwards(frame)), self._thread_id)
        # What the current span is only this thread can say; which it is may be asked elsewhere.
        self._context = copy_context()
        self._waited_for = True
        self._written = False
        self._done = native.allocate_lock()
        self._done.acquire()

    def start(self) -> None:
        """Start the bare thread."""
        # Not the module's own start_thread(), see above.
        start_new_thread = native._original("start_new_thread")  # noqa: SLF001 - the one way to it that knows gevent
        start_new_thread(self._run, ())

    def wait(self) -> None:
        """Wait for that thread, within the bounds."""
        if not self._done.acquire(timeout=WRITING_SECONDS) and self._written:
            self._done.acquire(timeout=max(self._deadline - time.monotonic(), 0))
        self._waited_for = False

    def _run(self) -> None:
        try:
            with fail_open("reporting a worker that gunicorn has given up on"):
                self._report()
        finally:
            self._done.release()

    def _report(self) -> None:
        introspection = active()
        if introspection is None:
            return
        stuck = list(self._stuck(introspection))
        self._frame = None
        quits = self._worker is None
        error: Exception = ProcessEnded(WHY) if quits else WorkerAborted(_why(self._worker))
        for each in stuck:
            with fail_open("marking the span of an aborted request"):
                self._mark(introspection, each, error)
        self._written = True
        for each in stuck:
            with fail_open("ending the span of an aborted request"):
                end(each.span, error)
        self._let_others_end(stuck)
        if quits:  # what its threads are at
            end_open_spans(introspection, export=False, seconds=max(self._deadline - time.monotonic(), 0.05))
        elif not stuck:
            return
        self._flush(introspection)

    def _stuck(self, introspection: Introspection) -> Iterator[_Stuck]:
        """The spans of the main thread that are open now.

        Those of the live table; if it has none, then the current one. With the watchdog on, that is one which is not to
        be watched, so its stack is nobody's business.
        """
        table = introspection.table
        entries: dict[Hashable, tuple[Reference, int | Place]] = dict(list(table.open.items()))
        entries.update({key: (watch.reference, watch.place) for key, watch in list(table.slow.items())})
        found = False
        for key, (reference, place) in entries.items():
            span = reference()
            if span is not None:
                sighting = self._seen_at(place)
                if sighting is not None and span.is_recording():
                    found = True
                    yield _Stuck(key, span, sighting if self._may_show(introspection) else None)
        if not found:
            current: Any = self._context.run(trace.get_current_span)
            if current.is_recording():
                shown = self._may_show(introspection) and not introspection.watching
                yield _Stuck(current.get_span_context().span_id, current, self._here if shown else None)

    @staticmethod
    def _may_show(introspection: Introspection) -> bool:
        return "signal" in introspection.config.watchdog.observers

    def _seen_at(self, place: int | Place) -> Sighting | None:
        """What is to be seen of a span at *place*; None unless that is just what was interrupted."""
        if isinstance(place, ThreadPlace):
            place = place.thread_id
        if isinstance(place, int):
            return self._here if place == self._thread_id else None
        if self._frame is None:
            return None
        sighting = look(place, {self._thread_id: self._frame})
        # A task or a greenlet that is not running is not what the worker was stuck in. And once nobody waits for us the
        # main thread goes on, with other frames than these.
        runs = sighting is not None and sighting.task_state in (None, "running")
        return sighting if runs and self._waited_for else None

    def _mark(self, introspection: Introspection, stuck: _Stuck, error: Exception) -> None:
        span, sighting = stuck.span, stuck.sighting
        snapshot = None
        if sighting is not None:
            snapshot = last_snapshot(introspection, span, sighting, self._taken, "signal")
        mark(introspection, stuck.key, span, snapshot, error)

    def _let_others_end(self, stuck: list[_Stuck]) -> None:
        """Wait for whoever was quicker: the exit sends the span too, but gunicorn may linger on the way there."""
        while any(each.span.is_recording() for each in stuck) and time.monotonic() < self._deadline:
            time.sleep(_MOMENT)  # also long enough to get from its end into the exporter's queue

    def _flush(self, introspection: Introspection) -> None:
        introspection.see_off_records(self._deadline - time.monotonic())
        provider: Any = introspection.tracer_provider or trace.get_tracer_provider()
        flush = getattr(provider, "force_flush", None)  # which the API's own provider does not have
        if flush is not None:
            flush(max(int((self._deadline - time.monotonic()) * 1000), 1))
        introspection.flush_records(max(self._deadline - time.monotonic(), 0.001))


def _why(worker: Any) -> str:  # noqa: ANN401 - as above
    """The arbiter sends SIGABRT to those that have been silent for too long; so may anybody else, for other reasons."""
    timeout = worker.cfg.timeout
    if timeout and time.monotonic() - worker.tmp.last_update() >= timeout:
        return f"gunicorn gave up on the worker after {timeout} s"
    return "the worker was told to abort"
