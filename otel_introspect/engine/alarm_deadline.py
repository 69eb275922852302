"""Deadlines in the main thread: the alarm rings, and the exception is raised in the interrupted code itself.

All that is open is in one list, outermost first. Of those whose time is up the outermost is raised: the others end with
it. A block whose generator is suspended limits nobody, and waits until that runs again.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import opcode
import os
import sys
import threading
from math import inf
from types import FrameType
from typing import Final

from otel_introspect.engine.alarm import ALARM
from otel_introspect.engine.deadline import (
    ATTEMPTS,
    DEBUGGED,
    FORKED,
    GRACE,
    MAIN_THREAD,
    Deadline,
    Raised,
    is_handling,
    limits,
)
from otel_introspect.engine.safe_points import clear_ambush, is_debugged, is_in_event_loop, is_out_of_reach, unsafe_code
from otel_introspect.engine.stacks import outwards
from otel_introspect.faults import tell_once

_EARLY: Final = 0.000_1
# After so many looks the next one comes that much later, in seconds: locks are soon left, long cleaning up is not.
_SOON: Final = 0.000_05
_POLLS: Final = ((20, _SOON), (200, 0.000_2))
_LAST_POLL: Final = 0.001
# How soon it is seen that a generator whose time is up runs again.
_SUSPENDED: Final = 0.02
# Cleaning up takes as long as it takes; so many times GRACE is believed to be that.
_MAX_HANDLING: Final = 20
# A block that nobody has any more is referred to by the list, its copy, two variables and the call that counts.
_OWN_REFERENCES: Final = 5
# What begins a ``with`` statement.
_WITH: Final = frozenset(
    opcode.opmap[name] for name in ("SETUP_WITH", "BEFORE_WITH", "LOAD_SPECIAL") if name in opcode.opmap
)

_CONTEXTLIB: Final = contextlib.__file__
_CAN_SUSPEND: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class AlarmDeadline(Deadline):
    """A block in the main thread.

    Args:
        seconds: See ``Deadline``.
        exception: See ``Deadline``.
        now: See ``Deadline``.
        frame: What has entered it.
    """

    mechanism = "alarm"

    context = MAIN_THREAD

    is_in_loop = False
    can_suspend = False
    again = 0.0
    polls = 0
    handling = 0
    is_given_up = False
    last_look: tuple[int, int] = (0, 0)

    def __init__(self, seconds: float, exception: Raised, now: float, frame: FrameType) -> None:
        # As in the superclass, whose call would be a tenth of what a block costs.
        self.seconds = seconds
        self.exception = exception
        self.expires = now + seconds
        self.owner: FrameType | None = frame
        code = frame.f_code
        if code.co_flags & _CAN_SUSPEND or code.co_filename == _CONTEXTLIB:
            self._find_owner(frame)

    def _find_owner(self, frame: FrameType) -> None:
        """Skip what enters the block for somebody else: an ``ExitStack``, a generator made a context manager."""
        owner: FrameType | None = frame
        while owner is not None:
            outer = owner.f_back
            if owner.f_code.co_filename != _CONTEXTLIB and not (
                owner.f_code.co_flags & inspect.CO_GENERATOR
                and outer is not None
                and outer.f_code.co_filename == _CONTEXTLIB
                and outer.f_code.co_name == "__enter__"
            ):
                break
            owner = outer
        self.owner = owner
        self.can_suspend = owner is not None and bool(owner.f_code.co_flags & _CAN_SUSPEND)

    def ring(self, now: float, *, polite: bool) -> str | None:
        """Let the alarm ring for it; says why not if it can't."""
        _hook()
        self.is_in_loop = is_in_event_loop(None)
        return ALARM.ring_by(self.expires, now, polite=polite)

    def close(self, error: BaseException | None) -> BaseException | None:
        """See ``Deadline``; what was raised is what the user wants already."""
        self.owner = None
        if self.attempts:
            clear_ambush()
        if open_blocks and open_blocks[-1] is self:
            open_blocks.pop()
        elif self in open_blocks:
            open_blocks.remove(self)
        if ALARM.is_borrowed and not open_blocks:
            ALARM.release()
        return error

    def cancel(self) -> None:
        """See ``Deadline``."""
        if self in open_blocks:
            open_blocks.remove(self)
        self.expires = inf

    def is_running(self, frame: FrameType) -> bool:
        """Whether what has entered it is on the stack that ends in *frame*."""
        return any(each is self.owner for each in outwards(frame))

    def is_forgotten(self, frame: FrameType) -> bool:
        """Whether it was left without ``__exit__``, as where the stack was too deep to call that.

        Nobody has it any more then; or a ``with`` statement has, of a function that has ended and is kept by somebody,
        as an exception's traceback keeps it.
        """
        if sys.getrefcount(self) <= _OWN_REFERENCES:
            return True
        return (
            not self.can_suspend
            and self.owner is not None
            and not _WITH.isdisjoint(self.owner.f_code.co_code[::2])
            and not self.is_running(frame)
        )

    def look(self, now: float, frame: FrameType) -> tuple[float, BaseException | None]:
        """Its time is up: raise, or say when to look again."""
        self.is_unremarkable = False
        if is_debugged():
            return self._give_up(DEBUGGED, frame, now)
        if self.attempts and is_handling(self.error, sys.exc_info()[1]) and self.handling < _MAX_HANDLING:
            self.handling += 1
            self.again = now + GRACE
            return self.again, None
        here = (id(frame), frame.f_lasti)
        unsafe = unsafe_code(frame, self.owner, is_blocked=here == self.last_look)
        has_moved, self.last_look = here != self.last_look, here
        if unsafe is None and (is_out_of_reach(frame) or (not self.is_in_loop and is_in_event_loop(frame))):
            unsafe = frame.f_code
        if unsafe is not None:
            if now - max(self.expires, self.again) > limits.max_deferral:
                return self._give_up(f"no safe place was reached, the last was {unsafe.co_name}", frame, now)
            self.polls += 1
            if has_moved and self.polls % 2:
                return now + _SOON, None  # by two looks in short order it is seen whether it is blocked
            return now + next((delay for number, delay in _POLLS if self.polls <= number), _LAST_POLL), None
        self.take_down(frame, now)
        self.attempts += 1
        self.polls = 0
        self.again = now + GRACE if self.attempts < ATTEMPTS else inf
        self.error = self.make_error()
        return self.again, self.error

    def _give_up(self, why: str, frame: FrameType, now: float) -> tuple[float, None]:
        self.take_down(frame, now)
        self.refusal = why
        self.is_given_up = True
        return inf, None


