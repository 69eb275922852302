"""Spans and events as plain data, read from the SDK's own objects or from OTLP JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from otel_introspect import semconv

if TYPE_CHECKING:  # a file of OTLP JSON is read without the SDK
    from opentelemetry.sdk.trace import ReadableSpan

_KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES: Final = ("UNSET", "OK", "ERROR")
_SERVICE_NAME: Final = "service.name"
_MAX_DIGITS: Final = 32

# opentelemetry.proto.trace.v1.SpanFlags: whether it is known that the parent is remote, and whether it is.
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200


@dataclass(frozen=True, slots=True)
class EventView:
    """One event of a span."""

    name: str
    time_ns: int
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpanView:
    """One finished span, wherever it came from.

    Args:
        parent_id: Empty if there is none.
        entry: Whether it is the first span of its process: no parent, or a remote one.
        kind: ``SERVER``, ``CLIENT`` and so on.
        status: ``UNSET``, ``OK`` or ``ERROR``.
        service: The resource's ``service.name``.
        resource: All that is said of the process.
    """

    trace_id: str
    span_id: str
    parent_id: str
    entry: bool
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: str = "UNSET"
    status_description: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[EventView, ...] = ()
    service: str = ""
    resource: Mapping[str, Any] = field(default_factory=dict)

    @property
    def duration_ns(self) -> int:
        """Never negative: a clock that was set back makes a span of no length, not one of less."""
        return max(self.end_ns - self.start_ns, 0)

    @property
    def slow(self) -> bool:
        """Whether the watchdog found it open past the threshold."""
        return self.attributes.get(semconv.SLOW) is True


def from_readable_span(span: ReadableSpan) -> SpanView:
    """What the SDK hands to an exporter."""
    context = span.get_span_context()
    parent = span.parent
    start = span.start_time or 0
    return SpanView(
        trace_id=f"{context.trace_id:032x}" if context else "",
        span_id=f"{context.span_id:016x}" if context else "",
        parent_id=f"{parent.span_id:016x}" if parent else "",
        entry=parent is None or parent.is_remote,
        name=span.name,
        kind=span.kind.name,
        start_ns=start,
        end_ns=span.end_time or start,
        status=span.status.status_code.name,
        status_description=span.status.description or "",
        attributes=dict(span.attributes or {}),
        events=tuple(EventView(event.name, event.timestamp, dict(event.attributes or {})) for event in span.events),
        service=str(span.resource.attributes.get(_SERVICE_NAME, "")),
        resource=dict(span.resource.attributes),
    )


def from_otlp_json(request: object) -> list[SpanView]:
    """The spans of one ExportTraceServiceRequest: one line of a file of OTLP JSON lines.

    Raises:
        ValueError: If *request* is not one.
    """
    try:
        return list(_spans(_object(request)))
    except (TypeError, AttributeError) as error:
        msg = f"not an OTLP JSON trace request: {error}"
        raise ValueError(msg) from error


def _spans(request: Mapping[str, Any]) -> Iterator[SpanView]:
    if "resourceSpans" not in request:
        msg = "not an OTLP JSON trace request: it has no resourceSpans"
        raise ValueError(msg)
    for resource_spans in request["resourceSpans"] or ():
        resource = _attributes((resource_spans.get("resource") or {}).get("attributes"))
        for scope_spans in resource_spans.get("scopeSpans") or ():
            for span in scope_spans.get("spans") or ():
                yield _span(_object(span), resource)


def _span(span: Mapping[str, Any], resource: Mapping[str, Any]) -> SpanView:
    parent_id = str(span.get("parentSpanId") or "").lower()
    kind = _named(span.get("kind"), _KINDS, "SPAN_KIND_")
    flags = _integer(span.get("flags"))
    # Older senders leave the flags out: then the kind has to tell.
    remote = bool(flags & _IS_REMOTE) if flags & _HAS_IS_REMOTE else kind in ("SERVER", "CONSUMER")
    status = span.get("status") or {}
    return SpanView(
        trace_id=str(span.get("traceId") or "").lower(),
        span_id=str(span.get("spanId") or "").lower(),
        parent_id=parent_id,
        entry=not parent_id or remote,
        name=str(span.get("name") or ""),
        kind=kind,
        start_ns=_integer(span.get("startTimeUnixNano")),
        end_ns=_integer(span.get("endTimeUnixNano")),
        status=_named(status.get("code"), _STATUSES, "STATUS_CODE_"),
        status_description=str(status.get("message") or ""),
        attributes=_attributes(span.get("attributes")),
        events=tuple(
            EventView(
                str(event.get("name") or ""), _integer(event.get("timeUnixNano")), _attributes(event.get("attributes"))
            )
            for event in span.get("events") or ()
        ),
        service=str(resource.get(_SERVICE_NAME, "")),
        resource=resource,
    )


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        msg = f"not an object: {type(value).__name__}"
        raise TypeError(msg)
    return value


def _attributes(pairs: Any) -> dict[str, Any]:  # noqa: ANN401 - from JSON: whatever is there
    return {str(pair.get("key")): _value(pair.get("value") or {}) for pair in pairs or ()}


def _value(value: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of whatever type the attribute is
    for key, content in value.items():
        if key == "intValue":
            return _integer(content)
        if key == "arrayValue":
            return tuple(_value(each) for each in content.get("values") or ())
        if key == "kvlistValue":
            return _attributes(content.get("values"))
        return content  # stringValue, boolValue, doubleValue, bytesValue
    return None


def _integer(value: object) -> int:
    # 64-bit integers are strings in JSON, as protobuf's mapping has it.
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if isfinite(value) else 0
    text = str(value or "0")
    return int(text) if len(text) < _MAX_DIGITS and text.lstrip("-").isdecimal() else 0


def _named(value: object, names: tuple[str, ...], prefix: str) -> str:
    if isinstance(value, str) and not value.isdecimal():
        return value.removeprefix(prefix)
    number = _integer(value)
    return names[number] if 0 <= number < len(names) else names[0]
