"""The deadline of a request, which limits it wherever it runs.

Under WSGI all of a request runs on one thread, so one block around it will do. Under ASGI it runs in a task, and its
synchronous parts on a thread for which that task waits: cancelling the task would leave the thread at work, so the view
is limited where it runs, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from math import inf
from operator import attrgetter, lt
from time import monotonic
from typing import Any, Final

from asgiref.sync import iscoroutinefunction

from otel_introspect.errors import RequestInterrupted
from otel_introspect.exemption import is_exempt
from otel_introspect.instrumentation.django.connections import cut_no_more, cut_queries
from otel_introspect.limited import MARK
from otel_introspect.timeouts import timeout, timeouts_are_enabled

View = Callable[..., Any]

# A block needs more than nothing; this much is over before it is looked at.
_AT_ONCE: Final = 1e-6


class RequestDeadline:
    """When one request has to be done.

    Args:
        limit_ms: How long it may take, in milliseconds.
    """

    _more: tuple[timeout, ...] = ()
    _task: asyncio.Task[Any] | None = None

    def __init__(self, limit_ms: int) -> None:
        _prepare()
        seconds = limit_ms / 1000
        self.due = monotonic() + seconds if timeouts_are_enabled() else inf
        """By ``time.monotonic``."""
        self.block = timeout(seconds, RequestInterrupted, polite=True)
        """The block that limits the request as a whole."""

    def runs_in(self, task: asyncio.Task[Any] | None) -> timeout:
        """The same block, in *task*."""
        self._task = task
        return self.block

    def _rest(self) -> timeout:
        """A block for what is left, to limit a part that runs elsewhere."""
        block = timeout(max(self.due - monotonic(), _AT_ONCE), RequestInterrupted, polite=True)
        self._more += (block,)
        return block

    @property
    def expired(self) -> bool:
        """Whether an interruption is this one's: it may be that of a request within which this one is made."""
        return self.block.expired or any(block.expired for block in self._more)

    def lift(self, seconds: float = inf) -> None:
        """Do not interrupt the request; something else limits it from now on, to so many *seconds*."""
        self.due = monotonic() + seconds
        self._lift_blocks()

    def _lift_blocks(self) -> None:
        for block in (self.block, *self._more):
            block.cancel()

    def limit_view(self, view: View, callable_view: View) -> View:
        """See ``limit_view``."""
        own: timeout | None = getattr(view, MARK, None)
        if own is not None:
            self.lift(own.seconds or inf)
        elif is_exempt(view):
            self.lift()
        elif asyncio._get_running_loop() is None:  # noqa: SLF001 - never raises
            if iscoroutinefunction(callable_view):
                # It gets an event loop of its own on another thread, for which this one waits in asgiref's code. That
                # must not be interrupted: nobody would do what the view hands back to this thread.
                self._lift_blocks()
                return self._in_task(callable_view)
        elif not iscoroutinefunction(callable_view):
            return self._on_thread(callable_view)
        elif self._task is None or self._task is not asyncio.current_task():
            return self._in_task(callable_view)
        return callable_view

    def _in_task(self, view: View) -> View:
        async def in_task(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on as they are
            with self._rest():
                return await view(*args, **kwargs)

        return in_task

    def _on_thread(self, view: View) -> View:
        def on_thread(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as above
            with self._rest():
                response = view(*args, **kwargs)
            if getattr(response, "is_rendered", True) is False:
                # Django renders it later, on this thread again: a lazy query set asks the database only then.
                response.render = self._rendering(response)
            return response

        return on_thread

    def _rendering(self, response: Any) -> View:  # noqa: ANN401 - a template response
        render: View = response.render

        def rendering() -> Any:  # noqa: ANN401 - as above
            del response.render  # which would keep the response from being pickled, as caches do
            with self._rest():
                return render()

        return rendering


class _NoDeadline(RequestDeadline):
    """That of a request which may take as long as it wants."""

    def __init__(self) -> None:
        self.due = inf

    def lift(self, seconds: float = inf) -> None:
        pass


NO_DEADLINE: Final = _NoDeadline()
current: Final[ContextVar[RequestDeadline]] = ContextVar("otel_introspect_deadline", default=NO_DEADLINE)
"""The deadline of the request that this thread or task works for."""

# SQLite calls this in the middle of a query. C throughout: in a function of Python's, CPython would raise what is to
# interrupt the thread, and SQLite drops what is raised in there. And some time after it is due: the interruption is to
# be on its way when the query fails, or the application would see nothing but that.
_query_time: Final = map((-0.02).__add__, iter(monotonic, None))
_is_over: Final = map(lt, map(attrgetter("due"), iter(current.get, None)), _query_time).__next__


@cache
def _prepare() -> None:
    """Done at the first request that has a deadline; cached, so that it costs the others next to nothing."""
    cut_queries(_is_over)


def forget() -> None:
    """Take back what the first deadline has set up."""
    cut_no_more()
    _prepare.cache_clear()


def limit_view(view: View, callable_view: View) -> View:
    """What Django is to call instead of *callable_view*, which it has made of *view*, to keep to the deadline.

    Called just before that, where the view is going to be called from.
    """
    deadline = current.get()
    return callable_view if deadline is NO_DEADLINE else deadline.limit_view(view, callable_view)


def has_own_limit(view: View) -> bool:
    """Whether the request's deadline does not apply to *view*."""
    return hasattr(view, MARK) or is_exempt(view)
