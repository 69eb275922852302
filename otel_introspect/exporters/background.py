"""A thread on which an exporter's slow part is done: whoever ends a span may be the request's own thread.

Wanted: waking it costs a request next to nothing and never waits, not even inside a finaliser that runs while this
very thread is waking it; the process forks, and ends, as if it were not there.

Does not work: a queue or a lock that is waited for, both for the finaliser and for a fork; a thread of ``threading``,
which under gevent is a greenlet.

So: a daemon thread of the operating system, started when it is first woken. It calls ``work``, which says in how many
seconds it wants to be called again, if at all; and sleeps. A lock is only ever tried.

Still open: no thread can be started any more while the interpreter exits. Then ``finish`` works where it is called.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final
from weakref import WeakMethod

from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_introspect.engine.native import Lock, allocate_lock, start_thread
from otel_introspect.faults import fail_open, failed

# In case the clock by which it was told when to come back has been standing still.
_LONGEST_SLEEP: Final = 3600.0


class _Run:
    """One thread's life."""

    def __init__(self) -> None:
        self.wakeup = allocate_lock()
        self.wakeup.acquire()
        self.waiting: deque[Lock] = deque()
        """To be released once all has been done that there was to do."""
        self.closed = False

    def wake(self) -> None:
        with suppress(RuntimeError):  # it has been woken already
            self.wakeup.release()


class Background:
    """Calls a function on a thread of its own, when it is woken and when that wants to be called.

    Args:
        name: Of the thread.
        work: Does all that is to do, and returns in how many seconds there will be more; None if it is to be woken.
        after_fork: Called in a forked child, before anything else.
    """

    def __init__(self, name: str, work: Callable[[], float | None], after_fork: Callable[[], None]) -> None:
        self._name = name
        self._work = work
        self._forget = after_fork
        self._reset()
        if hasattr(os, "register_at_fork"):
            # Weak, as a hook can't be taken back: an exporter that is gone must not be kept for it.
            weak = WeakMethod(self._after_fork)
            os.register_at_fork(after_in_child=lambda: (method := weak()) and method())

    def _reset(self) -> None:
        self._process = os.getpid()
        self._run: _Run | None = None
        self._starting = allocate_lock()

    def _after_fork(self) -> None:
        self._reset()
        self._forget()

    def look_for_fork(self) -> None:
        """Start afresh if this is a forked child: some servers fork without telling Python."""
        if self._process != os.getpid():
            self._after_fork()

    def wake(self) -> bool:
        """Have it work, soon; returns whether somebody will."""
        self.look_for_fork()
        run = self._run
        if run is None:
            # Whoever is starting it just now has it look for everything.
            return self._start() if self._starting.acquire(blocking=False) else True
        run.wake()
        return True

    def _start(self) -> bool:
        try:
            if self._run is None:
                self._run = run = _Run()
                start_thread(partial(self._loop, run), self._name)
        except RuntimeError as error:  # the interpreter is about to exit, or there are too many threads
            self._run = None
            if threading.main_thread().is_alive():  # as the interpreter exits it is as expected, and seen to
                failed(f"starting the thread {self._name}", error)
            return False
        finally:
            self._starting.release()
        return True

    def wait(self, seconds: float) -> bool:
        """Wait until all is done that there is to do now, *seconds* at most; returns whether it was."""
        self.look_for_fork()
        run = self._run
        if run is None or run.closed:
            return True
        done = allocate_lock()
        done.acquire()
        run.waiting.append(done)
        run.wake()
        return done.acquire(timeout=seconds)

    def finish(self, seconds: float) -> bool:
        """Work once more; returns whether that was done within *seconds*."""
        self.look_for_fork()
        if self._run is None and not self.wake():
            self._once()
            return True
        return self.wait(seconds)

    def stop(self) -> None:
        """End the thread as soon as it is not working; waking it later starts another."""
        self.look_for_fork()
        run, self._run = self._run, None
        if run is not None:
            run.closed = True
            run.wake()

    # What follows runs on the thread.

    def _loop(self, run: _Run) -> None:
        while True:
            waiting = [run.waiting.popleft() for _ in range(len(run.waiting))]
            pause = self._once()
            for each in waiting:
                each.release()
            if run.closed:
                break
            run.wakeup.acquire(timeout=-1 if pause is None else min(max(pause, 0.0), _LONGEST_SLEEP))

    def _once(self) -> float | None:
        # What is sent from here is no work of the application's.
        with suppress_instrumentation(), fail_open(f"working for {self._name}"):
            return self._work()
        return None
