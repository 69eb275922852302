"""faulthandler's timer, of which a process has one: ours while nobody else wants it.

What is wanted: that timer, without taking it from anybody: pytest has it for tests that hang, others for requests.

What does not work: asking whether it is in use, as there is no such question; setting it again when another is done, as
nobody says what theirs was.

So: while we follow, the two functions that set and cancel it are ours and hand on every call unchanged. From a call of
somebody else's until they cancel we stay away. What was set before we followed is told by what the module refers to,
and under pytest it is taken to be set until it is cancelled.

A fork with the timer set leaves a child that hangs when it ends: the timer's thread is not there, and faulthandler
waits for it, on every Python from 3.10 to 3.13. So ours is cancelled before each fork, and set again in the parent.

What can still fail: a file descriptor given as a number, before we followed, can't be seen; and a fork in C that does
not tell Python while the timer is set has that child hang.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import weakref
from collections.abc import Callable
from functools import wraps
from io import IOBase
from time import monotonic
from typing import Any, Final

from otel_introspect.engine.native import allocate_lock
from otel_introspect.engine.stacks import can_walk_other_threads
from otel_introspect.faults import fail_open

_FORK_SECONDS: Final = 1.0
# A timer that had less than this left before a fork is left to the next look.
_SHORTEST: Final = 0.05

_Call = tuple[tuple[Any, ...], dict[str, Any]]


def is_supported() -> bool:
    """Whether there is such a timer, and its thread may look at the others' stacks."""
    return sys.platform != "win32" and hasattr(faulthandler, "dump_traceback_later") and can_walk_other_threads()


class FaulthandlerTimer:
    """The one timer; those who want it are told apart by an object of theirs, the *owner*."""

    def __init__(self) -> None:
        self._followers: weakref.WeakSet[object] = weakref.WeakSet()  # nobody is kept alive by not leaving
        self._originals: tuple[Callable[..., None], Callable[..., None]] | None = None
        self._wrappers: tuple[Callable[..., None], Callable[..., None]] | None = None
        self._foreign: _Call | None = None
        self._owner: object = None
        self._set: tuple[float, int] | None = None
        # Held while it is set and cancelled, and during a fork. Never waited for by the application's own calls.
        self._lock = allocate_lock()
        self._is_held_for_fork = False
        before, parent, child = (
            weakref.WeakMethod(method) for method in (self._before_fork, self._after_fork_in_parent, self._after_fork)
        )
        os.register_at_fork(
            before=lambda: _call(before), after_in_parent=lambda: _call(parent), after_in_child=lambda: _call(child)
        )

    @property
    def is_free(self) -> bool:
        """Whether nobody else has it, as far as can be told."""
        return self._foreign is None

    def is_set_by(self, owner: object) -> bool:
        """Whether it is set, and by *owner*; also if it has fired since."""
        return self._owner is owner and self._set is not None

    def follow(self, owner: object) -> None:
        """Notice from now on who else uses it, until everybody who wants that has left."""
        if owner in self._followers:
            return
        self._followers.add(owner)
        if self._originals is not None:
            return
        # Before, as it could not be told from what is set from now on.
        if _is_in_use():
            self._foreign = ((), {})
        originals = (faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later)
        self._originals = originals
        self._wrappers = self._wrap(*originals)
        faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later = self._wrappers

    def leave(self, owner: object) -> None:
        """Give back both functions, if nobody else follows and nobody has put something over them."""
        self.cancel(owner)
        self._followers.discard(owner)
        if self._followers or self._originals is None or self._wrappers is None:
            return
        # Both or none: with one of them we would believe that it is somebody else's for ever.
        now_there = (faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later)
        if now_there[0] is self._wrappers[0] and now_there[1] is self._wrappers[1]:
            faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later = self._originals
            self._originals = self._wrappers = self._foreign = None

    def _wrap(
        self, dump_later: Callable[..., None], cancel: Callable[..., None]
    ) -> tuple[Callable[..., None], Callable[..., None]]:
        @wraps(dump_later)
        def dump_traceback_later(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on as they are
            # First, so that who is just about to set ours finds it.
            self._foreign, before = (args, kwargs), self._foreign
            try:
                dump_later(*args, **kwargs)
            except BaseException:
                self._foreign = before  # it was not set: a wrong argument, say
                raise
            self._set = None  # theirs has taken its place

        @wraps(cancel)
        def cancel_dump_traceback_later() -> None:
            cancel()
            self._foreign = self._set = None

        return dump_traceback_later, cancel_dump_traceback_later

    def set(self, owner: object, seconds: float, file: int) -> bool:
        """Have all threads' stacks written to *file* in so many seconds, once; in place of what was set before.

        Returns:
            Whether they will be; not if somebody else has the timer, or a fork is under way.
        """
        if self._originals is None or not self._lock.acquire(blocking=False):
            return False
        try:
            if self._foreign is not None:
                return False
            self._originals[0](seconds, file=file)
            self._owner, self._set = owner, (monotonic() + seconds, file)
            return not self._give_way()
        finally:
            self._lock.release()

    def cancel(self, owner: object) -> None:
        """Have nothing written; when this returns, nothing is being written any more."""
        if not self.is_set_by(owner) or self._originals is None:
            return
        with_lock = self._lock.acquire(timeout=_FORK_SECONDS)
        try:
            if self._foreign is None and self.is_set_by(owner):
                self._set = None
                self._originals[1]()
                self._give_way()
        finally:
            if with_lock:
                self._lock.release()

    def _give_way(self) -> bool:
        """Set somebody else's again, who has set it between our looking and our calling."""
        call, originals = self._foreign, self._originals
        if call is None or originals is None:
            return False
        self._set = None
        with fail_open("giving back faulthandler's timer"):
            originals[0](*call[0], **call[1])
        return True

    def _before_fork(self) -> None:
        self._is_held_for_fork = self._lock.acquire(timeout=_FORK_SECONDS)
        if self._set is not None and self._foreign is None and self._originals is not None:
            self._originals[1]()

    def _after_fork_in_parent(self) -> None:
        if not self._is_held_for_fork:
            return
        self._is_held_for_fork = False
        if self._set is not None and self._foreign is None and self._originals is not None:
            when, file = self._set
            left = when - monotonic()
            if left >= _SHORTEST:
                self._originals[0](left, file=file)
        self._lock.release()

    def _after_fork(self) -> None:
        # Somebody else's stays theirs: to touch it here is to wait for ever.
        self._lock = allocate_lock()
        self._is_held_for_fork = False
        self._owner = self._set = None


def _is_in_use() -> bool:
    """Whether somebody seems to have set it already."""
    if "PYTEST_CURRENT_TEST" in os.environ and "_pytest.faulthandler" in sys.modules:
        return True
    files = [each for each in gc.get_referents(faulthandler) if isinstance(each, IOBase)]
    # One of them is where fatal errors go; files for POSIX signals are taken for the timer's, to be on the safe side.
    return len(files) > faulthandler.is_enabled()


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    bound = method()
    if bound is not None:
        with fail_open("forking"):
            bound()


TIMER: Final = FaulthandlerTimer()
"""The process's."""
