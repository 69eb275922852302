"""The sink that also writes evidence down in the flight recorder, from which it comes back if the process is killed."""

from __future__ import annotations

from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from otel_introspect.engine.flight_recorder import FlightRecorder


class FlightRecorderSink:
    """Writes down what is put on an entry span."""

    def __init__(self, recorder: FlightRecorder) -> None:
        self._recorder = recorder

    def emit(self, span: Span, name: str, attributes: dict[str, AttributeValue], timestamp: int) -> bool:
        """See ``Sink``. What an adapter has in the place of a span is no entry span, and was never written down."""
        context = getattr(span, "get_span_context", None)
        if context is not None:
            self._recorder.add_event(context().span_id, name, attributes, timestamp)
        return True
