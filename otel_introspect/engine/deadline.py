"""A deadline: one open block whose time is limited, whichever way that is enforced."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from types import FrameType, TracebackType
from typing import Final

from otel_introspect.engine.stacks import Position, outwards, positions_of
from otel_introspect.errors import DeadlineExceeded
from otel_introspect.faults import count

Raised = BaseException | type[BaseException] | Callable[[], BaseException | type[BaseException]]
"""What a user may give as exception: a class, an instance, or what makes one of these."""

ATTEMPTS: Final = 4
"""How often an interruption is raised at most, if the work swallows it."""
GRACE: Final = 0.5
"""How long after an interruption the work must have ended, in seconds, before it is interrupted again."""
MAIN_THREAD: Final = "main thread"
FORKED: Final = "this process was forked inside the block"
"""A refusal: the limit is the parent's."""
DEBUGGED: Final = "a debugger is attached"
"""A refusal: who looks at a line for a minute does not want it interrupted."""


class _Limits:
    """What holds for all.

    Args:
        max_deferral: How long an interruption may wait for a safe place, in seconds.
        main_thread: The id of the thread in which POSIX signal handlers run.
    """

    def __init__(self, max_deferral: float, main_thread: int | None) -> None:
        self.max_deferral = max_deferral
        self.main_thread = main_thread


limits: Final = _Limits(1.0, threading.main_thread().ident)
"""In force."""


class Deadline:
    """One open block.

    Args:
        seconds: How long it may take.
        exception: What to raise then.
        now: When it was entered, by ``time.monotonic``.
    """

    mechanism: str

    # Most blocks end in time and never have anything else than these: no work to set them for each.
    is_unremarkable = True
    """Whether none of what follows has been set."""
    attempts = 0
    """How often it has been interrupted."""
    refusal: str | None = None
    """Why it is not interrupted although its time is up."""
    error: BaseException | None = None
    """What was raised last."""
    hit: Sequence[Position] = ()
    """The stack that was interrupted, or could not be, innermost frame first."""
    hit_at = 0.0
    limit: float | None = None
    """What the user has set, in seconds, if *seconds* is only what is left of it."""
    context: object = None
    """The thread, task or greenlet that has entered it, or ``MAIN_THREAD``; None if that does not matter."""

    def __init__(self, seconds: float, exception: Raised, now: float) -> None:
        self.seconds = seconds
        self.exception = exception
        self.expires = now + seconds
        """By ``time.monotonic``."""

    def close(self, error: BaseException | None) -> BaseException | None:
        """The block ends, with *error* if it is not None: withdraw what may still come.

        Returns:
            What to raise in place of *error*.
        """
        raise NotImplementedError

    def cancel(self) -> None:
        """Lift the limit; the block goes on."""
        raise NotImplementedError

    def make_error(self) -> BaseException:
        """The exception to raise, a new one each time."""
        return fresh(self.exception, self.limit or self.seconds)

    def take_down(self, frame: FrameType, now: float) -> None:
        """Note the stack from *frame* outwards as the one that was hit."""
        self.hit = positions_of(outwards(frame))
        self.hit_at = now

    def take_down_from(self, error: BaseException) -> None:
        """The same from where *error* was raised, as its traceback has it."""
        self.hit = _stack_of(error.__traceback__)
        self.hit_at = monotonic()


def _stack_of(traceback: TracebackType | None) -> list[Position]:
    """The stack that *traceback* shows, and the callers of its outermost frame, innermost first."""
    if traceback is None:
        return []
    shown = deque[Position]()
    callers = positions_of(outwards(traceback.tb_frame.f_back))
    while traceback is not None:
        shown.appendleft((traceback.tb_frame.f_code, traceback.tb_lasti))
        traceback = traceback.tb_next
    return [*shown, *callers]


def fresh(exception: Raised, seconds: float | None) -> BaseException:
    """One more exception of the kind that the user wants; never the same twice, as it grows a traceback."""
    try:
        if exception is DeadlineExceeded:
            return DeadlineExceeded(f"took longer than {seconds:g} s")
        if isinstance(exception, BaseException):
            return _like(exception)
        made = exception()
        return made if isinstance(made, BaseException) else made()
    except Exception as error:  # noqa: BLE001 - it would come out of any line of the application
        count("failed", "making a timeout's exception")
        instead = DeadlineExceeded(f"took longer than {seconds:g} s (and its own exception could not be made)")
        instead.__cause__ = error
        return instead


def _like(error: BaseException) -> BaseException:
    another = type(error).__new__(type(error), *error.args)
    another.args = error.args
    another.__dict__.update(error.__dict__)
    return another


def is_handling(error: BaseException | None, current: BaseException | None) -> bool:
    """Whether *error* is still on its way: *current*, which the code is handling, is it or has come of it."""
    for _ in range(20):
        if current is None or error is None:
            return False
        if current is error:
            return True
        current = current.__context__
    return False
