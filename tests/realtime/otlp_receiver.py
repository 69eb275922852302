"""Takes traces by OTLP over HTTP, as protobuf, and keeps them apart by the path that they were sent to."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from http_receiver import HttpReceiver
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SNAPSHOT = "otel_introspect.stack_snapshot"
THREADS = "otel_introspect.threads"


@dataclass
class Event:
    name: str
    time: float
    attributes: dict
    types: dict

    @property
    def stack(self):
        return self.attributes["code.stacktrace"]

    @property
    def words(self):
        """All its text."""
        texts = []
        for value in self.attributes.values():
            texts += value if isinstance(value, list) else [str(value)]
        return "\n".join(texts)


@dataclass
class Span:
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start: float
    end: float
    status: int
    attributes: dict
    types: dict
    events: list
    scope: str
    pid: int | None = field(default=None)

    @property
    def snapshots(self):
        return [each for each in self.events if each.name == SNAPSHOT]

    @property
    def slow(self):
        return self.attributes.get("otel_introspect.slow", False)

    @property
    def evidence(self):
        """All that is ours on it."""
        ours = {key: value for key, value in self.attributes.items() if key.startswith("otel_introspect")}
        return [*ours.items(), *(each for each in self.events if each.name.startswith("otel_introspect"))]


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        items = [plain(each) for each in value.array_value.values]
        kinds = {each[1] for each in items}
        return [each[0] for each in items], f"{'/'.join(sorted(kinds))}[]"
    return getattr(value, kind), kind.removesuffix("_value")


def attributes_of(pairs):
    values, types = {}, {}
    for each in pairs:
        values[each.key], types[each.key] = plain(each.value)
    return values, types


def spans_in(message):
    for resource_spans in message.resource_spans:
        resource, _ = attributes_of(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                values, types = attributes_of(span.attributes)
                events = [
                    Event(event.name, event.time_unix_nano / 1e9, *attributes_of(event.attributes))
                    for event in span.events
                ]
                yield Span(
                    name=span.name,
                    kind=span.kind,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano / 1e9,
                    end=span.end_time_unix_nano / 1e9,
                    status=span.status.code,
                    attributes=values,
                    types=types,
                    events=events,
                    scope=scope_spans.scope.name,
                    pid=resource.get("process.pid"),
                )


class Receiver(HttpReceiver):
    """Takes spans, and keeps them apart by the path that they were sent to."""

    def __init__(self, port=0):
        self._spans = defaultdict(list)
        super().__init__(port)

    def endpoint(self, name):
        return f"{self.url}/{name}"

    def keep(self, path, body):
        self._spans[path.strip("/")].extend(spans_in(ExportTraceServiceRequest.FromString(body)))

    def spans(self, name):
        with self._came:
            return list(self._spans[name])

    def wait_for(self, name, chosen, *, count=1, seconds=15.0):
        """The spans sent to *name* that are *chosen*, as soon as there are *count*."""
        return self.wait_until(lambda: [each for each in self._spans[name] if chosen(each)], count, seconds)
