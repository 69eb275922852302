"""The introspector: the one thread of this package, which sleeps until there is something to do.

What is wanted: it looks at a slow span on time, costs nothing while nothing is slow, and no request ever waits for it.

What does not work: waking it for each span costs about 55 us a request at a real server; letting it sleep for one
threshold at a time for ever wakes an idle process.

So: nobody wakes it while it sleeps, as it sleeps until the oldest open span is due, or one whole threshold when there
is none, and no span that starts meanwhile can be due sooner. After a while without any span it parks: it blocks until
the next span, which then wakes it. That span finds ``parked`` set, one attribute to read on a request's path.

The race between parking and a span that starts: the thread sets ``parked`` first and then looks whether there is a
span; the request puts its span in first and then reads ``parked``. Whichever comes second sees what the other did.

What can still fail: at interpreter shutdown no thread can be started, and a C library that forks without telling Python
leaves the child without one. Spans are then not watched; nothing else happens.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from otel_introspect.engine.native import allocate_lock, get_ident, start_thread
from otel_introspect.faults import fail_open, failed

INTROSPECTOR_NAME: Final = "otel-introspect"
"""Of the thread."""

_NANOSECONDS: Final = 1_000_000_000
# So that a wake-up is past the deadline, not just before it.
_MARGIN: Final = 0.000_2
# Empty rounds, of one threshold each, before it parks: steady traffic with gaps should not wake it for each request.
_LINGER: Final = 2
# After a fault of our own, so that one that comes back each time does not keep a core busy.
_PAUSE: Final = 1.0
_STOP_SECONDS: Final = 2.0
# A fork waits that long at most for the thread to let go of what it is writing.
_FORK_SECONDS: Final = 1.0
# Who wants an errand done waits that long for the thread to begin, then does it itself; and that long for it to end.
_CLAIM_SECONDS: Final = 0.1
_ERRAND_SECONDS: Final = 1.0


class Introspector:
    """Looks after open spans on a thread of its own, which it starts at the first ``wake``.

    Args:
        look: Does what is due; returns in how many nanoseconds to come again, None if there is nothing to come for.
        idle_seconds: How long it may sleep while there is nothing to come for without being late for something new.
        forked: Called in a forked child, on the thread that forked, before anything else of ours runs there.
        name: Of the thread.
    """

    def __init__(
        self,
        look: Callable[[], int | None],
        idle_seconds: float,
        forked: Callable[[], None],
        *,
        name: str = INTROSPECTOR_NAME,
    ) -> None:
        self._look = look
        self._name = name
        self._idle_seconds = idle_seconds
        self._forked = forked
        self.parked = True
        """Whether nothing happens before the next ``wake``. Read on the request's path."""
        self._reset()
        # Hooks can't be taken back, so they must not keep us alive.
        before, parent, child = (
            weakref.WeakMethod(method) for method in (self._before_fork, self._after_fork_in_parent, self._after_fork)
        )
        os.register_at_fork(
            before=lambda: _call(before), after_in_parent=lambda: _call(parent), after_in_child=lambda: _call(child)
        )

    def _reset(self) -> None:
        self.parked = True
        self._started = False
        self._stopping = False
        self._wakeup = allocate_lock()
        self._wakeup.acquire()
        self._ended = allocate_lock()
        self._working = allocate_lock()
        self._starting = allocate_lock()
        self._held_for_fork = False
        self._errands: deque[_Errand] = deque()
        self._thread_id = 0

    def wake(self) -> None:
        """Let it look at once; starts the thread if there is none. From any thread, any number of times."""
        if not self._starting.acquire(blocking=False):
            return  # somebody else is just doing it
        try:
            self.parked = False
            if self._started:
                self._release_wakeup()
            else:
                self._start()
        finally:
            self._starting.release()

    def do(self, job: Callable[[], None]) -> bool:
        """Have *job* done on this thread, soon, and wait for it. From any thread; never from a POSIX signal handler.

        Where the introspector does not come to it in time, being at something else or not there at all, or is the one
        that asks, the caller does it itself. It is done once, and is not to raise.

        Returns:
            Whether it was done; not if the introspector has begun with it and does not end.
        """
        errand = _Errand(job)
        if self._started and self._thread_id != get_ident():
            self._errands.append(errand)
            self._release_wakeup()
            if errand.wait(_CLAIM_SECONDS):
                return True
        if errand.claim():
            with suppress(ValueError):  # or it would be kept until the thread next looks
                self._errands.remove(errand)
            job()
            return True
        return errand.wait(_ERRAND_SECONDS)

    def _start(self) -> None:
        self._stopping = False
        self._ended.acquire(blocking=False)
        try:
            start_thread(self._run, self._name)
        except RuntimeError as error:
            # Left as not parked: the next span would only meet the same.
            failed("starting the introspector's thread", error)
            return
        self._started = True

    def _release_wakeup(self) -> None:
        with suppress(RuntimeError):  # it has been woken already
            self._wakeup.release()

    def _run(self) -> None:
        empty_rounds = 0
        self._thread_id = get_ident()
        try:
            while not self._stopping:
                wait: float = _PAUSE
                with fail_open("looking after open spans"):
                    nanoseconds = self._work()
                    if nanoseconds is not None:
                        empty_rounds = 0
                        wait = nanoseconds / _NANOSECONDS + _MARGIN
                    elif empty_rounds < _LINGER:
                        empty_rounds += 1
                        wait = self._idle_seconds
                    else:
                        self.parked = True
                        # Only now is it safe to believe that there is nothing: see the race above.
                        if self._work() is None:
                            wait = -1
                        else:
                            self.parked = False
                            wait = 0
                        empty_rounds = 0
                if not self._stopping:
                    self._wakeup.acquire(timeout=min(wait, 3600.0))
        finally:
            self._started = False
            self._thread_id = 0
            self.parked = True
            self._ended.release()

    def _work(self) -> int | None:
        working = self._working  # another one after a fork
        working.acquire()
        try:
            while self._errands:
                self._errands.popleft().run()
            return self._look()
        finally:
            working.release()

    def stop(self) -> None:
        """End the thread and wait a little for it. A later ``wake`` starts another."""
        if not self._started:
            return
        self._stopping = True
        self._release_wakeup()
        if self._ended.acquire(timeout=_STOP_SECONDS):
            self._ended.release()

    # A child that is forked while this thread writes to a span would inherit the span's lock, locked for ever.

    def _before_fork(self) -> None:
        self._held_for_fork = self._working.acquire(timeout=_FORK_SECONDS)

    def _after_fork_in_parent(self) -> None:
        if self._held_for_fork:
            self._held_for_fork = False
            self._working.release()

    def _after_fork(self) -> None:
        self._reset()
        self._forked()


class _Errand:
    """Something to be done once, by whoever claims it first."""

    def __init__(self, job: Callable[[], None]) -> None:
        self._job = job
        self._claim = allocate_lock()
        self._done = allocate_lock()
        self._done.acquire()

    def claim(self) -> bool:
        """Whether it is the caller's to do."""
        return self._claim.acquire(blocking=False)

    def run(self) -> None:
        """Do it, unless it is somebody else's already."""
        if self.claim():
            try:
                with fail_open("running an errand"):
                    self._job()
            finally:
                self._done.release()

    def wait(self, seconds: float) -> bool:
        """Whether somebody else has done it before so many seconds have passed."""
        return self._done.acquire(timeout=seconds)


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    bound = method()
    if bound is not None:
        with fail_open("forking"):
            bound()
