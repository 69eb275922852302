"""What an interruption leaves on the current span."""

from __future__ import annotations

from time import monotonic, time_ns
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from otel_introspect.engine.deadline import GRACE, Deadline
from otel_introspect.engine.stacks import trimmed
from otel_introspect.introspection import active_or_own
from otel_introspect.sinks.reporter import Overrun
from otel_introspect.sinks.span_events import was_recorded
from otel_introspect.tally import tally

_MILLISECONDS: Final = 1000
_NANOSECONDS: Final = 1_000_000_000


def record(deadline: Deadline, error: BaseException | None) -> None:
    """Say on the current span that *deadline* has passed; its block has ended with *error*, or by itself."""
    now = monotonic()
    # Work that has caught it and is done soon after was ended by it, too.
    is_enforced = deadline.attempts > 0 and (error is not None or now - deadline.hit_at < GRACE)
    if is_enforced:
        tally("interruptions", deadline.mechanism)
    span = trace.get_current_span()
    if not was_recorded(span):
        return
    reporter = active_or_own().reporter
    if not reporter.accepts(span):
        return
    hit_at = deadline.hit_at if is_enforced and deadline.hit_at else now
    seconds = deadline.limit or deadline.seconds
    elapsed = round((hit_at - deadline.expires + seconds) * _MILLISECONDS)
    limit = round(seconds * _MILLISECONDS)
    reason = None if is_enforced else deadline.refusal
    if not is_enforced and reason is None:
        reason = "the work has swallowed it" if deadline.attempts else "nothing could interrupt the work"
    reporter.report_overrun(
        span,
        Overrun(
            taken=time_ns() - round((now - hit_at) * _NANOSECONDS),
            capture=trimmed(deadline.hit) if deadline.hit else None,
            limit_ms=limit,
            elapsed_ms=elapsed,
            mechanism=deadline.mechanism,
            attempts=deadline.attempts,
            reason=reason,
            error_type=type(deadline.error or error).__qualname__ if is_enforced else None,
        ),
    )
    if is_enforced and span.is_recording():
        span.set_status(Status(StatusCode.ERROR, f"interrupted after {elapsed} ms, the limit was {limit} ms"))