open_blocks: Final[list[AlarmDeadline]] = []
"""All that are open, outermost first."""

_hooked = False


def _hook() -> None:
    global _hooked  # noqa: PLW0603 - once in a process
    if not _hooked:
        _hooked = True
        ALARM.listen(_look, _next_due)
        os.register_at_fork(after_in_child=_after_fork_in_child)


def _next_due() -> float:
    # From any thread. What is overdue already is looked at soon.
    return min((each.expires for each in tuple(open_blocks)), default=inf)


def _look(now: float, frame: FrameType | None) -> tuple[float, BaseException | None]:
    if frame is None:
        return (now + _SUSPENDED if open_blocks else inf), None
    due = inf
    outermost: AlarmDeadline | None = None
    for each in tuple(open_blocks):
        if each.expires > now + _EARLY:
            due = min(due, each.expires)
        elif each.is_forgotten(frame):
            open_blocks.remove(each)
        elif outermost is None and not each.is_given_up:
            if each.can_suspend and not each.is_running(frame):
                due = min(due, now + _SUSPENDED)
            else:
                outermost = each
    if outermost is None:
        return due, None
    if outermost.attempts and outermost.again > now:
        return min(due, outermost.again), None
    again, error = outermost.look(now, frame)
    return min(due, again), error


def _after_fork_in_child() -> None:
    limits.main_thread = threading.get_ident()
    if open_blocks:
        for each in open_blocks:
            each.refusal = FORKED
            each.is_unremarkable = False
            each.expires = inf
        open_blocks.clear()
        tell_once(
            logging.WARNING,
            "otel_introspect: forked inside a timeout; the child has no timer, so that it is not limited by it.",
        )
