"""Other ways to notice that a request takes long: what people did before, and do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import SpanProcessor

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

# dogslow's own default: long enough that nothing here is ever due.
_SECONDS: Final = 25.0

NO_DOGSLOW: Final = "dogslow is not installed: its rows are missing."


def dogslow_is_there() -> bool:
    """Whether its timer can be imported; the rest of it needs a configured Django."""
    return find_spec("dogslow") is not None


class DogslowSpanProcessor(SpanProcessor):
    """dogslow's way with spans: its own timer, told of every span that starts and ends."""

    def __init__(self) -> None:
        self._timer = import_module("dogslow.timer").Timer()
        self._timer.daemon = True
        self._timer.start()
        self._jobs: dict[int, Any] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Schedule a look."""
        self._jobs[span.context.span_id] = self._timer.run_later(_look, _SECONDS, threading.get_ident())

    def on_end(self, span: ReadableSpan) -> None:
        """Cancel it."""
        self._timer.cancel(self._jobs.pop(span.context.span_id))

    def shutdown(self) -> None:
        """End the timer's thread; what is still scheduled is forgotten."""
        with self._timer.lock:
            self._timer._jobs = []  # noqa: SLF001 - its own shutdown() empties another list
        self._timer.shutdown()


class TimerSpanProcessor(SpanProcessor):
    """The first idea that one has: a ``threading.Timer``, a thread that is, for each span."""

    def __init__(self) -> None:
        self._timers: dict[int, threading.Timer] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Start one."""
        self._timers[span.context.span_id] = _started_timer()

    def on_end(self, span: ReadableSpan) -> None:
        """Cancel it."""
        self._timers.pop(span.context.span_id).cancel()


class TimerMiddleware:
    """The same for Django's requests."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Serve the request under a timer."""
        timer = _started_timer()
        try:
            return self._get_response(request)
        finally:
            timer.cancel()


def _started_timer() -> threading.Timer:
    timer = threading.Timer(_SECONDS, _look, (threading.get_ident(),))
    timer.daemon = True
    timer.start()
    return timer


def _look(thread_id: int) -> None:
    """Nothing is ever due."""
