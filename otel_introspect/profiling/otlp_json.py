"""The profiles in a trace: events of spans, in OTLP's JSON as files and tracing back ends have it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_introspect import semconv

_MAX_LISTS: Final = 64
_HEX: Final = re.compile(r"[0-9a-f]+")
_NANOSECONDS: Final = 1e9
_MILLISECONDS: Final = 1e3
# OTLP's own name, and the one under which Tempo answers.
_RESOURCE_SPANS: Final = ("resourceSpans", "resource_spans", "batches")
_SCOPE_SPANS: Final = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans")


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedProfile:
    """A profile as a span carries it.

    Args:
        trace_id: Of the span, in hexadecimal digits.
        span_id: Likewise.
        span_name: What the span says it is.
        end_time: When the profile was put on the span, in seconds since 1970.
        attributes: The event's.
    """

    trace_id: str
    span_id: str
    span_name: str
    end_time: float
    attributes: Mapping[str, object]

    @property
    def profile_id(self) -> str:
        """Its id; empty if the event has none."""
        return self.text_of(semconv.PROFILE_ID).lower()

    @property
    def duration(self) -> float | None:
        """The seconds that it covers, if the event says so."""
        milliseconds = self.number_of(semconv.PROFILE_DURATION_MS)
        return None if milliseconds is None else milliseconds / _MILLISECONDS

    def text_of(self, name: str) -> str:
        """A text attribute; empty if there is none."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) else ""

    def number_of(self, name: str) -> float | None:
        """An attribute that is a number, not negative and not absurd."""
        value = self.attributes.get(name)
        return float(value) if isinstance(value, int) and 0 <= value < 2**53 else None

    def answers_to(self, wanted: str) -> bool:
        """Whether it is meant by *wanted*: the begin of its id, its trace's id or its span's."""
        wanted = wanted.lower()
        return bool(wanted) and (self.profile_id.startswith(wanted) or wanted in (self.trace_id, self.span_id))


def is_trace(document: object) -> bool:
    """Whether a JSON value is a trace, or an answer with one in it."""
    return any(True for _ in _resource_spans(document))


def profiles_in(documents: Iterable[object]) -> list[TracedProfile]:
    """Each profile once, in the order of the spans: a span can be in a file more than once."""
    found: dict[object, TracedProfile] = {}
    for document in documents:
        for resource in _resource_spans(document):
            for scope in _maps(_first(resource, _SCOPE_SPANS)):
                for span in _maps(scope.get("spans")):
                    for profile in _of_span(span):
                        found.setdefault(profile.profile_id or (profile.span_id, profile.end_time), profile)
    return list(found.values())


def _resource_spans(document: object) -> Iterator[Mapping[str, Any]]:
    """Those of a request, of an answer that wraps one (Jaeger: ``result``, Tempo: ``trace``), or of a list of these."""
    if isinstance(document, list):
        for each in document[:_MAX_LISTS]:
            if isinstance(each, dict):
                yield from _resource_spans(each)
        return
    if not isinstance(document, dict):
        return
    wrapped = [document[name] for name in ("result", "trace", "data") if isinstance(document.get(name), dict)]
    for each in (document, *wrapped):
        yield from _maps(_first(each, _RESOURCE_SPANS))


def _of_span(span: Mapping[str, Any]) -> Iterator[TracedProfile]:
    for event in _maps(span.get("events")):
        if event.get("name") == semconv.PROFILE_EVENT:
            time = _integer(_first(event, ("timeUnixNano", "time_unix_nano")))
            name = span.get("name")
            yield TracedProfile(
                trace_id=_identifier(_first(span, ("traceId", "trace_id")), 16),
                span_id=_identifier(_first(span, ("spanId", "span_id")), 8),
                span_name=name if isinstance(name, str) else "",
                end_time=(time or 0) / _NANOSECONDS,
                attributes=_attributes(event.get("attributes")),
            )


def _attributes(found: object) -> dict[str, object]:
    attributes: dict[str, object] = {}
    for each in _maps(found):
        name, value = each.get("key"), each.get("value")
        if isinstance(name, str) and isinstance(value, dict):
            attributes[name] = _value(value)
    return attributes


def _value(value: Mapping[str, Any]) -> object:
    """A string, a number or a truth; OTLP writes an integer as a string, as JavaScript has none of 64 bits."""
    for name in ("intValue", "int_value"):
        if name in value:
            return _integer(value[name])
    for name, kind in (("stringValue", str), ("string_value", str), ("boolValue", bool), ("doubleValue", float)):
        if isinstance(value.get(name), kind):
            return value[name]
    return None


def _integer(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}", value, re.ASCII):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64 else None


def _identifier(value: object, length: int) -> str:
    """A trace's or span's id in hexadecimal digits, as OTLP's JSON has it; ProtoBuf's own JSON has base64."""
    if not isinstance(value, str):
        return ""
    if len(value) == 2 * length and _HEX.fullmatch(value.lower()):
        return value.lower()
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return decoded.hex() if len(decoded) == length else ""


def _first(found: Mapping[str, Any], names: Iterable[str]) -> object:
    return next((found[name] for name in names if name in found), None)


def _maps(found: object) -> Iterator[Mapping[str, Any]]:
    """The objects of a list; nothing if it is none."""
    if isinstance(found, list):
        yield from (each for each in found if isinstance(each, dict))
