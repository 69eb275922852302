"""``timeout``: work that takes too long is interrupted, and the current span says so."""

from __future__ import annotations

import logging
import sys
from _thread import allocate_lock, get_ident
from collections.abc import Callable
from functools import cache
from math import inf
from time import monotonic
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_introspect.config import TimeoutConfig
from otel_introspect.engine import thread_deadline
from otel_introspect.engine.alarm import ALARM, LOST
from otel_introspect.engine.alarm_deadline import AlarmDeadline, open_blocks
from otel_introspect.engine.deadline import DEBUGGED, FORKED, MAIN_THREAD, Deadline, Raised, limits
from otel_introspect.engine.greenlet_deadline import GreenletDeadline, is_under_gevent
from otel_introspect.engine.quota import Quota, checked_seconds
from otel_introspect.engine.thread_deadline import open_deadline as open_in_thread
from otel_introspect.errors import DeadlineExceeded, RequestInterrupted
from otel_introspect.faults import fail_open, tell_once
from otel_introspect.introspection import active

if TYPE_CHECKING:
    import asyncio

    from typing_extensions import Self

    from otel_introspect.engine.task_deadline import TaskDeadline

__all__ = [
    "DeadlineExceeded",
    "Quota",
    "disable_timeouts",
    "enable_timeouts",
    "release",
    "timeout",
    "timeouts_are_enabled",
]

F = TypeVar("F", bound=Callable[..., Any])

# With less than this over its limit a block has ended in time: the alarm was on its way.
_TOLERANCE: Final = 0.005
_modules: Final = sys.modules
_getframe: Final = sys._getframe  # noqa: SLF001 - the documented way, despite its name


