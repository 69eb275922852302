"""A request whose entry span is being watched: where it runs, from Django's handlers into the view and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from threading import get_ident
from typing import Any, Final

from asgiref.current_thread_executor import CurrentThreadExecutor
from asgiref.sync import SyncToAsync, iscoroutinefunction
from django.http import HttpRequest
from opentelemetry import trace
from opentelemetry.util.http import ExcludeList, parse_excluded_urls

from otel_introspect.engine.places import Handoff, Place, TaskPlace
from otel_introspect.exemption import is_exempt
from otel_introspect.faults import fail_open
from otel_introspect.introspection import Introspection, active

View = Callable[..., Any]

# Where OpenTelemetry's middleware leaves the request's span.
_SPAN_KEY: Final = "opentelemetry-instrumentor-django.span_key"


def _asgiref_handoff() -> Handoff | None:
    """How Django's synchronous parts run under ASGI: the task waits in the one, a thread works in the other."""
    with fail_open("looking up how asgiref hands work to threads"):
        return Handoff(waiting=SyncToAsync.__call__.__code__, serving=CurrentThreadExecutor.run_until_future.__code__)
    return None


_HANDOFF: Final = _asgiref_handoff()


@lru_cache(maxsize=8)
def _excluded(patterns: str) -> ExcludeList:
    return parse_excluded_urls(patterns)


class WatchedRequest:
    """One request in the live table.

    Args:
        introspection: Whose table.
        key: The entry span's key there.
        span: The request's own span, which is the entry span unless a server's instrumentation has started one before.
        owns: Whether it is.
    """

    __slots__ = ("_before", "_exempt", "_key", "_owns", "_place", "introspection", "span")

    def __init__(self, introspection: Introspection, key: int, span: trace.Span, *, owns: bool) -> None:
        self.introspection: Final = introspection
        self.span: Final = span
        self._key: Final = key
        self._owns: Final = owns
        self._exempt = False
        self._place: TaskPlace | None = None
        self._before: int | Place | None = None

    @classmethod
    def of(cls, request: HttpRequest) -> WatchedRequest | None:
        """The watched request that *request* is; None if its span is not in the table, or not to be watched."""
        introspection = active()
        if introspection is None or not introspection.table:
            return None
        span: trace.Span = request.META.get(_SPAN_KEY) or trace.get_current_span()
        key = span.get_span_context().span_id
        owns = key in introspection.table
        if not owns:
            parent = getattr(span, "parent", None)
            if parent is None or parent.span_id not in introspection.table:
                return None
            key = parent.span_id
        patterns = introspection.config.evidence.excluded_urls
        if patterns and _excluded(patterns).url_disabled(request.build_absolute_uri("?")):
            introspection.table.discard(key)
            return None
        return cls(introspection, key, span, owns=owns)

    def follow_task(self) -> None:
        """The request runs in the current task from now on."""
        with fail_open("following a request's task"):
            self._move_to_task()

    def _move_to_task(self) -> None:
        task = asyncio.current_task()
        if task is None or (self._place is not None and self._place.is_of(task)):
            return
        # Whoever started the span on a thread of its own is served by that thread, as asgiref does it.
        worker = self._place.worker_id if self._place is not None else None
        place = TaskPlace(task, get_ident(), worker, _HANDOFF)
        before = self.introspection.table.relocate(self._key, place)
        if self._place is None:
            self._before = before
            place.worker_id = before if isinstance(before, int) and before != get_ident() else None
        self._place = place

    def enter_view(self, view: View, callable_view: View) -> View:
        """What Django is to call instead of *callable_view*, which it has made of *view*.

        Called where the view is going to be called from: in the request's task, or on its thread. Only a view of the
        other kind has to be followed to where it goes.
        """
        if is_exempt(view):
            self._exempt = True
            self.introspection.table.discard(self._key)
            return callable_view
        in_task = asyncio._get_running_loop() is not None  # noqa: SLF001 - raises nothing, unlike the public one
        if in_task:
            self._move_to_task()
        if in_task == iscoroutinefunction(callable_view):
            return callable_view
        return self._on_worker(callable_view, self._place) if in_task else self._in_task(callable_view)

    def _on_worker(self, view: View, place: TaskPlace | None) -> View:
        if place is None:
            return view

        def on_worker(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on as they are
            place.busy_worker_id = get_ident()
            try:
                return view(*args, **kwargs)
            finally:
                place.busy_worker_id = None

        return on_worker

    def _in_task(self, view: View) -> View:
        table, key = self.introspection.table, self._key

        async def in_task(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on as they are
            task = asyncio.current_task()
            before = table.relocate(key, TaskPlace(task, get_ident())) if task is not None else None
            try:
                return await view(*args, **kwargs)
            finally:
                if before is not None:
                    table.relocate(key, before)

        return in_task

    def streams(self, response: object) -> bool:
        """Whether the body of *response* is to be watched on its own, as the request's span is about to end."""
        return self._owns and not self._exempt and getattr(response, "streaming", False) is True

    def close(self) -> None:
        """The request is about to leave us: let nothing more be written to its span, which OpenTelemetry ends next."""
        if self._owns:
            self.introspection.table.discard(self._key)
        elif self._before is not None:
            self.introspection.table.relocate(self._key, self._before)


current: Final[ContextVar[WatchedRequest | None]] = ContextVar("otel_introspect_watched_request", default=None)
"""The request that this thread or task works for. A context variable, as asgiref takes those from thread to thread."""
