"""The span processor that has entry spans watched."""

from __future__ import annotations

import asyncio
from threading import get_ident
from typing import TYPE_CHECKING
from weakref import ref

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import TraceFlags

from otel_introspect.config import IntrospectConfig
from otel_introspect.engine.places import TaskPlace
from otel_introspect.faults import fail_open, failed
from otel_introspect.introspection import Introspection

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

_SAMPLED = int(TraceFlags.SAMPLED)
# Read without a lock, a POSIX signal or an exception; None where no loop runs in this thread.
_running_loop = asyncio._get_running_loop  # noqa: SLF001 - public by its documentation: "for implementing event loops"


class WatchdogSpanProcessor(SpanProcessor):
    """Adds stack snapshots to entry spans that stay open past the threshold, while they are still open.

    Both hooks run inside the application's own calls, so all they do is put a span into a table and take it out again. An
    entry span is the first of its trace in this process: it has no parent, or a remote one. Only those that are recorded
    *and* sampled are watched.

    Args:
        introspection: What does the watching; one of its own from the environment's settings if None is given.
    """

    def __init__(self, introspection: Introspection | None = None) -> None:
        self.introspection = Introspection(IntrospectConfig.from_env()) if introspection is None else introspection
        self._bind()

    def _bind(self) -> None:
        # Attributes of self, as each look-up on the way costs the request.
        self._open = self.introspection.table.open
        self._slow = self.introspection.table.slow
        self._discard = self.introspection.table.discard
        self._introspector = self.introspection.introspector

    def switch_to(self, introspection: Introspection) -> None:
        """Go on with another configuration: a provider never gives back a processor, so one serves for good."""
        previous, self.introspection = self.introspection, introspection
        self._bind()
        previous.stop()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Put an entry span into the live table. Runs on the thread that starts the span; never raises."""
        try:
            parent = span.parent
            if parent is not None and not parent.is_remote:
                return
            context = span.get_span_context()
            if not context.trace_flags & _SAMPLED or not self.introspection.watching:
                return
            if _running_loop() is None:
                self._open[context.span_id] = (ref(span), get_ident())
            else:
                task = asyncio.current_task()
                place = get_ident() if task is None else TaskPlace(task, get_ident())
                self._open[context.span_id] = (ref(span), place)
            if self._introspector.parked:
                self._introspector.wake()
        except Exception as error:  # noqa: BLE001 - it would reach the application
            failed("watching a span", error)

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span out of the live table. Runs on the thread that ends the span, any thread; never raises."""
        try:
            # A copy of what on_start saw, so that its id is the only link; for a child span nothing is found.
            key = span.context.span_id
            self._open.pop(key, None)
            if self._slow:
                self._discard(key)
        except Exception as error:  # noqa: BLE001 - it would reach the application
            failed("unwatching a span", error)

    def shutdown(self) -> None:
        """Watch nothing more, and give back the thread."""
        with fail_open("shutting down"):
            self.introspection.stop()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Nothing is ever waiting: evidence is on its span when it is taken."""
        return True