class timeout:  # noqa: N801 - reads as a statement, as interruptingcow's did
    """Limit how long a block, a function, a generator or a coroutine may take.

    As a context manager (``with`` and ``async with``) it limits the block. As a decorator it limits each call; of a
    generator it limits the time for which that runs, not that of who consumes it.

    In the main thread the exception is raised in the interrupted code. In a task the task is cancelled, and the
    cancellation becomes the exception where the block ends. In a greenlet gevent's hub throws it. In another thread it
    comes when CPython next looks: not during a call that blocks. What can't be interrupted goes on, and is recorded.

    Prefer the limit of whatever client is called, where there is one: an exception from outside may leave somebody
    else's code half done.

    Args:
        seconds: How long, more than 0; a ``Quota``, which several blocks share; or None, for no limit.
        exception: What to raise then: a class, an instance (each time another one like it), or what makes one.
        polite: Do not take SIGALRM from somebody else, not even to give it back.

    Raises:
        ValueError: If *seconds* is not more than 0.
        TypeError: If *seconds* or *exception* can't be one.
    """

    __slots__ = ("__weakref__", "_deadline", "_expired", "_others", "_polite", "_quota", "exception", "seconds")

    def __init__(
        self, seconds: float | Quota | None, exception: Raised = DeadlineExceeded, *, polite: bool = False
    ) -> None:
        self._quota: Quota | None = None
        self.seconds: float | None = None
        """The limit; None if there is none, or a ``Quota`` instead."""
        if (type(seconds) is float or type(seconds) is int) and seconds > 0:
            self.seconds = seconds
        elif isinstance(seconds, Quota):
            self._quota = seconds
        elif seconds is not None:
            self.seconds = checked_seconds(seconds)
        if exception is not DeadlineExceeded and exception is not RequestInterrupted:
            _check(exception)
        self.exception: Final = exception
        self._polite = polite
        self._expired = False
        # The first block of the main thread; and what else is open at once, in a recursion or in other threads.
        self._deadline: AlarmDeadline | None = None
        self._others: list[Deadline] | None = None

    def again(self) -> timeout:
        """Another one with the same limit."""
        return timeout(self._quota or self.seconds, self.exception, polite=self._polite)

    def running_time(self) -> timeout:
        """The same as a limit on all the blocks that are entered with it together, as a generator's turns are."""
        if self.seconds is None:
            return self.again()
        return timeout(Quota(self.seconds), self.exception, polite=self._polite)

    def __call__(self, function: F) -> F:
        """Limit each call of *function*: a function, a coroutine function, or one that makes a generator."""
        from otel_introspect.limited import limited

        return limited(self, function)

    # The usual case, a block in the main thread, is written out here: each call more would cost it a tenth.

    def __enter__(self) -> Self:
        seconds = self.seconds
        if (
            seconds is None
            or self._deadline is not None
            or not _switch.is_on
            or get_ident() != limits.main_thread
            or "gevent" in _modules
            or (_loops.running is not None and _loops.running() is not None)
            or (_loops.running is None and _loops.may_run())
        ):
            self._enter(_getframe(1))
            return self
        now = monotonic()
        self._deadline = deadline = AlarmDeadline(seconds, self.exception, now, _getframe(1))
        open_blocks.append(deadline)
        if not now - LOST < ALARM.rings <= deadline.expires:
            instead = self._let_ring(deadline, now, _getframe(1))
            if instead is not deadline:
                self._deadline = None
                self._keep(instead)
        return self

    async def __aenter__(self) -> Self:
        self._enter(_getframe(1))
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        deadline: Deadline | None = self._deadline
        if (
            deadline is not None
            and not self._others
            and not ALARM.is_borrowed
            and open_blocks
            and open_blocks[-1] is deadline
        ):
            self._deadline = None
            open_blocks.pop()
            if deadline.is_unremarkable and monotonic() <= deadline.expires:
                return
        else:
            deadline = self._leave()
        instead = deadline.close(error)
        if self._quota is not None and deadline is not _UNLIMITED:
            self._quota.stop()
        if deadline.attempts or deadline.refusal or monotonic() > deadline.expires:
            self._overran(deadline, instead)
        if instead is not error and instead is not None:
            raise instead from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _enter(self, frame: FrameType) -> None:
        seconds = self.seconds
        if (seconds is None and self._quota is None) or not (_switch.is_on or _switch.turned_on()):
            self._keep(_UNLIMITED)
            return
        if seconds is None:
            seconds = self._start_quota()
        deadline = self._open(seconds, frame)
        if self._quota is not None:
            deadline.limit = self._quota.total
        self._keep(deadline)

    def _keep(self, deadline: Deadline) -> None:
        with _making:  # several threads may be at it
            if self._others is None:
                self._others = []
        self._others.append(deadline)

    def _leave(self) -> Deadline:
        here = _here()
        for deadline in reversed(self._others or ()):
            if deadline.context is None or deadline.context == here:
                self._others.remove(deadline)  # type: ignore[union-attr] # it is there, as it has been gone through
                return deadline
        first, self._deadline = self._deadline, None
        if first is None:
            msg = "a timeout was left that had not been entered"
            raise RuntimeError(msg)
        return first

    def _open(self, seconds: float, frame: FrameType) -> Deadline:
        now = monotonic()
        task = _running_task()
        if task is not None:
            return _task_deadline()(seconds, self.exception, now, task, frame)
        if "gevent" in _modules and is_under_gevent():
            return GreenletDeadline(seconds, self.exception, now)
        if get_ident() == limits.main_thread:
            deadline = AlarmDeadline(seconds, self.exception, now, frame)
            open_blocks.append(deadline)
            return self._let_ring(deadline, now, frame)
        return open_in_thread(seconds, self.exception, now, frame)

    def _let_ring(self, deadline: AlarmDeadline, now: float, frame: FrameType) -> Deadline:
        try:
            why_not = deadline.ring(now, polite=self._polite)
        except BaseException:
            deadline.cancel()  # the stack is too deep, say: then the block is not entered
            raise
        if why_not is None:
            return deadline
        tell_once(
            logging.WARNING,
            "otel_introspect does not use SIGALRM: %s. So timeouts in the main thread interrupt no call that blocks.",
            why_not,
        )
        deadline.cancel()
        instead = open_in_thread(deadline.seconds, self.exception, now, frame)
        instead.context = MAIN_THREAD
        return instead

    def _start_quota(self) -> float:
        quota = self._quota
        left = quota.start() if quota is not None else 0.0
        if left > 0:
            return left
        self._expired = True
        exhausted = _Exhausted(0.0, self.exception, monotonic())
        exhausted.mechanism = _mechanism()
        exhausted.limit = quota.total if quota is not None else None
        error = exhausted.error = exhausted.make_error()
        self._record(exhausted, error)
        raise error

    def _overran(self, deadline: Deadline, error: BaseException | None) -> None:
        late = monotonic() - deadline.expires
        if deadline.refusal is FORKED or not (deadline.attempts or deadline.refusal or late > _TOLERANCE):
            return
        self._expired = True
        if deadline.refusal is DEBUGGED:
            tell_once(logging.WARNING, "otel_introspect interrupts nothing while a debugger is attached.")
        self._record(deadline, error)

    def _record(self, deadline: Deadline, error: BaseException | None) -> None:
        with fail_open("recording an interruption"):
            from otel_introspect.interruptions import record

            record(deadline, error)

    # What the user may ask.

    @property
    def expired(self) -> bool:
        """Whether the work has been interrupted, or should have been."""
        return self._expired or any(each.attempts or each.refusal for each in self._open_ones())

    def remaining(self) -> float | None:
        """How many seconds are left, at least 0.0, of the block that was entered last; None without a limit."""
        for deadline in self._open_ones():
            return None if deadline.expires == inf else max(deadline.expires - monotonic(), 0.0)
        return self.seconds if self._quota is None else self._quota.remaining()

    def cancel(self) -> None:
        """Lift the limit of the block that was entered last, which goes on without one."""
        for deadline in self._open_ones():
            deadline.cancel()
            return

    def _open_ones(self) -> list[Deadline]:
        """What is open, the one that was entered last first."""
        first = [] if self._deadline is None else [self._deadline]
        return [*reversed(self._others or ()), *first]

    def __repr__(self) -> str:
        return f"<timeout of {self._quota or self.seconds}, {self.remaining()} s left>"


