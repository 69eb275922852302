"""How many explicit profiles one process takes: one at a time, and not too many in a row."""

# ruff: noqa: EM101 - the reason of a refusal is a word of the contract, not a message

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from otel_introspect.triggers.refusal import refuse

BURST: Final = 10
"""How many remote requests may be profiled one right after the other."""
REFILL_SECONDS: Final = 6.0
"""After how long there is room for one more."""


class Ticket:
    """The place of one profile that is being taken; a ticket that nobody has any more gives it back by itself."""

    __slots__ = ("__weakref__", "_left")

    def __init__(self) -> None:
        self._left = False

    @property
    def left(self) -> bool:
        """Whether the place has been given back."""
        return self._left

    def leave(self) -> None:
        """Give the place back. May be called on any thread, and more than once."""
        self._left = True


class Admission:
    """Says which explicit profile may be taken now.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._room = float(BURST)
        self._counted_at = clock()
        # Weak, so that there is no way to lose the place: an exception that comes from anywhere drops the ticket.
        self._holder: weakref.ref[Ticket] | None = None
        # Re-entrant, as a collector's callback may profile something while we are in here.
        self._lock = threading.RLock()

    def enter(self, *, limited: bool) -> Ticket:
        """Take the place.

        Args:
            limited: Whether it counts against ``BURST``: so do remote requests, the application's own code does not.

        Raises:
            Refused: ``busy`` if another profile is being taken, ``rate`` if there have been too many.
        """
        with self._lock:
            holder = self._holder and self._holder()
            if holder and not holder.left:
                raise refuse("busy")
            if limited:
                self._count()
            ticket = Ticket()
            self._holder = weakref.ref(ticket)
            return ticket

    def _count(self) -> None:
        now = self._clock()
        self._room = min(BURST, self._room + (now - self._counted_at) / REFILL_SECONDS)
        self._counted_at = now
        if self._room < 1:
            raise refuse("rate")
        self._room -= 1

    def after_fork(self) -> None:
        """In a forked child: the parent's profile is not ours, and who held the lock may not be there any more.

        What room there was for more stays as it was, or a process that forks for each request would have no limit.
        """
        self._lock = threading.RLock()
        self._holder = None
