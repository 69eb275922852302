"""Deadlines in threads that are not the main one: best effort, by ``PyThreadState_SetAsyncExc``.

CPython raises such an exception when the thread next comes to run an instruction that looks for it: never during
``sleep``, a lock's ``acquire`` or a regular expression, but after it. A thread of our own looks what is due, and
whether the place is safe. What is pending when its block ends is withdrawn, so that nothing lands outside it.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from math import inf
from time import monotonic
from types import FrameType
from typing import Any, Final

from otel_introspect.engine.deadline import ATTEMPTS, FORKED, GRACE, Deadline, Raised, limits
from otel_introspect.engine.introspector import Introspector
from otel_introspect.engine.native import allocate_lock
from otel_introspect.engine.safe_points import Ambush, unsafe_code, would_escape
from otel_introspect.engine.stacks import can_walk_other_threads, current_frames
from otel_introspect.errors import DeadlineExceeded

_NANOSECONDS: Final = 1_000_000_000
_POLL: Final = 0.001
# See alarm_deadline: the list's, its copy's, a variable's and the call's.
_OWN_REFERENCES: Final = 4
THREAD_NAME: Final = "otel-introspect-deadlines"
"""Of the thread."""


class ThreadDeadline(Deadline):
    """A block in a thread."""

    mechanism = "async_exception"

    again = 0.0
    last_look: tuple[int, int] = (0, 0)

    def __init__(self, seconds: float, exception: Raised, now: float, frame: FrameType) -> None:
        super().__init__(seconds, exception, now)
        self.context = self.thread_id = threading.get_ident()
        self.owner: FrameType | None = frame
        self._is_closed = False
        self._ambush: Ambush | None = None
        self._kind: type[BaseException] | None = None

    def close(self, error: BaseException | None) -> BaseException | None:
        """See ``Deadline``."""
        self.owner = None
        late: BaseException | None = None
        while not self._is_closed:
            try:
                self._withdraw()
                _look_for_exceptions()
            except BaseException as raised:
                if self._kind is None or not isinstance(raised, self._kind):
                    raise
                late = raised  # it was on its way when the block ended
        error = error or late
        if not self.attempts or self._kind is None or not isinstance(error, self._kind):
            return error
        self.take_down_from(error)
        self.error = error
        if self._kind is not self.exception:
            with suppress(TypeError):  # a class that is written in C lets none of its objects go
                error.__class__ = self._kind.__mro__[1]
        elif self._kind is DeadlineExceeded and not error.args:
            error.args = self.make_error().args
        return error

    def _withdraw(self) -> None:
        with _guard:
            if self in _open:
                _open.remove(self)
            if self._ambush is not None:
                self._ambush.withdraw()
                self._ambush = None
            self._is_closed = True

    def cancel(self) -> None:
        """See ``Deadline``."""
        with _guard:
            if self in _open:
                _open.remove(self)
        self.expires = inf

    def look(self, now: float, frame: FrameType) -> float:
        """Its time is up, and its thread runs *frame*: interrupt it there, and say when to look again."""
        if self.attempts and self.again > now:
            return self.again
        here = (id(frame), frame.f_lasti)
        unsafe = unsafe_code(frame, self.owner, is_blocked=here == self.last_look)
        self.last_look = here
        ambush: Ambush | None = None
        if unsafe is None and would_escape(frame):
            ambush = Ambush(frame, self.make_error(), self.thread_id)
            unsafe = None if ambush.monitor() else frame.f_code
        if unsafe is not None:
            if now - max(self.expires, self.again) <= limits.max_deferral:
                return now + _POLL
            self.refusal = f"no safe place was reached, the last was {unsafe.co_name}"
            return inf
        self.take_down(frame, now)
        self._ambush = ambush
        self._kind = _class_to_raise(self.exception, self.make_error())
        if ambush is None and not set_async_exception(self.thread_id, self._kind):
            self.refusal = "this interpreter can't raise in another thread"
            return inf
        self.attempts += 1
        self.again = now + GRACE if self.attempts < ATTEMPTS else inf
        return self.again


def _class_to_raise(exception: Raised, error: BaseException) -> type[BaseException]:
    """What CPython is to make an exception of, without arguments: one like *error*, which the user wants.

    Of the user's own type, as it may come out of a block's ``__exit__`` before a line of that has run.
    """
    kind = type(error)
    if kind is exception:
        return kind

    def make(cls: type[BaseException], *_arguments: object) -> BaseException:  # 3.10 gives it one, None
        made = kind.__new__(cls, *error.args)
        made.args = error.args
        made.__dict__.update(error.__dict__)
        return made

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind,), {**names, "__new__": make, "__init__": lambda _self, *_: None})


def _look_for_exceptions() -> None:
    """Let CPython raise what is pending for this thread, which it does where a function begins.

    To withdraw it instead would leave 3.10 to 3.12 looking for it at every instruction, and 3.11 for ever where a
    function begins that is traced.
    """


def set_async_exception(thread_id: int, kind: type[BaseException]) -> bool:
    """Have *kind* raised in a thread; says whether it was possible."""
    try:
        import ctypes
    except ImportError:
        return False
    found: int = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(kind))
    return found == 1


_open: Final[list[ThreadDeadline]] = []
_guard: Any = allocate_lock()
_next_look = inf


def open_deadline(seconds: float, exception: Raised, now: float, frame: FrameType) -> ThreadDeadline:
    """Enter a block in this thread."""
    global _thread  # noqa: PLW0603 - made at the first use, as it hooks into forks
    deadline = ThreadDeadline(seconds, exception, now, frame)
    if not can_walk_other_threads():
        deadline.refusal = "threads can't be interrupted on a free-threaded build"
        return deadline
    with _guard:
        _open.append(deadline)
        if _thread is None:
            _thread = Introspector(_look, 1.0, _forked, name=THREAD_NAME)
    if _thread.parked or deadline.expires < _next_look:
        _thread.wake()
    return deadline


def release() -> None:
    """End the thread that looks; the next block starts it again."""
    if _thread is not None:
        _thread.stop()


_thread: Introspector | None = None


def _look() -> int | None:
    global _next_look  # noqa: PLW0603 - for open_deadline(), which runs in other threads
    now, due = monotonic(), inf
    with _guard:
        frames: dict[int, FrameType] = {}
        interrupted: set[int] = set()
        for each in tuple(_open):
            if each.expires > now:
                due = min(due, each.expires)
            elif each.thread_id not in interrupted and each.refusal is None:
                frames = frames or current_frames()
                frame = frames.get(each.thread_id)
                if frame is None or sys.getrefcount(each) <= _OWN_REFERENCES:
                    _open.remove(each)
                else:
                    interrupted.add(each.thread_id)  # the outermost one; those inside end with it
                    due = min(due, each.look(now, frame))
        frames.clear()
        _next_look = due
    return None if due == inf else max(int((due - now) * _NANOSECONDS), 0)


def _forked() -> None:
    global _guard, _next_look  # noqa: PLW0603 - a thread that isn't there any more may hold the one
    _guard = allocate_lock()
    _next_look = inf
    for each in _open:
        each.refusal = FORKED
        each.expires = inf
    _open.clear()
