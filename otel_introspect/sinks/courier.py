"""The courier: sees to it that what is finished leaves the process now, and not when the exporter's batch is due.

Wanted: a span that says where a request is stuck arrives within a second or so, whatever the span processors are set
to; and whatever the collector does, be slow, dead or silent, no request notices, nor does the introspector.

Does not work: ``force_flush`` on the introspector's thread, as the SDK's batches ignore its timeout and export while
the caller waits; ending a span there, as a simple span processor exports it at once; nor a pool of threads, which under
gevent are greenlets, and which keep the process from ending.

So: one daemon thread of the operating system, started when there is something to do and ended when there has been
nothing for a while. It does the jobs that were given to it, then has the provider flush once for all of them. It is at
it for half of its time at most: after each flush it waits as long as that took, and a little at least.

Under gevent an exporter's connections belong to the main thread's hub: used by another thread, their next use fails,
and the batch is lost. So there the flush is done by a greenlet of that hub, and this thread waits for it.

What can still fail: under gevent a request that does not let the hub run keeps the flush waiting. And what is being
exported as the process ends is lost.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from otel_introspect.engine.native import allocate_lock, is_main_thread, is_patched, start_thread
from otel_introspect.faults import count, fail_open, failed
from otel_introspect.sinks.log_emission import flusher_of

COURIER_NAME: Final = "otel-introspect-courier"
"""Of the thread."""
MAX_WAITING: Final = 64
"""How many jobs may wait."""

_FLUSH_SECONDS: Final = 5.0
# Between two flushes, at least and at most.
_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 1.0
# The SDK's batches and the exporter's retries may take longer than they were told.
_HUB_SECONDS: Final = 30.0

_GEVENT: Final = "gevent.monkey"


class _Round:
    """What waits for one thread, and that thread's end."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], object]] = deque()
        self.flush_wanted = False
        self.closed = False
        """Whether the thread takes nothing more."""
        self.wakeup = allocate_lock()
        self.wakeup.acquire()
        self.stopped = allocate_lock()
        """Free once nobody may go on."""
        self.stopped.acquire()
        self.ended = allocate_lock()
        self.ended.acquire()

    def wake(self) -> None:
        with suppress(RuntimeError):  # it has been woken already
            self.wakeup.release()