class _Unlimited(Deadline):
    """A block without a limit."""

    mechanism = ""

    def close(self, error: BaseException | None) -> BaseException | None:
        return error

    def cancel(self) -> None:
        pass


class _Exhausted(_Unlimited):
    """A block that is not entered, as its quota is used up."""

    attempts = 1


_UNLIMITED: Final = _Unlimited(inf, DeadlineExceeded, 0.0)


@cache
def _task_deadline() -> type[TaskDeadline]:
    # Late: asyncio takes longer to import than all of this package.
    from otel_introspect.engine.task_deadline import TaskDeadline

    return TaskDeadline


def _running_task() -> asyncio.Task[Any] | None:
    events = _modules.get("asyncio.events")
    if events is None or events._get_running_loop() is None:  # noqa: SLF001 - as above
        return None
    task: asyncio.Task[Any] | None = _modules["asyncio"].current_task()
    return task


def _mechanism() -> str:
    """What would interrupt a block that is entered now."""
    if _running_task() is not None:
        return "task_cancel"
    if "gevent" in _modules and is_under_gevent():
        return GreenletDeadline.mechanism
    return AlarmDeadline.mechanism if get_ident() == limits.main_thread else "async_exception"


def _here() -> object:
    """What runs now: a task, a greenlet or a thread."""
    task = _running_task()
    if task is not None:
        return task
    if "gevent" in _modules and is_under_gevent():
        return _modules["gevent"].getcurrent()
    ident = get_ident()
    return MAIN_THREAD if ident == limits.main_thread else ident


def _check(exception: object) -> None:
    is_class = isinstance(exception, type)
    if (is_class and issubclass(exception, BaseException)) or (  # type: ignore[arg-type]
        not is_class and (isinstance(exception, BaseException) or callable(exception))
    ):
        return
    msg = f"a timeout's exception is an exception class, an instance, or a callable that makes one, not {exception!r}"
    raise TypeError(msg)


class _Loops:
    """How to ask asyncio whether a loop runs here; nothing to ask it as long as nobody has imported it."""

    def __init__(self) -> None:
        self.running: Callable[[], object] | None = None

    def may_run(self) -> bool:
        """Whether asyncio has been imported by now."""
        events = _modules.get("asyncio.events")
        if events is not None:
            self.running = events._get_running_loop  # noqa: SLF001 - the documented one raises where there is none
        return events is not None


_loops: Final = _Loops()
_making: Final = allocate_lock()


class _Switch:
    """Whether timeouts interrupt at all."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """As in a process that has not asked yet."""
        self.is_on = False
        self._wanted: bool | None = None  # in code, which comes before the settings
        self._configured: bool | None = None

    def want(self, *, is_on: bool) -> None:
        """Let code decide."""
        self._wanted = is_on
        self.is_on = False  # until it is asked for, which reads the other settings too

    def turned_on(self) -> bool:
        """The same as ``is_on``, where that is false because nobody has asked yet."""
        if self._configured is None:
            self._configured = True
            with fail_open("reading the timeouts' settings"):
                introspection = active()
                config = introspection.config.timeout if introspection is not None else TimeoutConfig.from_env()
                limits.max_deferral = config.max_deferral / 1000
                self._configured = not config.disabled
        self.is_on = self._configured if self._wanted is None else self._wanted
        return self.is_on


_switch: Final = _Switch()


def disable_timeouts(disabled: bool = True) -> None:  # noqa: FBT001, FBT002 - disable_timeouts(False) is said so
    """Let no ``timeout`` of any kind interrupt from now on, blocks that are open apart; with False, let them again.

    Until it is called ``OTEL_PYTHON_INTROSPECT_TIMEOUTS_DISABLED`` says.
    """
    _switch.want(is_on=not disabled)


def timeouts_are_enabled() -> bool:
    """Whether a ``timeout`` that is entered now will interrupt."""
    return _switch.is_on or _switch.turned_on()


def enable_timeouts() -> None:
    """Undo ``disable_timeouts``."""
    disable_timeouts(False)  # noqa: FBT003 - as above


def release() -> None:
    """Give back SIGALRM's handler, the timer and the thread at once, instead of soon. In the main thread only."""
    ALARM.release()
    thread_deadline.release()
    _switch.forget()
