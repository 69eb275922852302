"""How much of the process's CPU time is ours, and how much slower we go to keep that share small."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from otel_introspect.engine.native import get_ident

SHARE: Final = 0.01
"""Of the process's CPU time, in the long run."""
BURST: Final = 0.25
"""Seconds that may be spent ahead: a profile that somebody waits for is not made coarse for want of a past."""
_MAX_SLOWDOWN: Final = 64
_PERIOD: Final = 0.5


class CpuShare:
    """A budget that fills up with the process's CPU time and is emptied by our own.

    Args:
        process_time: CPU seconds of the process so far.
        thread_time: CPU seconds of the thread that calls it.
        clock: Seconds that pass.
    """

    def __init__(
        self,
        *,
        process_time: Callable[[], float] = time.process_time,
        thread_time: Callable[[], float] = time.thread_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slowdown = 1
        """By how much sampling intervals are longer than asked for."""
        self.seconds = 0.0
        """What we have spent so far: all of the introspector's thread, and the answers to the alarm."""
        self._process_time = process_time
        self._thread_time = thread_time
        self._clock = clock
        self._credit = BURST
        self._began = self._process_before = process_time()
        self._accounted = 0.0
        self._next = clock() + _PERIOD
        self._thread: tuple[int, float] = (0, 0.0)

    def spend(self, seconds: float) -> None:
        """Account for what was done on somebody else's thread."""
        self.seconds += seconds  # by the main thread alone

    def account(self) -> None:
        """Account for what the introspector, which calls this, has done since the last time; now and then adjust."""
        ident, now = get_ident(), self._thread_time()
        if self._thread[0] == ident:
            self.seconds += now - self._thread[1]
        self._thread = (ident, now)
        moment = self._clock()
        if moment < self._next:
            return
        self._next = moment + _PERIOD
        process = self._process_time()
        earned, spent = SHARE * (process - self._process_before), self.seconds - self._accounted
        self._process_before, self._accounted = process, self.seconds
        # Not for ever in debt: what was used at one time would make all profiles coarse for hours.
        self._credit = max(min(BURST, self._credit + earned - spent), -BURST)
        if self._credit < 0 and spent > earned:
            self.slowdown = min(self.slowdown * 2, _MAX_SLOWDOWN)
        elif self._credit >= BURST / 2 and self.slowdown > 1:
            self.slowdown //= 2

    def share(self) -> float:
        """The measured share of the process's CPU time since we began, from 0 to 1."""
        process = self._process_time() - self._began
        return self.seconds / process if process > 0 else 0.0
