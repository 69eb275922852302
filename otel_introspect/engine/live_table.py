"""The live table: the entry spans now open in this process.

What is wanted: a request's thread does two dictionary operations for each entry span and nothing else; no lock, no
clock, no system call, no waking of a thread.

So:

- ``open`` holds the spans that are not slow yet in the order of their start. With one threshold that is the order of
  their deadlines, so whoever waits for the first one waits for all.
- Values are bare tuples, as they are cheapest to make: a weak reference to the span, and where it runs, a thread's id
  or a ``Place``. Weak, because an application that forgets to end its spans must not be made to keep them.
- A span that turns slow moves to ``slow``, where there is time for more. It is put there *before* it is taken out of
  ``open``, and whoever ends it looks into ``open`` first: so it is always found in at least one of the two, without a
  lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Final

from otel_introspect.engine.places import Place, ThreadPlace
from otel_introspect.faults import fail_open

Reference = Callable[[], Any]
"""Returns the span, or None once it is gone: a weak reference. All that the engine asks of a span is ``start_time``."""


class Watch:
    """A span that is slow, or that an adapter looks after.

    ``lock`` is held while something is written to the span, and taken to close: after ``close`` has returned, nobody
    writes any more. It is re-entrant because the collector may end the very span to which this thread is writing.

    The introspector and the alarm's handler both look at it, each what the other does not come to: what the handler
    calls (``claim``, ``put_off``) takes no lock.
    """

    __slots__ = (
        "_before_close",
        "_claims",
        "_pending",
        "closed",
        "is_settled",
        "key",
        "lock",
        "looks",
        "next_at",
        "place",
        "reference",
        "started",
    )

    def __init__(self, key: Hashable, reference: Reference, place: Place, started: int) -> None:
        self.key: Final = key
        self.reference: Final = reference
        self.place = place
        self.started: Final = started
        self.lock: Final = threading.RLock()
        self.closed = False
        self.is_settled = False
        """Whether it is known that the span has not ended while it turned slow."""
        self.looks = 0
        self.next_at: int | None = None
        """When it is to be looked at next, by the monotonic clock; None if not again, or if that is just being found
        out."""
        self._claims: dict[int, object] = {}
        self._pending: deque[Callable[[], object]] = deque()
        self._before_close: list[Callable[[], object]] = []

    def claim(self, at: int) -> bool:
        """Whether the look that is due at *at* is the caller's to take: of two who ask, one is told so."""
        mine = object()
        return self._claims.setdefault(at, mine) is mine

    def put_off(self, write: Callable[[], object]) -> None:
        """Have *write* done a little later: by ``catch_up``, or by whoever closes before that."""
        if not self.closed:
            self._pending.append(write)

    def catch_up(self) -> None:
        """Do what was put off, unless it has been done."""
        with self.lock:
            while self._pending and not self.closed:
                write = self._pending.popleft()
                with fail_open("writing evidence"):
                    write()

    def before_close(self, write: Callable[[], object]) -> None:
        """Have *write* done by whoever closes, before that; without the lock, as it may wait for the introspector.

        Not if it is closed already.
        """
        with self.lock:
            if not self.closed:
                self._before_close.append(write)

    def close(self) -> None:
        """Let nothing be written any more; waits for a writer that is at it, and writes what was put off."""
        while True:
            with self.lock:
                # Asked for and closed in one: what comes in between would never be done.
                if not self._before_close:
                    self.catch_up()
                    self.closed = True
                    self._pending.clear()  # what came in between keeps nothing alive
                    return
                write = self._before_close.pop()
            with fail_open("writing evidence"):
                write()


def next_look(started: int, now: int, threshold: int, max_snapshots: int) -> int | None:
    """When a span is looked at next: at the next power of two times *threshold*; None if it has been often enough."""
    multiple = 1
    for _ in range(max_snapshots - 1):
        multiple *= 2
        at = started + multiple * threshold
        if at > now:
            return at
    return None


class LiveTable:
    """The entry spans now open in this process, by a key that is unique among them: usually the span id."""

    __slots__ = ("open", "slow", "turned_slow")

    def __init__(self) -> None:
        self.open: Final[dict[Hashable, tuple[Reference, int | Place]]] = {}
        self.slow: Final[dict[Hashable, Watch]] = {}
        self.turned_slow = 0
        """How many spans have turned slow."""

    def add(self, key: Hashable, reference: Reference, place: int | Place) -> None:
        """Put in a span that has just started; *place* is the id of the thread it runs on, or where else it runs."""
        self.open[key] = (reference, place)

    def __contains__(self, key: Hashable) -> bool:
        return key in self.open or key in self.slow

    def discard(self, key: Hashable) -> None:
        """Take out a span; when this returns, nobody writes to it any more."""
        self.open.pop(key, None)
        if self.slow:
            watch = self.slow.pop(key, None)
            if watch is not None:
                watch.close()

    def place_of(self, key: Hashable) -> int | Place | None:
        """Where a span runs; None if it is not in the table."""
        entry = self.open.get(key)
        if entry is not None:
            return entry[1]
        watch = self.slow.get(key)
        return None if watch is None else watch.place

    def relocate(self, key: Hashable, place: int | Place) -> int | Place | None:
        """Say that a span runs elsewhere from now on; returns where it ran, None if it is not in the table.

        May put a span back into ``open`` that turns slow at this very moment. Harmless: the next look finds it in
        ``slow`` and drops it, and ``discard`` takes it out of both.
        """
        entry = self.open.get(key)
        before: int | Place | None = None
        if entry is not None:
            before = entry[1]
            self.open[key] = (entry[0], place)
        watch = self.slow.get(key)
        if watch is not None:
            before = watch.place
            watch.place = ThreadPlace(place) if isinstance(place, int) else place
        return before

    def turn_slow(self, key: Hashable, started: int) -> Watch | None:
        """Move a span from ``open`` to ``slow``; None if it is gone, or somebody else has moved it or is just doing so.

        Called by the introspector's thread and by the alarm's handler, each possibly in the middle of the other's call.
        """
        entry = self.open.get(key)
        span = entry[0]() if entry is not None else None
        if entry is None or span is None:
            self.open.pop(key, None)
            return None
        place = entry[1]
        watch = Watch(key, entry[0], ThreadPlace(place) if isinstance(place, int) else place, started)
        other = self.slow.setdefault(key, watch)
        if other is not watch:
            if other.is_settled:  # only put back: see relocate
                self.open.pop(key, None)
            return None
        if self.open.pop(key, None) is None:  # it ended in between: who ended it may have looked into slow too early
            self.slow.pop(key, None)
            watch.closed = True  # nobody has had it yet who would have something to write
            return None
        watch.is_settled = True
        self.turned_slow += 1
        return watch

    def is_turning_slow(self, key: Hashable) -> bool:
        """Whether somebody is just moving that span."""
        watch = self.slow.get(key)
        return watch is not None and not watch.is_settled

    def __bool__(self) -> bool:
        return bool(self.open or self.slow)

    def keep_only(self, thread_id: int) -> None:
        """Forget all spans but those of one thread: in a forked child it is the only one, and goes on with them."""
        self.turned_slow = 0
        for key, (_, place) in list(self.open.items()):
            if place != thread_id:
                del self.open[key]
        for key, watch in list(self.slow.items()):
            if not isinstance(watch.place, ThreadPlace) or watch.place.thread_id != thread_id:
                del self.slow[key]  # not closed: who held its lock is not there to give it back

    def clear(self) -> None:
        """Forget all spans."""
        for key in [*self.open, *self.slow]:
            self.discard(key)
