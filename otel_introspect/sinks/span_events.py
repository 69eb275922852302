"""The sink that adds span events."""

from __future__ import annotations

from typing import Final

from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from otel_introspect.faults import count

# What the SDK allows where it does not say (its SpanLimits, and the specification's defaults).
_DEFAULT_LIMIT: Final = 128


class SpanEventSink:
    """Adds evidence to the span itself, which Jaeger and Tempo show beside the application's own events."""

    def emit(self, span: Span, name: str, attributes: dict[str, AttributeValue], timestamp: int) -> bool:
        """See ``Sink``; a span full of the application's events is left as it is, as the SDK would drop the oldest."""
        if not span.is_recording():  # late: only a log record can still say it
            return False
        if len(getattr(span, "events", ())) >= _limit(span, "max_events"):
            count("dropped", "span has no room for events")
            return False
        span.add_event(name, attributes, timestamp)
        return True


def was_recorded(span: Span) -> bool:
    """Whether *span* is recording, or was until it ended."""
    return span.is_recording() or getattr(span, "end_time", None) is not None


def set_attribute(span: Span, key: str, value: AttributeValue) -> None:
    """Set an attribute of ours, unless one of the application's would have to go for it."""
    if not span.is_recording():
        return
    attributes = getattr(span, "attributes", None) or {}
    if key not in attributes and len(attributes) >= _limit(span, "max_span_attributes"):
        count("dropped", "span has no room for attributes")
        return
    span.set_attribute(key, value)


def _limit(span: Span, name: str) -> int:
    limit = getattr(getattr(span, "_limits", None), name, _DEFAULT_LIMIT)
    return limit if isinstance(limit, int) else 2**31  # None is: without limit
