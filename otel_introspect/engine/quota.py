"""``Quota``: time that several blocks share."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Final


class Quota:
    """Time that several ``timeout`` blocks share; it runs only while at least one of them is open.

    Blocks in each other, or in several threads at once, use it up once.

    Args:
        seconds: How much there is, more than 0.

    Raises:
        ValueError: If *seconds* is not more than 0.
        TypeError: If it is no number.
    """

    __slots__ = ("_depth", "_lock", "_seconds", "_since", "total")

    def __init__(self, seconds: float) -> None:
        self.total: Final = checked_seconds(seconds)
        """How many seconds there were at first."""
        self._seconds = self.total
        self._depth = 0
        self._since = 0.0
        self._lock = threading.Lock()

    def running(self) -> bool:
        """Whether a block that uses it is open."""
        return self._depth > 0

    def remaining(self) -> float:
        """How many seconds are left; 0 if none are."""
        with self._lock:
            return self._remaining(monotonic())

    def _remaining(self, now: float) -> float:
        used = now - self._since if self._depth else 0.0
        return max(self._seconds - used, 0.0)

    def start(self) -> float:
        """A block is entered: let the time run; says how many seconds are left. If there are none it is not entered."""
        now = monotonic()
        with self._lock:
            left = self._remaining(now)
            if left > 0:
                if not self._depth:
                    self._since = now
                self._depth += 1
            return left

    def stop(self) -> None:
        """A block is left: the last one stops the time."""
        with self._lock:
            if self._depth == 1:
                self._seconds = self._remaining(monotonic())
            self._depth -= 1

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of which {self.remaining():.3g} s are left>"


def checked_seconds(seconds: float) -> float:
    """*seconds*, if it can be a limit.

    Raises:
        ValueError: If it is not more than 0.
        TypeError: If it is no number.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        try:
            seconds = float(seconds.__float__())  # Decimal, Fraction, numpy's
        except AttributeError:
            msg = f"a timeout is a number of seconds, a Quota or None, not {seconds!r}"
            raise TypeError(msg) from None
    if not seconds > 0:
        msg = f"a timeout must be more than 0 seconds, not {seconds!r}; None is for no limit"
        raise ValueError(msg)
    return seconds
