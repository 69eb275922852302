"""The bridge from events to span events: what is emitted as a log record is on its span, too; Jaeger shows no logs.

It does what the OpenTelemetry specification calls the event to span event bridge (Logs SDK, in development). A record
is added to the current span of its context if it has an event's name and valid ids, and if that span is recording and
is the one that those ids name. Otherwise nothing is done with it; and in any case it goes on through the processors.

The SDK in use may not have one. Where it has, one of the two is enough: a record that both see is on its span twice.

Records of OpenTelemetry 1.34 and older have neither an event's name nor a context: there the attribute ``event.name``
and the current context stand for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.trace import INVALID_SPAN_ID, INVALID_TRACE_ID
from opentelemetry.util.types import AttributeValue

from otel_introspect.faults import fail_open
from otel_introspect.sinks.log_emission import EVENT_NAME

_PLAIN: Final = (str, bool, int, float)


class EventToSpanEventBridge(LogRecordProcessor):
    """Adds each event that is emitted as a log record to its span, as a span event, while that is recording.

    For ``LoggerProvider.add_log_record_processor``. ``OTEL_PYTHON_INTROSPECT_EVENTS_BRIDGE=true`` does that.
    """

    only_bridges: Final = True
    """Nothing leaves the process by it."""

    def __init__(self) -> None:
        self.is_on = True
        """A provider keeps its processors for good: this switches it off."""

    def on_emit(self, log_record: Any) -> None:  # noqa: ANN401 - each version of the SDK calls its type otherwise
        """Add it to the current span, if it is an event of that span's."""
        if self.is_on:
            with fail_open("bridging an event to its span"):
                _bridge(log_record.log_record)

    emit = on_emit  # as it is called until 1.34

    def shutdown(self) -> None:
        """Bridge nothing more."""
        self.is_on = False

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Nothing is ever waiting."""
        return True


def _bridge(record: Any) -> None:  # noqa: ANN401 - as above
    attributes = dict(record.attributes or {})
    # A field, where records have one, and then only that.
    name = record.event_name if hasattr(record, "event_name") else attributes.pop(EVENT_NAME, None)
    if not name or record.trace_id in (None, INVALID_TRACE_ID) or record.span_id in (None, INVALID_SPAN_ID):
        return
    span = trace.get_current_span(getattr(record, "context", None))
    context = span.get_span_context()
    if span.is_recording() and (context.trace_id, context.span_id) == (record.trace_id, record.span_id):
        shown = {key: _shown(value) for key, value in attributes.items() if value is not None}
        span.add_event(str(name), shown, record.timestamp or record.observed_timestamp)


def _shown(value: object) -> AttributeValue:
    """*value* as a span event may have it: what is nested in a record's attribute is JSON there."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        kinds = {type(each) for each in value}
        if len(kinds) <= 1 and kinds <= set(_PLAIN):
            return tuple(value)
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(value)
    return value.hex() if isinstance(value, bytes) else f"<{type(value).__name__}>"
