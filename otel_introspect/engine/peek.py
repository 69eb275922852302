"""The observer ``signal``: looks at slow requests of the main thread where the introspector is kept from doing so.

What is wanted: a request is seen while it is stuck in a regular expression, which lets go of the GIL only at its end.

What does not work: a thread, which waits for the GIL until then. An alarm that rings for each request costs that a
system call; one that rings once in a while cuts short what others wait for in C, for nothing, as the introspector is on
time nearly always. And the handler of a POSIX signal can't write to a span: that takes a lock which the interrupted
code may hold, as may any other that logging or OpenTelemetry's API takes.

So: the alarm is to ring a little after the moment at which the introspector means to look next, and each time that the
introspector does look, it puts that off. No request sets the timer, and it rings only if the GIL was kept from the
introspector. Its handler then finds the spans that are due and run in the main thread right now, and for each of them
takes the stack down, turns the span slow and has its end wrapped, so that the evidence is on it however soon it ends.
What it has found it leaves with the watch, to be written by whoever closes that or by the introspector, and in a deque
for the latter. It takes no lock, imports nothing and logs nothing. It rings again for each later snapshot.

No timer runs once the introspector has parked, as a running one would end a program that takes this one's place.

What can still fail: who has SIGALRM keeps it, and there is no such observer then. Code in C that does not look for
POSIX signals, ``sum(range(10**9))`` say, is not seen, nor is any thread but the main one.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from itertools import islice
from math import inf
from types import FrameType
from typing import Any, Final, NamedTuple, TypeVar

from otel_introspect.engine import closing
from otel_introspect.engine.alarm import ALARM, Alarm
from otel_introspect.engine.clock import Clock, SystemClock
from otel_introspect.engine.live_table import LiveTable, Watch, next_look
from otel_introspect.engine.native import allocate_lock, get_ident
from otel_introspect.engine.places import Place, Sighting, Stack, ThreadPlace
from otel_introspect.engine.stacks import Capture, capture
from otel_introspect.faults import count, tell_once

PATIENCE: Final = 0.02
"""So many seconds after it should have looked, the introspector is taken to be kept from it."""
# The timer may ring so much earlier than it should.
_ABOUT: Final = 0.002
# The handler, when it is its turn, is given so many seconds to begin, and looked after so often.
_TURN: Final = 0.01
_MOMENT: Final = 0.001
# And the introspector after it, in moments.
_TURNS: Final = 20
_MILLISECOND: Final = 1_000_000
_SECOND: Final = 1_000_000_000
# Spans that one ring goes through, and those whose stacks it looks for: parked tasks take longest.
_MAX_SPANS: Final = 1_000
_MAX_STACKS: Final = 100
_ATTEMPTS: Final = 3

_T = TypeVar("_T")


class Sight(NamedTuple):
    """What the alarm's handler has seen of a span.

    Args:
        at: When that look was due, by the monotonic clock.
        now: When it was taken.
        taken: The same in nanoseconds since the epoch.
        sighting: The stack.
        looks: How many looks at this span there have been, this one included.
    """

    at: int
    now: int
    taken: int
    sighting: Sighting
    looks: int


class Peek:
    """Has the alarm look for the introspector.

    Args:
        table: The entry spans.
        report: Puts what was seen on a span, called where locks may be taken; the span can't end meanwhile.
        threshold_ms: How long a span may stay open; positive.
        max_snapshots: For each span.
        clock: What time it is.
        alarm: What rings.
    """

    def __init__(  # noqa: PLR0913 - settings, each by its name
        self,
        table: LiveTable,
        report: Callable[[Any, Watch, Sight], object],
        *,
        threshold_ms: int,
        max_snapshots: int,
        clock: Clock | None = None,
        alarm: Alarm = ALARM,
    ) -> None:
        self.peeked: Callable[[Hashable, Capture, int], None] | None = None
        """Told of each stack, in the handler: the span's key in the table, the stack, nanoseconds since the epoch."""
        self.handed: Final[deque[tuple[Watch, Sight]]] = deque()
        """What the introspector is to go on with."""
        self._table = table
        self._report = report
        self._threshold = threshold_ms * _MILLISECOND
        self._max_snapshots = max_snapshots
        self._clock: Clock = SystemClock() if clock is None else clock
        self._alarm = alarm
        self._due = inf
        self._is_on = False
        self._nobodys = allocate_lock()
        self._nobodys.acquire()
        self._offset = self._clock.wall() - self._clock.monotonic()
        self._looks_on: Final = (self._answer, self._next_due)  # one object each, to be taken off again

    def open(self) -> None:
        """Be there, from now on."""
        if not self._is_on:
            self._is_on = True
            self._alarm.look_on(*self._looks_on)

    def begin(self) -> None:
        """A span has started after a while without any. On its thread, after the introspector was woken.

        That request may keep the GIL from its start, so that the introspector does not come to have the alarm set.
        """
        if self._due == inf:
            self.go_on(None)

    def give_way(self) -> None:
        """Let the alarm go first, if it is its turn by now. On the introspector's thread, before it looks.

        Where a handler runs Python lets go of the GIL. Who has waited for that sees what the handler is about to see,
        but only because of it, and would say that it could see so itself.
        """
        now, due = time.monotonic(), -inf
        while self._due != due and now >= self._due - _ABOUT:  # the next one, too, where this thread was kept from that
            due, end = self._due, now + _TURN
            while self._due == due and now < end:
                self._nobodys.acquire(timeout=_MOMENT)  # sleeps, also where gevent has put its own in place of that
                now = time.monotonic()

    def go_on(self, wait: int | None) -> None:
        """The introspector has looked, and means to come back in *wait* nanoseconds, or after one threshold.

        From any thread.
        """
        if not self._is_on:
            return
        self._offset = self._clock.wall() - self._clock.monotonic()
        # First, as a ring that comes in between would find out that it is overdue.
        self._due = due = time.monotonic() + (self._threshold if wait is None else wait) / _SECOND + PATIENCE
        if not self._alarm.put_off(due):
            self._due = inf
            tell_once(logging.DEBUG, "The observer signal is left out, as SIGALRM is somebody else's or can't be had.")

    def rest(self) -> None:
        """The introspector has parked, or ends: ring no more."""
        if self._due != inf:
            self._due = inf
            self._alarm.nobody_looks()

    def close(self) -> None:
        """Give back what was borrowed."""
        self.rest()
        self._is_on = False
        self._alarm.look_away(*self._looks_on)

    def after_fork(self) -> None:
        """In a forked child: nothing has been seen, and no timer runs."""
        self._due = inf
        self.handed.clear()

    # In the main thread, on top of whatever runs there: takes no lock, imports nothing, logs nothing.

    def _next_due(self) -> float:
        return self._due

    def _answer(self, now: float, frame: FrameType | None) -> tuple[float, BaseException | None]:
        due = self._due
        if frame is None or due == inf or not self._alarm.is_standing_by:
            return inf, None
        if now < due - _ABOUT:
            return due, None
        wait = self._threshold
        try:
            wait = self._look(frame)
        except Exception:  # noqa: BLE001 - it would come out of any line of the application
            count("failed", "peeking")
        self._due = now + wait / _SECOND + PATIENCE
        self._give_turn()
        return self._due, None

    def _give_turn(self) -> None:
        """Let the introspector look now, before what keeps the GIL goes on: it has a profile to begin, and more to say.

        It says that it has by meaning to look again at another time. Nobody is waited for who may wait for this thread:
        only so long.
        """
        due, waited = self._due, 0
        while self._due == due and waited < _TURNS:
            self._nobodys.acquire(timeout=_MOMENT)
            waited += 1

    def _look(self, frame: FrameType) -> int:
        """Look at the spans of this thread that are due; in how many nanoseconds the next one is."""
        now = self._clock.monotonic()
        look = _Look(now, get_ident(), frame, now + self._threshold)
        for watch in _some(self._table.slow.values):
            self._look_at_slow(look, watch)
        for key, (reference, place) in _some(self._table.open.items):
            span = reference()
            if span is not None and look.is_here(place):
                self._look_at_open(look, key, span, place)
        return max(look.soonest - now, 0)

    def _look_at_slow(self, look: _Look, watch: Watch) -> None:
        at = watch.next_at
        if at is None or watch.closed or not look.is_here(watch.place):
            return
        if at > look.now:
            look.come_again(at)
            return
        following = next_look(watch.started, look.now, self._threshold, self._max_snapshots)
        look.come_again(following)
        span = watch.reference()
        stack = None if span is None else look.running(watch.place)
        if stack is None:
            return
        while not watch.claim(at):
            # The introspector has been stopped in the middle of that look; the one after it is due by now, perhaps.
            at = watch.started + 2 * (at - watch.started)
            if at > look.now:
                return
        watch.next_at = following
        self._leave(span, watch, at, stack)

    def _look_at_open(self, look: _Look, key: Hashable, span: Any, place: int | Place) -> None:  # noqa: ANN401 - the engine knows nothing of spans
        started = min(span.start_time - self._offset, look.now)
        at = started + self._threshold
        if at > look.now:
            look.come_again(at)
            return
        stack = look.running(place)
        watch = None if stack is None else self._table.turn_slow(key, started)
        if stack is None or watch is None:
            return
        watch.claim(at)
        watch.next_at = next_look(started, look.now, self._threshold, self._max_snapshots)
        look.come_again(watch.next_at)
        self._leave(span, watch, at, stack)

    def _leave(self, span: Any, watch: Watch, at: int, stack: Stack) -> None:  # noqa: ANN401 - as above
        """Leave what there is to be seen for whoever may write."""
        watch.looks += 1
        if watch.looks == 1:  # the introspector may have turned it slow, and have been stopped before it came to this
            try:
                closing.adopt(span, watch)
            except Exception:  # noqa: BLE001 - a span that can't be changed is written to all the same
                count("failed", "adopting a slow span")
        sighting = Sighting(capture(stack.frames), stack.thread_id, stack.task_state)
        sight = Sight(at, self._clock.monotonic(), self._clock.wall(), sighting, watch.looks)
        watch.put_off(partial(self._report, span, watch, sight))
        self.handed.append((watch, sight))
        if self.peeked is not None:
            try:
                self.peeked(watch.key, sighting.capture, sight.taken)
            except Exception:  # noqa: BLE001 - others are to be looked at, too
                count("failed", "handing on what was peeked at")


