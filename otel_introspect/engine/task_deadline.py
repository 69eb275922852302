"""Deadlines in an event loop: the task is cancelled, and the cancellation turned into the exception.

Nothing is raised from a POSIX signal's handler there: that would hit the loop, or the task that happens to run.
The rules are those of ``asyncio.timeout``, for 3.10 too: a cancellation that somebody else wants stays one.
"""

from __future__ import annotations

import asyncio
import os
from math import inf
from time import monotonic
from types import CodeType, FrameType
from typing import Any, Final
from weakref import WeakKeyDictionary

from otel_introspect.engine.deadline import ATTEMPTS, Deadline, Raised, limits
from otel_introspect.engine.places import await_chain
from otel_introspect.engine.safe_points import PROTECTED

# Longer than the alarm's: nobody can see from outside whether a suspended task is still cleaning up.
_GRACE: Final = 2.0
_POLL: Final = 0.002

# Outermost first. 3.10 does not count the cancellations of a task.
_open: Final[WeakKeyDictionary[asyncio.Task[Any], list[TaskDeadline]]] = WeakKeyDictionary()


class TaskDeadline(Deadline):
    """A block in a task."""

    mechanism = "task_cancel"

    def __init__(
        self, seconds: float, exception: Raised, now: float, task: asyncio.Task[Any], frame: FrameType
    ) -> None:
        super().__init__(seconds, exception, now)
        self._owner: FrameType | None = frame
        self.context = self._task = task
        self._cancellations = _cancelling(task)
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = task.get_loop().call_later(seconds, self._expire)
        _open.setdefault(task, []).append(self)

    def _expire(self) -> None:
        self._timer = None
        if self._is_closed or self._task.done():
            return
        protected = self._protected()
        if protected is not None:
            if monotonic() - self.expires > limits.max_deferral + self.attempts * _GRACE:
                self.refusal = f"no safe place was reached, the last was {protected}"
            else:
                self._timer = self._task.get_loop().call_later(_POLL, self._expire)
            return
        self.attempts += 1
        if self.attempts < ATTEMPTS:
            self._timer = self._task.get_loop().call_later(_GRACE, self._expire)
        self._task.cancel(msg=self if _NO_COUNT else None)

    def _protected(self) -> str | None:
        """What the task waits in, if that must be left to end."""
        inside: list[CodeType] = []
        for frame in await_chain(self._task):
            if frame is self._owner:
                inside.clear()
            else:
                inside.append(frame.f_code)
        return next((code.co_name for code in inside if code.co_name in PROTECTED and not _waits_for_tasks(code)), None)

    def _withdraw(self) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self, error: BaseException | None) -> BaseException | None:
        """See ``Deadline``."""
        self._withdraw()
        self._owner = None
        siblings = _open.get(self._task, [])
        is_inside_expired = False
        if self in siblings:
            is_inside_expired = any(each.attempts for each in siblings[: siblings.index(self)])
            siblings.remove(self)
        if not self.attempts:
            return error
        left = _uncancel(self._task, self.attempts)
        if not isinstance(error, asyncio.CancelledError):
            return error
        self.take_down_from(error)
        if is_inside_expired or left > self._cancellations or _is_somebody_elses(error):
            return error
        self.error = self.make_error()
        return self.error

    def cancel(self) -> None:
        """See ``Deadline``."""
        self._withdraw()
        self.expires = inf


def _waits_for_tasks(code: CodeType) -> bool:
    """Whether *code* is a task group's: it waits for its tasks in ``__aexit__`` and is made to be cancelled there."""
    return code.co_filename.startswith(_ASYNCIO) or f"{os.sep}anyio{os.sep}" in code.co_filename


_ASYNCIO: Final = os.path.dirname(asyncio.__file__) + os.sep
_NO_COUNT: Final = not hasattr(asyncio.Task, "uncancel")


def _cancelling(task: asyncio.Task[Any]) -> int:
    return 0 if _NO_COUNT else task.cancelling()  # type: ignore[attr-defined]


def _uncancel(task: asyncio.Task[Any], times: int) -> int:
    left = 0
    if not _NO_COUNT:
        for _ in range(times):
            left = task.uncancel()  # type: ignore[attr-defined]
    return left


def _is_somebody_elses(error: asyncio.CancelledError) -> bool:
    return _NO_COUNT and bool(error.args) and not isinstance(error.args[0], TaskDeadline)
