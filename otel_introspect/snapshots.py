"""``snapshot``: the current span gets a stack now."""

from __future__ import annotations

import sys
from time import time_ns
from typing import Final

from opentelemetry import trace

from otel_introspect.engine.native import get_ident
from otel_introspect.engine.stacks import capture, outwards
from otel_introspect.engine.threads import thread_name
from otel_introspect.engine.watchdog import Snapshot
from otel_introspect.faults import count, fail_open
from otel_introspect.introspection import active_or_own
from otel_introspect.sinks.span_events import was_recorded

_MILLISECOND: Final = 1_000_000


def snapshot() -> bool:
    """Add the stack of the caller to the current span, whatever its age, as a snapshot event.

    Costs the caller what taking and formatting a stack costs, some 0.1 ms. Counts against the span's and the process's
    budget as the watchdog's own snapshots do. Never raises.

    Returns:
        Whether the span has it, or a log record of it: not if there is no recording span, or no room.
    """
    with fail_open("taking a snapshot on request"):
        span = trace.get_current_span()
        if not was_recorded(span):
            return False
        introspection = active_or_own()
        if not introspection.reporter.accepts(span):
            return False
        if not introspection.reporter.has_room():
            count("dropped", "process budget")
            return False
        now = time_ns()
        stack = capture(outwards(sys._getframe()))  # noqa: SLF001 - the documented way, despite its name
        return introspection.reporter.report(
            span,
            Snapshot(
                taken=now,
                capture=stack,
                thread_id=get_ident(),
                thread_name=thread_name(get_ident()),
                elapsed_ms=max(now - getattr(span, "start_time", now), 0) // _MILLISECOND,
                threshold_ms=introspection.config.watchdog.threshold,
                observer="thread",
                lateness_ms=0,
                remaining=introspection.config.watchdog.max_snapshots,
            ),
        )
    return False
