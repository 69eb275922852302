"""The observer ``faulthandler``: snapshots of requests that keep the GIL, from what the dead-man's switch has written.

What is wanted: such a request has the place where it was stuck on its span, at about its threshold.

What does not work: beginning with the file when we come round again. Who reads one lets go of the GIL, the request goes
on, and its span may have ended before we have it again.

So: which spans it can be about is known without the file: those past their threshold when the switch fired. Each of
them first has it put off that its snapshot be written, by us or by who ends it; only then the file is read, once, by
whoever needs it first.

A thread's stack is that of the span on that thread. On an event loop's thread or under gevent somebody else may have
been running: there a span has it only if it is its task that runs now, and in the very frames that were written down,
the innermost apart; rather no stack than another request's.

What can still fail: a request that comes out of its C code and ends before the introspector's thread has the GIL at
all. Of more than a hundred threads faulthandler writes the youngest, and of a stack the hundred innermost frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import FrameType
from typing import Any, Final

from otel_introspect.engine.clock import Clock, SystemClock
from otel_introspect.engine.dead_man import PERIOD, DeadManSwitch, Dump, Frame
from otel_introspect.engine.live_table import Watch
from otel_introspect.engine.native import allocate_lock
from otel_introspect.engine.places import ThreadPlace
from otel_introspect.engine.stack_text import line_of, resolve
from otel_introspect.engine.stacks import current_frames, described
from otel_introspect.engine.threads import thread_name
from otel_introspect.engine.watchdog import Snapshot, Watchdog
from otel_introspect.faults import count, fail_open

_MILLISECOND: Final = 1_000_000
# The thread in C has its own idea of when its time has come.
_ABOUT: Final = 50 * _MILLISECOND


class FaulthandlerObserver:
    """Makes snapshots of what the switch has had written.

    Args:
        switch: What the introspector puts off.
        watchdog: Whose spans it is about.
        clock: What time it is.
    """

    def __init__(self, switch: DeadManSwitch, watchdog: Watchdog, clock: Clock | None = None) -> None:
        self._switch = switch
        self._watchdog = watchdog
        self._clock: Clock = SystemClock() if clock is None else clock

    def before_look(self) -> None:
        """To be called when the introspector has come round, before it does anything else."""
        with fail_open("reading what faulthandler has written"):
            fires_at = self._switch.fires_at
            if fires_at is None:
                return
            if self._clock.monotonic() >= fires_at - _ABOUT:
                self._collect(fires_at)
            elif self._watchdog.is_due():
                # What follows reads files, and a slow disk is no request that keeps the GIL.
                self._switch.disarm()

    def _collect(self, fires_at: int) -> None:
        late = self._clock.monotonic() - fires_at
        reading = _Reading(self._switch)
        candidates = []
        frames = current_frames()
        for due, watch in self._watchdog.overdue(fires_at):
            with fail_open("taking a snapshot of what faulthandler has written"):
                candidate = _Candidate(watch, due, _trace(watch, frames))
                watch.put_off(partial(self._write, candidate, reading))
                candidates.append(candidate)
        del frames
        dump = reading.dump()
        for candidate in candidates:
            if dump is not None and not candidate.is_written:
                resolve(described(dump.stacks.get(candidate.thread_id, ())))
            candidate.watch.catch_up()
            if candidate.is_written:
                self._watchdog.has_been_seen(candidate.watch, candidate.due)
        self._switch.forget()
        if dump is None:
            return
        if any(candidate.is_written for candidate in candidates):
            self._switch.pause_no_more()
            return
        count("dropped", "faulthandler: no request")
        # Who comes much later than it has fired was kept from it, by a request that has ended before our turn.
        if late < PERIOD // 2:
            self._switch.pause()

    def _write(self, candidate: _Candidate, reading: _Reading) -> None:
        """Runs under the watch's lock, on our thread or on that which ends the request."""
        watch = candidate.watch
        dump = reading.dump()
        span = watch.reference()
        frames = None if dump is None else dump.stacks.get(candidate.thread_id)
        if dump is None or span is None or not frames or not candidate.is_at(frames):
            return
        taken = self._clock.monotonic() - (self._clock.wall() - dump.taken)
        threshold = self._watchdog.threshold_ms
        if taken - watch.started < threshold * _MILLISECOND:
            return
        due = watch.started + threshold * _MILLISECOND if candidate.due is None else candidate.due
        snapshot = Snapshot(
            taken=dump.taken,
            capture=described(frames),
            thread_id=candidate.thread_id,
            thread_name=thread_name(candidate.thread_id),
            elapsed_ms=(taken - watch.started) // _MILLISECOND,
            threshold_ms=threshold,
            observer="faulthandler",
            lateness_ms=max(taken - due, 0) // _MILLISECOND,
            remaining=0,
            task_state=candidate.task_state,
        )
        candidate.is_written = self._watchdog.report_dump(span, watch, snapshot)


class _Reading:
    """The dump, read when it is first asked for."""

    def __init__(self, switch: DeadManSwitch) -> None:
        self._switch = switch
        self._lock = allocate_lock()
        self._is_read = False
        self._dump: Dump | None = None

    def dump(self) -> Dump | None:
        """What was written; from any thread."""
        with_lock = self._lock.acquire(timeout=1)
        try:
            if not self._is_read:
                self._is_read = True
                self._dump = self._switch.take()
            return self._dump
        finally:
            if with_lock:
                self._lock.release()


class _Candidate:
    """A span that the dump may be about.

    Args:
        watch: The span's.
        due: Since when it was to be looked at; None if it was not.
        trace: What is known of where it is now.
    """

    def __init__(self, watch: Watch, due: int | None, trace: _Trace) -> None:
        self.watch = watch
        self.due = due
        self.thread_id, self.task_state, self._now = trace
        self.is_written = False

    def is_at(self, frames: list[Frame]) -> bool:
        """Whether *frames*, those of its thread when the dump was made, are its own."""
        return self._now is None or is_same_way(frames, self._now)


_Trace = tuple[int, Any, "list[Frame] | None"]
_NOWHERE: Final[_Trace] = (0, None, None)


def _trace(watch: Watch, frames: Mapping[int, FrameType]) -> _Trace:
    """The thread that a span runs on, the state of its task, and its frames now if it shares that thread."""
    if isinstance(watch.place, ThreadPlace):
        return watch.place.thread_id, None, None
    stack = watch.place.stack(frames)
    if stack is None or stack.task_state != "running":
        return _NOWHERE
    now = [
        (frame.f_code.co_filename, line_of(frame.f_code, frame.f_lasti), frame.f_code.co_name) for frame in stack.frames
    ]
    return stack.thread_id, stack.task_state, now


def is_same_way(before: list[Frame], now: list[Frame]) -> bool:
    """Whether two stacks, innermost first, lead the same way, as far as the shorter one goes, its last step apart.

    What lies outside the outermost frame of *now* is the event loop's. What of *now* lies outside *before* is on
    another thread: a task that waits for work of its own.
    """
    for start in range(len(now), 0, -1):
        file, _, function = now[start - 1]
        ends = [place for place, frame in enumerate(before) if (frame[0], frame[2]) == (file, function)]
        if ends:
            pairs = zip(reversed(before[: ends[-1] + 1]), reversed(now[:start]), strict=False)
            same = 0
            for one, other in pairs:
                if one != other:
                    break
                same += 1
            return same >= max(min(ends[-1] + 1, start) - 1, 1)
    return False
