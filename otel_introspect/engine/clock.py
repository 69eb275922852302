"""Time, as an interface, so that tests own it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two views of one instant, both in nanoseconds."""

    def wall(self) -> int:
        """Nanoseconds since the epoch: what spans carry. Jumps when somebody sets the clock."""
        ...

    def monotonic(self) -> int:
        """Nanoseconds since some fixed point: what waiting is measured by. Never jumps."""
        ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    wall = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic_ns)
