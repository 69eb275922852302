"""Real spans with every kind of evidence that the package puts on them, as the OTLP exporter encodes them.

Each trace is one request; which secrets are in which source line is what the redaction is tested with.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import tempfile
import threading
import time
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from profiled import idle, running

from otel_introspect import profile, snapshot, timeout
from otel_introspect.config import EvidenceConfig
from otel_introspect.engine.flight_recorder import FlightRecorder
from otel_introspect.engine.recorder_directory import RecorderDirectory
from otel_introspect.engine.stacks import capture, outwards
from otel_introspect.introspection import activate
from otel_introspect.processors.recovery import ProviderOutlet, Recovery
from otel_introspect.sinks.reporter import Overrun

THRESHOLD_MS = 40
PATIENCE = 5
SLOW_SECONDS = 0.3
LIMIT_SECONDS = 0.04
LOCALS = "otel_introspect.stack.locals"
REQUEST = {
    "http.request.method": "GET",
    "http.route": "/orders/<int:id>",
    "url.path": "/orders/7",
    "url.scheme": "https",
}
# Each string here must not leave a collector that redacts.
SECRETS = ("hunter2", "s3cr3t", "correct-horse", "eyJhbGciOiJIUzI1NiJ9", "c29tZWJvZHk6aHVudGVyMg")


def sign_in(seconds, *, password, token=None, headers=None):
    """What a line with literals in it is stuck in."""
    del password, token, headers
    idle(seconds)


def a_line_with_literals(seconds):
    sign_in(seconds, password="hunter2", token="s3cr3t", headers={"Authorization": "Bearer eyJhbGciOiJIUzI1NiJ9"})


def deep(depth, seconds):
    """A stack whose text has to be cut."""
    names = [f"a_function_with_quite_a_long_name_at_depth_{number}" for number in range(depth)]
    source = "".join(
        f"def {name}(seconds):\n    return {names[index + 1] if index + 1 < depth else 'last'}(seconds)\n"
        for index, name in enumerate(names)
    )
    code = {"last": a_line_with_literals}
    exec(compile(source, "/srv/shop/deep.py", "exec"), code)
    code[names[0]](seconds)


def _slow(made):
    attributes = {
        **REQUEST,
        "url.query": "token=s3cr3t",
        "url.full": "https://bob:hunter2@shop.example/orders/7?token=s3cr3t&page=2",
        "http.target": "/orders/7?token=s3cr3t",
        "http.request.header.authorization": ("Bearer eyJhbGciOiJIUzI1NiJ9",),
        "http.request.header.user_agent": ("curl",),
        "api_key": "s3cr3t",
        "note": "tried Basic c29tZWJvZHk6aHVudGVyMg== once",
        "gen_ai.usage.input_tokens": 12,
    }
    other = threading.Thread(target=a_line_with_literals, args=[SLOW_SECONDS], name="another-request")
    other.start()
    with made.request("GET /orders/<int:id>", kind=SpanKind.SERVER, attributes=attributes):
        deep(40, SLOW_SECONDS)
    other.join()


def _profiled(made):
    with made.request("GET /fast", kind=SpanKind.SERVER), made.tracer.start_as_current_span("rebuild"), profile():
        idle(0.015)


def _asked(made):
    with made.request("GET /odd", kind=SpanKind.SERVER), made.tracer.start_as_current_span("reserve"):
        assert snapshot()


def _interrupted(made):
    with (
        contextlib.suppress(RuntimeError),
        made.request("GET /report", kind=SpanKind.SERVER),
        timeout(LIMIT_SECONDS, RuntimeError("https://shop.example/?password=hunter2")),
    ):
        a_line_with_literals(SLOW_SECONDS)


def _not_enforced(made):
    overrun = Overrun(
        taken=time.time_ns(),
        capture=capture(outwards(sys._getframe(0))),
        limit_ms=10,
        elapsed_ms=20,
        mechanism="alarm",
        attempts=0,
        reason="it was in code that could not be interrupted",
        error_type=None,
    )
    with made.request("GET /stubborn", kind=SpanKind.SERVER), made.tracer.start_as_current_span("parse") as span:
        assert made.introspection.reporter.report_overrun(span, overrun)


def _failed(made):
    with contextlib.suppress(ValueError), made.request("POST /login", kind=SpanKind.SERVER):
        raise ValueError("Cookie: session=correct-horse; theme=dark")


def _fast(made):
    with made.request("GET /", kind=SpanKind.SERVER, attributes=REQUEST):
        pass


def _error_of_a_child(made):
    with made.request("GET /child", kind=SpanKind.SERVER), made.tracer.start_as_current_span("query") as span:
        span.set_status(Status(StatusCode.ERROR, "password=hunter2"))


MAKERS = {
    "slow": _slow,
    "profiled in code": _profiled,
    "snapshot in code": _asked,
    "interrupted": _interrupted,
    "not enforced": _not_enforced,
    "failed": _failed,
    "failed below": _error_of_a_child,
    "fast": _fast,
}

LABELS = [*MAKERS, "recovered"]


def _recovered(folder):
    directory = RecorderDirectory(str(folder))
    recorder = FlightRecorder(directory, lambda: {"service.name": "shop", "process.pid": 4711}, THRESHOLD_MS)
    assert recorder.open()
    recorder.begin(7, 7 << 64 | 7, 0, time.time_ns() - 10**9, 1, 1, 1, "GET /killed\0GET\0/killed")
    recorder.saw(7, capture(outwards(sys._getframe(0))), time.time_ns())
    recorder.forget()  # as a killed process would leave it
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "the living"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    Recovery(directory, EvidenceConfig(), ProviderOutlet(lambda: provider, provider.force_flush)).run()
    spans = exporter.get_finished_spans()
    provider.shutdown()
    return spans


def _is_whole(spans):
    """Whether a slow request has all that it can have."""
    events = [event for span in spans for event in span.events]
    return (
        any("otel_introspect.checkpoint" in span.attributes for span in spans)
        and any("otel_introspect.stack.frames" in event.attributes for event in events)
        and {"otel_introspect.threads", "otel_introspect.profile"} <= {event.name for event in events}
    )


@functools.cache
def every_trace():
    """The finished spans of each request, by what it shows; made once, in two seconds."""
    traces = {}
    with tempfile.TemporaryDirectory() as folder, running() as make_profiled:
        store = str(Path(folder) / "profiles")
        watchdog = {"threshold": THRESHOLD_MS, "checkpoint": "first", "all_threads": True}
        made = make_profiled(watchdog=watchdog, triggers=("slow", "request"), store=store)
        for label, make in MAKERS.items():
            for _ in range(PATIENCE):  # a machine that is busy may be late for a stack, and for the checkpoint
                made.exporter.clear()
                make(made)
                traces[label] = made.spans()
                if label != "slow" or _is_whole(traces[label]):
                    break
        activate(None)
        traces["recovered"] = _recovered(Path(folder) / "flight")
    return traces


def messages(*, with_locals=True):
    """Each trace as a request of OTLP."""
    encoded = {label: encode_spans(spans) for label, spans in every_trace().items()}
    if with_locals:
        for event in events_of(encoded["slow"]):
            if event.name == "otel_introspect.stack_snapshot":
                added = event.attributes.add(key=LOCALS)
                added.value.array_value.values.add(string_value="a_line_with_literals: password = 'hunter2'")
    return encoded


def spans_of(message):
    return [span for resource in message.resource_spans for scope in resource.scope_spans for span in scope.spans]


def events_of(message):
    return [event for span in spans_of(message) for event in span.events]


def as_log_records(message):
    """The same evidence as EVENTS=log sends it: each event is a log record with the span's ids."""
    request = ExportLogsServiceRequest()
    for resource_spans in message.resource_spans:
        resource_logs = request.resource_logs.add()
        resource_logs.resource.CopyFrom(resource_spans.resource)
        for scope_spans in resource_spans.scope_spans:
            scope_logs = resource_logs.scope_logs.add()
            scope_logs.scope.CopyFrom(scope_spans.scope)
            for span in scope_spans.spans:
                for event in span.events:
                    record = scope_logs.log_records.add(time_unix_nano=event.time_unix_nano)
                    if hasattr(record, "event_name"):  # not in the oldest OTLP that we support
                        record.event_name = event.name
                    record.trace_id, record.span_id = span.trace_id, span.span_id
                    record.severity_number, record.severity_text = 13, "WARN"
                    record.body.string_value = event.name
                    record.attributes.MergeFrom(event.attributes)
    return request
