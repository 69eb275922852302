"""The watchdog: decides when which open span is looked at, and has what it sees reported."""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from itertools import count as counting
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from otel_introspect.engine.clock import Clock, SystemClock
from otel_introspect.engine.live_table import LiveTable, Watch, next_look
from otel_introspect.engine.peek import Sight
from otel_introspect.engine.places import TakeLocals, TaskState, look
from otel_introspect.engine.stack_text import resolve
from otel_introspect.engine.stacks import Capture, can_walk_other_threads, current_frames
from otel_introspect.engine.threads import OtherThreads, other_threads, thread_name
from otel_introspect.faults import count, fail_open, tell_once

if TYPE_CHECKING:  # loaded only where they are asked for
    from otel_introspect.engine.locals import TakenLocals

Observer = Literal["thread", "signal", "faulthandler"]

_MILLISECOND: Final = 1_000_000
# Spans that are looked at before the thread lets others have the interpreter: bounds how long it is away from its
# clock.
_BATCH: Final = 100
# A difference between the clocks that is no drift: somebody has set the wall clock.
_CLOCK_STEP: Final = 100 * _MILLISECOND


class Snapshot(NamedTuple):
    """One stack of one span, taken once.

    Args:
        taken: Nanoseconds since the epoch.
        capture: Where the span was.
        thread_id: The thread that it was on.
        thread_name: That thread's name; empty if it is not known.
        elapsed_ms: How long the span had been open.
        threshold_ms: The threshold in force.
        observer: Who took it.
        lateness_ms: How long after it was due it was taken.
        remaining: How many more the span may get: what room must be left for.
        task_state: What the span's task did, where it runs in one.
        others: The other threads, where they were asked for.
        locals: The variables of the application's frames, where they were asked for.
    """

    taken: int
    capture: Capture
    thread_id: int
    thread_name: str
    elapsed_ms: int
    threshold_ms: int
    observer: Observer
    lateness_ms: int
    remaining: int
    task_state: TaskState | None = None
    others: OtherThreads | None = None
    locals: TakenLocals | None = None


class Reporter(Protocol):
    """Puts on a span what the watchdog has found out; its methods run on the introspector's thread."""

    def has_room(self) -> bool:
        """Whether the process may emit another snapshot at all now; if not, none is taken."""
        ...

    def adopt(self, span: Any, watch: Watch) -> None:  # noqa: ANN401 - the engine knows nothing of spans
        """See to it that *watch* is closed before *span* ends, from now on."""
        ...

    def mark_slow(self, span: Any) -> None:  # noqa: ANN401 - as above
        """Mark *span* as slow; it can't end meanwhile."""
        ...

    def report(self, span: Any, snapshot: Snapshot) -> bool:  # noqa: ANN401 - as above
        """Add *snapshot* to *span*, which can't end meanwhile; False if there was no room for it."""
        ...


