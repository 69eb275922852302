"""``profile``: a block or a function is profiled, and the current span has the result."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import Token
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from opentelemetry import trace

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
        self._activation: Any = None
        self._origin: Token[handover.Origin] | None = None

    def __call__(self, function: F) -> F:
        """Profile each call of *function*; see ``profile``."""
        return _profiled(function, self)

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

    def _begin(self, frame: Any) -> None:
        # Late, as it is loaded with the first profile.
        from otel_introspect.profiling import pools
        from otel_introspect.triggers.refusal import Refused

        introspection = active_or_own()
        pools.follow()
        place: int | Place = here()
        key = object()
        span: Any = trace.get_current_span()
        if not span.is_recording():
            name = self._name or f"profile {frame.f_code.co_name}"
            span = self._span = introspection.tracer().start_span(name)
            self._token = attach(trace.set_span_in_context(span))
        stack = positions_of(outwards(frame))
        self._live = None
        try:
            self._live = introspection.profiler.begin(
                "code", span, key, lambda: place, began_in=tuple(stack), interval_ms=self._interval_ms
            )
        except Refused as refusal:
            self.refused = refusal.reason
            return
        self.refused = None
        self._origin = handover.current.set(handover.Within(key, handover.origin_here()))

    def _end(self) -> None:
        origin, self._origin = self._origin, None
        token, self._token = self._token, None
        span, self._span = self._span, None
        try:
            if origin is not None:
                _give_back(handover.current.reset, origin)
            if self._live is not None:
                self._live.finish()
        finally:
            if token is not None:
                # Not by detach(), which logs an error where the block is left in another context than it was entered
                # in, as an asynchronous generator's may be that nobody has read to its end.
                _give_back(_RUNTIME_CONTEXT.detach, token)
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
    or an asynchronous one. The current span gets the result; see ``Profile``.

    Args:
        function: What to decorate.
        name: Of the span that is made where none is recording; the function's name if None is given.
        interval_ms: How often to sample, in milliseconds; a tenth of ``PROFILER_INTERVAL`` if None is given.
    """
    block = Profile(name, interval_ms=interval_ms)
    return block if function is None else block(function)


# ruff: noqa: ANN401 - arguments and results are handed on as they are


def _profiled(function: F, pattern: Profile) -> F:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    wrapper: Callable[..., Any]
    if inspect.isasyncgenfunction(function):

        @wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            with pattern.another(name):
                async for each in function(*args, **kwargs):
                    yield each

    elif inspect.iscoroutinefunction(function):

        @wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with pattern.another(name):
                return await function(*args, **kwargs)

    elif inspect.isgeneratorfunction(function):

        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with pattern.another(name):
                return (yield from function(*args, **kwargs))

    else:

        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with pattern.another(name):
                return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value] # it takes and returns the same