class _Look:
    """What one ring has found.

    Args:
        now: When it began, by the monotonic clock.
        here: The thread's id.
        frame: What was interrupted there.
        soonest: When to ring again at the latest.
    """

    def __init__(self, now: int, here: int, frame: FrameType, soonest: int) -> None:
        self.now: Final = now
        self.soonest = soonest
        self._here = here
        self._frames = {here: frame}
        self._stacks = 0

    def come_again(self, at: int | None) -> None:
        """Ring again at *at*, if not sooner."""
        if at is not None:
            self.soonest = min(self.soonest, at)

    def is_here(self, place: int | Place) -> bool:
        """Whether *place* is on this thread, running or not."""
        return (place if isinstance(place, int) else place.thread_id) == self._here

    def running(self, place: int | Place) -> Stack | None:
        """The stack at *place*, if that is what runs here now."""
        self._stacks += 1
        if self._stacks > _MAX_STACKS:
            return None
        stack = (ThreadPlace(place) if isinstance(place, int) else place).stack(self._frames)
        runs = stack is not None and stack.thread_id == self._here and stack.task_state in (None, "running")
        return stack if runs else None


def _some(values: Callable[[], Iterable[_T]]) -> list[_T]:
    """The first of *values*, which others change: even copying them may run the collector, and so anybody's code."""
    for _ in range(_ATTEMPTS):
        try:
            return list(islice(values(), _MAX_SPANS))
        except RuntimeError:
            continue
    return []