class Watchdog:
    """Takes snapshots of the spans of a live table that stay open past a threshold, at 1, 2, 4, 8, ... times that.

    Args:
        table: The spans.
        reporter: Where snapshots go.
        threshold_ms: How long a span may stay open; positive.
        max_snapshots: For each span.
        all_threads: Whether a span's first snapshot comes with the other threads' stacks.
        turned_slow: Told of each span that has turned slow, on the introspector's thread.
        handed: What the alarm has seen of which spans, to go on with: see ``Peek``.
        take_locals: Takes the variables of the frames that are seen.
        clock: What time it is.
    """

    def __init__(  # noqa: PLR0913 - settings, each by its name
        self,
        table: LiveTable,
        reporter: Reporter,
        *,
        threshold_ms: int,
        max_snapshots: int,
        all_threads: bool = False,
        turned_slow: Callable[[Any, Watch], None] | None = None,
        handed: deque[tuple[Watch, Sight]] | None = None,
        take_locals: TakeLocals | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._table = table
        self._reporter = reporter
        self._threshold_ms = threshold_ms
        self._threshold = threshold_ms * _MILLISECOND
        self._max_snapshots = max_snapshots
        self._all_threads = all_threads
        self._turned_slow = turned_slow
        self._handed: deque[tuple[Watch, Sight]] = deque() if handed is None else handed
        self._take_locals = take_locals
        self._with_locals: list[tuple[Watch, Snapshot]] = []  # whose variables are still to be shown
        self._clock: Clock = SystemClock() if clock is None else clock
        self._due: list[tuple[int, int, Watch]] = []  # a heap of (monotonic time, tie-breaker, span)
        self._sequence = counting()
        self._offset = self._clock.wall() - self._clock.monotonic()
        self._looked = self._clock.monotonic()
        self._since_swept = 0

    def look(self) -> int | None:
        """Look at every span that is due.

        Returns:
            In how many nanoseconds to look again at the latest; None if no span is open. Of a span that starts from now
            on, nothing can be due earlier than after one threshold.
        """
        now = self._clock.monotonic()
        self._notice_clock_step(now)
        self._take_over()
        due = self._take_new(now)
        while self._due and self._due[0][0] <= now and len(due) < _BATCH:
            at, _, watch = heapq.heappop(self._due)
            due.append((at, watch))
        if due:
            self._take_snapshots(due)
        self._sweep()
        return self._until_next(self._clock.monotonic())

    def _take_over(self) -> None:
        """Go on with what the alarm has seen while this thread was kept from looking."""
        while self._handed:
            watch, sight = self._handed.popleft()
            if sight.looks == 1:
                self._tell_turned_slow(watch)
            # What was seen has been put off already; see _look_at.
            resolve(sight.sighting.capture)
            watch.catch_up()
            if watch.next_at is not None and not watch.closed:
                self._push(watch.next_at, watch)

    def _tell_turned_slow(self, watch: Watch) -> None:
        span = watch.reference()
        if span is not None and self._turned_slow is not None and not watch.closed and watch.key in self._table.slow:
            with fail_open("beginning to profile a slow request"):
                self._turned_slow(span, watch)

    def report_sight(self, span: Any, watch: Watch, sight: Sight) -> None:  # noqa: ANN401 - see Reporter
        """Put on *span* what the alarm has seen; it can't end meanwhile. On any thread."""
        if sight.looks == 1:
            self._reporter.mark_slow(span)
        thread_id = sight.sighting.thread_id
        snapshot = Snapshot(
            taken=sight.taken,
            capture=sight.sighting.capture,
            thread_id=thread_id,
            thread_name=thread_name(thread_id),
            elapsed_ms=(sight.now - watch.started) // _MILLISECOND,
            threshold_ms=self._threshold_ms,
            observer="signal",
            lateness_ms=max(sight.now - sight.at, 0) // _MILLISECOND,
            remaining=self._remaining(sight.looks),
            task_state=sight.sighting.task_state,
        )
        self._reporter.report(span, snapshot)

    def _remaining(self, looks: int) -> int:
        # One more may come from whoever ends the request before its time.
        return max(self._max_snapshots - looks, 0) + 1

    def _until_next(self, now: int) -> int | None:
        if not self._table:
            return None
        next_due = now + self._threshold
        while self._due and (self._due[0][2].closed or self._due[0][2].key not in self._table.slow):
            heapq.heappop(self._due)
        if self._due:
            next_due = min(next_due, self._due[0][0])
        head = self._head()
        if head is not None:
            next_due = min(next_due, head[1] - self._offset + self._threshold)
        return max(next_due - now, 0)

    def _head(self) -> tuple[Hashable, int] | None:
        """The key and the start of the span that has been open longest without being slow yet."""
        table = self._table.open
        while table:
            try:
                key, (reference, _) = next(iter(table.items()))
            except (RuntimeError, StopIteration):  # a request changed it between iter() and next()
                continue
            span = reference()
            if span is not None:
                return key, span.start_time
            table.pop(key, None)  # forgotten without being ended
        return None

    def _take_new(self, now: int) -> list[tuple[int, Watch]]:
        """Move the spans that have passed the threshold to the slow ones."""
        due: list[tuple[int, Watch]] = []
        while len(due) < _BATCH:
            head = self._head()
            if head is None:
                break
            key, start_time = head
            # A start in the future, which a caller may set, must not keep the spans behind it from being looked at.
            started = min(start_time - self._offset, now)
            if started + self._threshold > now and start_time - self._offset <= now:
                break
            watch = self._table.turn_slow(key, started)
            if watch is None:
                if self._table.is_turning_slow(key):
                    break  # the alarm's handler is at it
                continue
            watch.next_at = started + self._threshold
            if started + self._threshold > now:
                self._push(started + self._threshold, watch)
            else:
                due.append((started + self._threshold, watch))
        return due

    def _push(self, at: int, watch: Watch) -> None:
        watch.next_at = at
        heapq.heappush(self._due, (at, next(self._sequence), watch))

    def _take_snapshots(self, due: list[tuple[int, Watch]]) -> None:
        frames = current_frames()
        can_walk = can_walk_other_threads()
        if not can_walk:
            tell_once(
                logging.WARNING,
                "otel_introspect: this is a free-threaded build with the GIL off, where no thread may read another's"
                " stack. Slow spans are marked, but get no stack snapshots.",
            )
        for at, watch in due:
            if not watch.claim(at):
                continue  # the alarm was here, and hands it over
            with fail_open("taking a snapshot"):
                span = watch.reference()
                if span is None or watch.key not in self._table.slow:
                    continue
                self._look_at(span, watch, at, frames if can_walk else None)
            self._schedule(watch)
        # Showing variables takes long: by then the other spans have been looked at, and nobody's frames are held.
        del frames
        while self._with_locals:
            with fail_open("taking a snapshot"):
                self._finish(*self._with_locals.pop(0))

    def _finish(self, watch: Watch, snapshot: Snapshot) -> None:
        """Have written what was put off, now that there is time for all that belongs to it."""
        if snapshot.locals is not None and not watch.closed:
            with fail_open("showing local variables"):
                snapshot.locals.resolve()
        # Finding the source lines reads files, and whoever reads a file lets go of the GIL: beside a request that keeps
        # it for long stretches this may take longer than the request. Then that writes what was put off when it ends.
        resolve(snapshot.capture)
        if snapshot.others is not None:
            snapshot.others.resolve()
        watch.catch_up()

    def _look_at(self, span: Any, watch: Watch, at: int, frames: Mapping[int, FrameType] | None) -> None:  # noqa: ANN401 - see Reporter
        first = not watch.looks
        watch.looks += 1
        if first:
            self._reporter.adopt(span, watch)
            if self._turned_slow is not None:
                with fail_open("beginning to profile a slow request"):
                    self._turned_slow(span, watch)
        snapshot = None
        if frames is not None:
            if self._reporter.has_room():
                snapshot = self._snapshot(watch, at, frames)
            else:
                count("dropped", "process budget")
        with watch.lock:
            # Closed, or taken out of the table by somebody who could not know that there was something to close.
            if watch.closed or watch.key not in self._table.slow:
                return
            if first:
                self._reporter.mark_slow(span)
            if snapshot is None:
                return
            watch.put_off(partial(self._reporter.report, span, snapshot))
        if snapshot.locals is None:
            self._finish(watch, snapshot)
        else:
            self._with_locals.append((watch, snapshot))

    def _snapshot(self, watch: Watch, at: int, frames: Mapping[int, FrameType]) -> Snapshot | None:
        sighting = look(watch.place, frames, self._take_locals)
        if sighting is None:
            # It went on to something else between the frames' being taken and this look; others may have taken long.
            sighting = look(watch.place, current_frames(), self._take_locals)
        if sighting is None:
            count("dropped", "no stack")
            return None
        now, taken = self._clock.monotonic(), self._clock.wall()
        others = None
        if self._all_threads and watch.looks == 1:
            others = other_threads(current_frames(), sighting.thread_id)
        return Snapshot(
            taken=taken,
            capture=sighting.capture,
            thread_id=sighting.thread_id,
            thread_name=thread_name(sighting.thread_id),
            elapsed_ms=(now - watch.started) // _MILLISECOND,
            threshold_ms=self._threshold_ms,
            observer="thread",
            lateness_ms=max(now - at, 0) // _MILLISECOND,
            remaining=self._remaining(watch.looks),
            task_state=sighting.task_state,
            others=others,
            locals=sighting.locals,
        )

    def _schedule(self, watch: Watch) -> None:
        """Have *watch* looked at again at the next power of two times the threshold, if it may be."""
        at = next_look(watch.started, self._clock.monotonic(), self._threshold, self._max_snapshots)
        watch.next_at = at
        if at is not None and not watch.closed:
            self._push(at, watch)

    def _sweep(self) -> None:
        """Drop slow spans that were forgotten without being ended, now and then: nobody else would."""
        self._since_swept += 1
        if self._since_swept < _BATCH:
            return
        self._since_swept = 0
        for key, watch in list(self._table.slow.items()):
            if watch.reference() is None:
                self._table.discard(key)

    def _notice_clock_step(self, now: int) -> None:
        """Keep spans' starts, which are wall times, comparable with the monotonic clock when the wall clock is set.

        Spans that were open by then are told from those that started since by whether their start lies within the time
        that has passed since the last look.
        """
        offset = self._clock.wall() - now
        step, before = offset - self._offset, self._offset
        since_last_look = now - self._looked
        self._looked = now
        self._offset = offset
        if abs(step) < _CLOCK_STEP:
            return
        for key, (reference, _) in list(self._table.open.items()):
            span = reference()
            if span is None or now - since_last_look <= span.start_time - offset <= now:
                continue
            watch = self._table.turn_slow(key, min(span.start_time - before, now))
            if watch is not None:
                self._push(watch.started + self._threshold, watch)

    # For the observer faulthandler, on the introspector's thread.

    @property
    def threshold_ms(self) -> int:
        """How long a span may stay open."""
        return self._threshold_ms

    def is_due(self) -> bool:
        """Whether ``look`` would look at a span now, and so take a while."""
        now = self._clock.monotonic()
        head = self._head()
        return bool(self._handed or (self._due and self._due[0][0] <= now)) or (
            head is not None and head[1] - self._offset + self._threshold <= now
        )

    def overdue(self, at: int) -> list[tuple[int | None, Watch]]:
        """The spans that had passed their threshold at *at*, turned slow, each with the look that has been due since.

        None of them ends from now on without what is put off for it being written.
        """
        now = self._clock.monotonic()
        self._notice_clock_step(now)
        for due, watch in self._take_new(now):
            self._push(due, watch)
            span = watch.reference()
            if span is not None:
                self._reporter.adopt(span, watch)
        return [
            (watch.next_at if watch.next_at is not None and watch.next_at <= now else None, watch)
            for watch in list(self._table.slow.values())
            if watch.started + self._threshold <= at and watch.looks < self._max_snapshots
        ]

    def report_dump(self, span: Any, watch: Watch, snapshot: Snapshot) -> bool:  # noqa: ANN401 - see Reporter
        """Put on *span* what was written of it; it can't end meanwhile. On any thread."""
        self._reporter.mark_slow(span)
        return self._reporter.report(span, snapshot._replace(remaining=self._remaining(watch.looks + 1)))

    def has_been_seen(self, watch: Watch, due: int | None) -> None:
        """There is a snapshot of *watch* by another observer, in place of the look that has been due since *due*."""
        first = not watch.looks
        watch.looks += 1
        if first:
            self._tell_turned_slow(watch)
        if due is not None and watch.claim(due):
            self._schedule(watch)