class Courier:
    """Does jobs and flushes the tracer provider on a thread of its own, which is allowed to block.

    Args:
        provider: Returns the tracer provider; asked each time, as it may be set late.
    """

    def __init__(self, provider: Callable[[], Any]) -> None:
        self._provider = provider
        self._hub: Any = None
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = allocate_lock()
        self._round: _Round | None = None

    def flush_soon(self) -> bool:
        """Have all that is finished exported, soon; returns at once. Never from a POSIX signal handler.

        Any number of calls before that are one.

        Returns:
            Whether somebody will try.
        """
        return self._give(None)

    def run(self, job: Callable[[], object]) -> bool:
        """Have *job* done on the courier's thread, soon; returns at once. Never from a POSIX signal handler.

        Returns:
            Whether it will be done; not if there is no room.
        """
        return self._give(job)

    def pause(self, seconds: float) -> bool:
        """Wait, on the courier's thread; returns whether to go on, which is not so if it is to end."""
        waiting = self._round
        if waiting is None:
            return False
        if waiting.stopped.acquire(timeout=seconds):
            waiting.stopped.release()
            return False
        return True

    def flush(self) -> None:
        """Have all that is finished exported, while the caller waits; on a thread that may block."""
        flush(self._provider(), _FLUSH_SECONDS, self._hub)

    def note_hub(self) -> None:
        """Under gevent: remember the main thread's hub, if that is the caller's."""
        if _GEVENT in sys.modules and is_main_thread():
            gevent = sys.modules.get("gevent")
            if gevent is not None:
                self._hub = gevent.get_hub()

    def stop(self) -> None:
        """End the thread and wait a little for it; what still waits is dropped. A later job starts another."""
        self._look_for_fork()
        lock = self._lock
        lock.acquire()
        courier_round, self._round = self._round, None
        if courier_round is not None:
            courier_round.closed = True
        lock.release()
        if courier_round is None:
            return
        courier_round.stopped.release()
        courier_round.wake()
        if courier_round.ended.acquire(timeout=_STOP_SECONDS):
            courier_round.ended.release()

    def after_fork(self) -> None:
        """Start afresh in a forked child: what was waiting is the parent's."""
        self._hub = None
        self._reset()

    def _look_for_fork(self) -> None:
        if self._process != os.getpid():  # some servers fork without telling Python
            self.after_fork()

    def _give(self, job: Callable[[], object] | None) -> bool:
        self._look_for_fork()
        lock = self._lock
        lock.acquire()
        try:
            waiting = self._round
            is_new = waiting is None or waiting.closed
            if waiting is None or waiting.closed:
                waiting = _Round()
            if job is None:
                waiting.flush_wanted = True
            elif len(waiting.jobs) >= MAX_WAITING:
                count("dropped", "the courier is behind")
                return False
            else:
                waiting.jobs.append(job)
            if is_new:
                return self._start(waiting)
            waiting.wake()
            return True
        finally:
            lock.release()

    def _start(self, waiting: _Round) -> bool:
        self._round = waiting  # first, as the job may ask for it at once
        try:
            start_thread(partial(self._run, waiting), COURIER_NAME)
        except RuntimeError as error:  # the interpreter is about to exit, or there are too many threads
            self._round = None
            failed("starting the courier's thread", error)
            return False
        return True

    # What follows runs on the thread.

    def _run(self, waiting: _Round) -> None:
        try:
            while not waiting.closed:
                try:
                    job = waiting.jobs.popleft()
                except IndexError:
                    if waiting.flush_wanted:
                        self._flush(waiting)
                    elif not waiting.wakeup.acquire(timeout=_IDLE_SECONDS):
                        self._close(waiting, unless_waiting=True)
                    continue
                with fail_open("running a job of the courier's"):
                    job()
                del job  # not kept while there is nothing to do
        finally:
            self._close(waiting)
            for _ in waiting.jobs:
                count("dropped", "the courier was stopped")
            waiting.jobs.clear()
            waiting.ended.release()

    def _close(self, waiting: _Round, *, unless_waiting: bool = False) -> None:
        # Under the lock, so that nobody gives anything to one that looks no more.
        lock = self._lock
        lock.acquire()
        waiting.closed = waiting.closed or not (unless_waiting and (waiting.jobs or waiting.flush_wanted))
        lock.release()

    def _flush(self, waiting: _Round) -> None:
        waiting.flush_wanted = False  # first: what is finished from here on needs another
        began = time.monotonic()
        with fail_open("flushing"):
            self.flush()
        pause = min(max(time.monotonic() - began, _PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        if waiting.stopped.acquire(timeout=pause):  # what comes meanwhile waits, and is flushed at once
            waiting.stopped.release()


def flush(provider: Any, seconds: float, hub: Any = None) -> None:  # noqa: ANN401 - told by what it can do; gevent's own
    """Have *provider* export what is finished, while the caller waits; may take longer than *seconds*, see above.

    Args:
        provider: The tracer provider, or the logger provider.
        seconds: What it is asked to stay within.
        hub: Of the main thread, where gevent has patched it and the caller is another thread.
    """
    force_flush = flusher_of(provider)  # the API's own provider has none
    if force_flush is None:
        return
    export = partial(force_flush, max(int(seconds * 1000), 1))
    if not is_patched():
        export()
    elif is_main_thread():
        import gevent  # type: ignore[import-untyped]

        gevent.spawn(export).join(seconds)
    elif hub is not None:
        _in_hub(hub, export)


def _in_hub(hub: Any, export: Callable[[], object]) -> None:  # noqa: ANN401 - as above
    done = allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            with fail_open("flushing"):
                export()
        finally:
            done.release()

    def spawn() -> None:
        import gevent

        gevent.spawn(run)

    hub.loop.run_callback_threadsafe(spawn)
    done.acquire(timeout=_HUB_SECONDS)
