"""Takes traces by OTLP over HTTP, as protobuf, and keeps them apart by the path that they were sent to."""

from __future__ import annotations

import gzip
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

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


class Receiver:
    """One thread, one connection at a time; at any free port, if none is given."""

    def __init__(self, port=0):
        self._spans = defaultdict(list)
        self._came = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.take(self.path, ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args):
                pass

        self._server = HTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def endpoint(self, name):
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def take(self, path, message):
        with self._came:
            self._spans[path.strip("/")].extend(spans_in(message))
            self._came.notify_all()

    def spans(self, name):
        with self._came:
            return list(self._spans[name])

    def wait_for(self, name, chosen, *, count=1, seconds=15.0):
        """The spans sent to *name* that are *chosen*, as soon as there are *count*."""
        deadline = time.monotonic() + seconds
        with self._came:
            while True:
                found = [each for each in self._spans[name] if chosen(each)]
                left = deadline - time.monotonic()
                if len(found) >= count or left <= 0:
                    return found
                self._came.wait(left)

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
