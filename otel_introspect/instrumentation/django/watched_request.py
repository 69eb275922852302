"""A request whose entry span is being watched: where it runs, from Django's handlers into the view and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final

from asgiref.current_thread_executor import CurrentThreadExecutor
from asgiref.sync import SyncToAsync, iscoroutinefunction
from django.http import HttpRequest
from opentelemetry import trace
from opentelemetry.util.http import ExcludeList, parse_excluded_urls

from otel_introspect.engine.native import get_ident
from otel_introspect.engine.places import Handoff, Place, TaskPlace
from otel_introspect.exemption import is_exempt
from otel_introspect.faults import fail_open
from otel_introspect.instrumentation.django.request_deadline import has_own_limit, limit_view
from otel_introspect.introspection import Introspection, active

View = Callable[..., Any]

# Where OpenTelemetry's middleware leaves the request's span.
_SPAN_KEY: Final = "opentelemetry-instrumentor-django.span_key"
WORKER_KEY: Final = "otel_introspect.worker_id"
"""Where our middleware outside OpenTelemetry's leaves the id of the thread that serves synchronous parts under ASGI."""


def _asgiref_handoff() -> Handoff | None:
    """How Django's synchronous parts run under ASGI: the task waits in the one, a thread works in the other."""
    with fail_open("looking up how asgiref hands work to threads"):
        return Handoff(waiting=SyncToAsync.__call__.__code__, serving=CurrentThreadExecutor.run_until_future.__code__)
    return None


_HANDOFF: Final = _asgiref_handoff()


@lru_cache(maxsize=8)
def _excluded(patterns: str) -> ExcludeList:
    return parse_excluded_urls(patterns)


def place_of_task(task: asyncio.Task[Any], worker_id: int | None) -> TaskPlace:
    """Where a request runs that is in *task*, on this thread, and has its synchronous parts on another one."""
    return TaskPlace(task, get_ident(), worker_id, _HANDOFF)


class WatchedRequest:
    """One request in the live table.

    Args:
        introspection: Whose table.
        key: The entry span's key there.
        span: The request's own span.
        owns: Whether that is the entry span; if not, a server's instrumentation has started that before.
        worker_id: The thread that serves the synchronous parts of a request which runs in an event loop.
    """

    __slots__ = ("_before", "_exempt", "_key", "_place", "_worker_id", "introspection", "owns", "span")

    def __init__(
        self, introspection: Introspection, key: int, span: trace.Span, *, owns: bool, worker_id: int | None
    ) -> None:
        self.introspection: Final = introspection
        self.span: Final = span
        self.owns: Final = owns
        self._key: Final = key
        self._worker_id: Final = worker_id
        self._exempt = False
        self._place: TaskPlace | None = None
        self._before: int | Place | None = None

    @classmethod
    def of(cls, request: HttpRequest) -> WatchedRequest | None:
        """The watched request that *request* is; None if its span is not in the table, or not to be watched."""
        meta = request.META
        return cls.of_span(meta.get(_SPAN_KEY) or trace.get_current_span(), meta.get(WORKER_KEY))

    @classmethod
    def of_span(cls, span: trace.Span, worker_id: int | None) -> WatchedRequest | None:
        """The watched request whose own span, or a child of it, is *span*."""
        introspection = active()
        if introspection is None:
            return None
        table = introspection.table
        key = span.get_span_context().span_id
        if key in table:
            return cls(introspection, key, span, owns=True, worker_id=worker_id)
        parent = getattr(span, "parent", None)
        if parent is not None and parent.span_id in table:
            return cls(introspection, parent.span_id, span, owns=False, worker_id=worker_id)
        return None

    def is_excluded(self, request: HttpRequest) -> bool:
        """Whether the user does not want *request* watched; if so, it is not any more."""
        patterns = self.introspection.config.evidence.excluded_urls
        if not patterns or not _excluded(patterns).url_disabled(request.build_absolute_uri("?")):
            return False
        self.introspection.leave_out(self._key)
        return True

    def relocate(self, place: int | Place) -> int | Place | None:
        """Say that the request runs elsewhere from now on; returns where it ran."""
        return self.introspection.table.relocate(self._key, place)

    def enter(self) -> None:
        """The request runs here from now on: in the current task if there is one, on this thread if not."""
        task = asyncio.current_task() if asyncio._get_running_loop() is not None else None  # noqa: SLF001 - never raises
        self._place = self._place_of(task) if task is not None else None
        self._before = self.relocate(self._place or get_ident())

    def _place_of(self, task: asyncio.Task[Any]) -> TaskPlace:
        return place_of_task(task, self._worker_id)

    def enter_view(self, view: View, callable_view: View) -> View:
        """What Django is to call instead of *callable_view*, which it has made of *view*.

        Called where the view is going to be called from: in the request's task, or on its thread. A view that runs
        elsewhere takes the request with it, and brings it back.
        """
        if is_exempt(view):
            self._exempt = True
            self.introspection.leave_out(self._key)
            return callable_view
        if not iscoroutinefunction(callable_view):
            return self._on_thread(callable_view)
        task = asyncio.current_task() if asyncio._get_running_loop() is not None else None  # noqa: SLF001 - as above
        if task is not None and self._place is not None and self._place.is_of(task):
            return callable_view
        return self._in_task(callable_view)

    def _on_thread(self, view: View) -> View:
        def on_thread(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on as they are
            before = self.relocate(get_ident())
            try:
                return view(*args, **kwargs)
            finally:
                if before is not None:
                    self.relocate(before)

        return on_thread

    def _in_task(self, view: View) -> View:
        async def in_task(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on as they are
            task = asyncio.current_task()
            before = self.relocate(self._place_of(task)) if task is not None else None
            try:
                return await view(*args, **kwargs)
            finally:
                if before is not None:
                    self.relocate(before)

        return in_task

    def streams(self, response: object) -> bool:
        """Whether the body of *response* is still to come, and is to be watched."""
        return not self._exempt and getattr(response, "streaming", False) is True

    def close(self) -> None:
        """The request is about to leave us: let nothing more be written to its span, which OpenTelemetry ends next."""
        if self.owns:
            self.introspection.table.discard(self._key)
        elif self._before is not None:
            self.relocate(self._before)


@lru_cache(maxsize=1024)
def _is_plain(view: View) -> bool:
    return not has_own_limit(view) and not iscoroutinefunction(view)


def follow(view: View, callable_view: View) -> View:
    """What Django is to call as *view*. Called just before the view, where that is going to be called from."""
    watched: WatchedRequest | None
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - never raises
        watched = current.get()
    elif _is_plain(view):
        return callable_view  # it runs where the request does
    else:
        watched = WatchedRequest.of_span(trace.get_current_span(), get_ident())
    return limit_view(view, callable_view if watched is None else watched.enter_view(view, callable_view))


current: Final[ContextVar[WatchedRequest | None]] = ContextVar("otel_introspect_watched_request", default=None)
"""The request that this task works for under ASGI. A context variable, as asgiref takes those from thread to thread."""
