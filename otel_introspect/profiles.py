"""``profile``: a block or a function is profiled, and the current span has the result."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach

from otel_introspect.engine import handover
from otel_introspect.engine.places import Place, here
from otel_introspect.engine.stacks import outwards, positions_of
from otel_introspect.faults import fail_open
from otel_introspect.introspection import active_or_own

if TYPE_CHECKING:
    from pyinstrument.session import Session  # noqa: TID251 - for its name only
    from typing_extensions import Self

    from otel_introspect.profiling.profiler import LiveProfile
    from otel_introspect.triggers.refusal import Reason

__all__ = ["Profile", "profile"]

F = TypeVar("F", bound=Callable[..., Any])

_WIDE: Final = 1_000_000
_entered: Final[ContextVar[None]] = ContextVar("otel_introspect_profile", default=None)
"""Set where a block is entered, for no other reason than to know the context again in which that was."""


class Profile:
    """One profile: a context manager, entered once; or a decorator, which makes another one for each call.

    Neither entering nor leaving it ever raises.

    The current span gets the event ``otel_introspect.profile``; where none is recording, a span is made for the block.
    One profile is taken at a time in each process; where that is not this one, ``refused`` says why.

    Args:
        name: Of the span, if one is made.
        interval_ms: How often to sample; a tenth of ``PROFILER_INTERVAL`` if None is given, 1 at least.

    Raises:
        ValueError: If *interval_ms* is less than 1.
    """

    def __init__(self, name: str | None = None, *, interval_ms: int | None = None) -> None:
        if interval_ms is not None and not interval_ms >= 1:
            msg = f"interval_ms must be at least 1, not {interval_ms!r}"
            raise ValueError(msg)
        self.refused: Reason | None = None
        """Why no profile is taken; None if one is."""
        self._name = name
        self._interval_ms = interval_ms
        self._live: LiveProfile | None = None
        self._span: Any = None
        self._attached: Token[Context] | None = None
        self._origin: Token[handover.Origin] | None = None
        self._token: Any = None

    def __call__(self, function: F) -> F:
        """Profile each call of *function*; see ``profile``."""
        from otel_introspect.profiled import profiled

        return profiled(function, self)

    def another(self, name: str) -> Profile:
        """Another one like it."""
        return Profile(self._name or name, interval_ms=self._interval_ms)

    def __enter__(self) -> Self:
        self.refused = "failed"  # unless it comes to its end
        with fail_open("beginning a profile"):
            self._begin(sys._getframe(1))  # noqa: SLF001 - the documented way, despite its name
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        with fail_open("ending a profile"):
            self._end()

    def _begin(self, frame: FrameType) -> None:
        # Late, as it is loaded with the first profile.
        from otel_introspect.profiling import pools
        from otel_introspect.triggers.refusal import Refused

        introspection = active_or_own()
        pools.follow()
        place: int | Place = here()
        key = object()
        self._live = None
        self._token = _entered.set(None)
        span: Any = trace.get_current_span()
        if not span.is_recording():
            name = self._name or f"profile {frame.f_code.co_name}"
            span = self._span = introspection.tracer().start_span(name)
            self._attached = attach(trace.set_span_in_context(span))
        stack = positions_of(outwards(frame))
        try:
            self._live = introspection.profiler.begin(
                "code", span, key, lambda: place, began_in=tuple(stack), interval_ms=self._interval_ms, ends_here=True
            )
        except Refused as refusal:
            self.refused = refusal.reason
            return
        self.refused = None
        self._origin = handover.current.set(handover.Within(key, handover.origin_here()))

    def _end(self) -> None:
        token, self._token = self._token, None
        origin, self._origin = self._origin, None
        attached, self._attached = self._attached, None
        span, self._span = self._span, None
        if token is None:
            return  # it has failed before it began
        # An asynchronous generator that nobody has read to its end is ended in another context; what was set in its own
        # is gone with that, and trying to set it back would be logged as an error.
        is_elsewhere = False
        try:
            _entered.reset(token)
        except ValueError:
            is_elsewhere = True
        try:
            if origin is not None and not is_elsewhere:
                handover.current.reset(origin)
            if self._live is not None:
                self._live.finish()
        finally:
            if attached is not None and not is_elsewhere:
                detach(attached)
            if span is not None:
                span.end()

    @property
    def id(self) -> str | None:
        """32 hexadecimal digits, which are on the span, too; None if no profile is taken."""
        return None if self._live is None else self._live.id

    def session(self) -> Session | None:
        """All that was seen, for pyinstrument's renderers; None if no profile was taken. Ends the profile."""
        return None if self._live is None else self._live.session()

    def text(self) -> str:
        """The tree of calls as pyinstrument prints it, in full; empty if no profile was taken."""
        from otel_introspect.profiling.console_text import console_text

        session = self.session()
        return "" if session is None else console_text(session, _WIDE)[0]


@overload
def profile(function: F, /) -> F: ...


@overload
def profile(function: None = None, /, *, name: str | None = None, interval_ms: int | None = None) -> Profile: ...


def profile(function: F | None = None, /, *, name: str | None = None, interval_ms: int | None = None) -> F | Profile:
    """Profile a block, or each call of a function.

    As a context manager (``with profile() as taken:``) it profiles the block, in coroutines too. As a decorator
    (``@profile`` or ``@profile(interval_ms=5)``) it profiles each call of a function, a coroutine function, a generator
    or an asynchronous one: from its first item to its end, with what is done in between by whoever reads it. The
    current span gets the result; see ``Profile``.

    Args:
        function: What to decorate.
        name: Of the span that is made where none is recording; the function's name if None is given.
        interval_ms: How often to sample, in milliseconds; a tenth of ``PROFILER_INTERVAL`` if None is given.

    Raises:
        TypeError: If *function* can't be decorated.
        ValueError: If *interval_ms* is less than 1.
    """
    block = Profile(name, interval_ms=interval_ms)
    return block if function is None else block(function)
