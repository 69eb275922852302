"""What the flight recorder is told once a second: that the introspector's thread lives, and where long requests are.

What is wanted: whoever looks at the file, while the process runs or when it is gone, sees where each request was about
a second ago, also one that is not slow yet, and can tell a process whose interpreter stands still.

So: a look at each span that is a second old, on the introspector's thread. What is seen is only written down; nothing
is put on a span.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Final

from otel_introspect.engine.clock import Clock
from otel_introspect.engine.flight_recorder import FlightRecorder
from otel_introspect.engine.live_table import LiveTable
from otel_introspect.engine.places import Place, ThreadPlace, look
from otel_introspect.engine.stacks import current_frames
from otel_introspect.faults import fail_open

PERIOD: Final = 1_000_000_000
"""Nanoseconds from one look to the next, and the age of a span that is looked at."""
_MAX_LOOKS: Final = 256


class VitalSigns:
    """Looks at the spans of a live table for the flight recorder.

    Args:
        table: The spans.
        recorder: Is told.
        describe: What is to be said of a span beside where it is: its name now and some of its attributes.
        clock: What time it is.
    """

    def __init__(
        self,
        table: LiveTable,
        recorder: FlightRecorder,
        describe: Callable[[Any], Mapping[str, Any]],
        clock: Clock,
    ) -> None:
        self._table = table
        self._recorder = recorder
        self._describe = describe
        self._clock = clock
        self._next = 0
        self._is_idle = True

    def look(self) -> int | None:
        """Look if it is time to; returns in how many nanoseconds to look again, None if no span is open."""
        if not self._table:
            if not self._is_idle:
                self._is_idle = True
                self._recorder.beat(idle=True)
            return None
        now = self._clock.monotonic()
        if self._is_idle or now >= self._next:
            self._is_idle = False
            self._next = now + PERIOD
            with fail_open("writing down vital signs"):
                self._recorder.open()  # a forked child has none yet
                self._recorder.beat(idle=False)
                self._write_down()
        return max(self._next - now, 0)

    def after_fork(self) -> None:
        """In a forked child: it has a file of its own to make, and not only when the parent's next look is due."""
        self._next = 0

    def _write_down(self) -> None:
        oldest = self._clock.wall() - PERIOD
        frames = None
        for looked, (key, span, place) in enumerate(self._open_spans()):
            if looked >= _MAX_LOOKS:
                break
            if span.start_time > oldest or key not in self._recorder:
                continue
            with fail_open("writing down where a request is"):
                self._recorder.note(key, self._describe(span))
                frames = current_frames() if frames is None else frames
                sighting = look(place, frames)
                if sighting is not None:
                    self._recorder.saw(
                        key,
                        sighting.capture,
                        self._clock.wall(),
                        thread_id=sighting.thread_id,
                        task_state=sighting.task_state,
                    )

    def _open_spans(self) -> Iterator[tuple[Hashable, Any, Place]]:
        for key, watch in list(self._table.slow.items()):
            span = watch.reference()
            if span is not None:
                yield key, span, watch.place
        for key, (reference, place) in list(self._table.open.items()):
            span = reference()
            if span is not None:
                yield key, span, ThreadPlace(place) if isinstance(place, int) else place
