"""Spans from the SDK and from OTLP JSON are the same plain data."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from otel_introspect.exporters.span_view import from_otlp_json, from_readable_span


@pytest.fixture(name="finished")
def _finished():
    """A remote parent's child and its own child, as the SDK exports them."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    remote = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    with tracer.start_as_current_span("GET /", context=set_span_in_context(remote), kind=SpanKind.SERVER) as span:
        span.set_attributes({"otel_introspect.slow": True, "n": 7, "f": 0.5, "names": ["a", "b"]})
        span.add_event("happened", {"otel_introspect.elapsed_ms": 500, "ok": True})
        span.set_status(Status(StatusCode.ERROR, "boom"))
        tracer.start_span("child").end()
    provider.shutdown()
    return exporter.get_finished_spans()


def test_otlp_json_gives_what_the_sdk_gives(finished):
    """
    A span read from OTLP JSON equals the same span read from the SDK's object.
    """
    pytest.importorskip("opentelemetry.exporter.otlp.json.common", reason="this OpenTelemetry has no OTLP JSON yet")
    from opentelemetry.exporter.otlp.json.common.trace_encoder import encode_spans

    request = json.loads(json.dumps(encode_spans(finished).to_dict()))

    assert from_otlp_json(request) == [from_readable_span(span) for span in finished]


def test_protobuf_made_json_by_the_demo_gives_the_same(finished):
    """
    What the demo writes to its file reads the same as well: hexadecimal ids, numbers for enumerations.
    """
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    from otel_introspect.demo.receiver import otlp_json

    request = json.loads(json.dumps(otlp_json(encode_spans(finished).SerializeToString())))

    assert from_otlp_json(request) == [from_readable_span(span) for span in finished]
    span = request["resourceSpans"][0]["scopeSpans"][0]["spans"][1]
    assert span["traceId"] == f"{1:032x}"
    assert span["parentSpanId"] == f"{2:016x}"
    assert span["kind"] == 2


def test_entry_spans_are_told_from_their_children(finished):
    """
    A span with a remote parent is an entry span, its child is not.
    """
    child, entry = map(from_readable_span, finished)

    assert (entry.entry, child.entry) == (True, False)
    assert (entry.slow, child.slow) == (True, False)
    assert entry.service == "shop"


def test_without_flags_the_kind_tells_an_entry_span():
    """
    A sender that leaves the flags out is understood by the kind of its spans.
    """
    spans = [{"spanId": "a", "parentSpanId": "b", "kind": kind} for kind in (2, "SPAN_KIND_CONSUMER", 3, 1)]

    views = from_otlp_json({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})

    assert [view.entry for view in views] == [True, True, False, False]


@pytest.mark.parametrize(
    "request_", [{}, [], None, "x", 7, {"resourceSpans": [7]}, {"resourceSpans": 7}, {"resourceMetrics": []}]
)
def test_what_is_no_trace_request_is_refused(request_):
    """
    Anything that is not an ExportTraceServiceRequest is a ValueError, never another exception.
    """
    with pytest.raises(ValueError, match="not an OTLP JSON trace request"):
        from_otlp_json(request_)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "resourceSpans",
                    "scopeSpans",
                    "spans",
                    "attributes",
                    "key",
                    "value",
                    "events",
                    "name",
                    "kind",
                    "flags",
                    "status",
                    "code",
                    "intValue",
                    "arrayValue",
                    "values",
                    "timeUnixNano",
                    "startTimeUnixNano",
                    "traceId",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(JSON)
def test_no_json_is_worse_than_a_value_error(content):
    """
    Whatever JSON a file has in a line, reading it gives spans or a ValueError.
    """
    try:
        from_otlp_json({"resourceSpans": content})
        from_otlp_json({"resourceSpans": [{"scopeSpans": [{"spans": [content]}]}]})
    except ValueError:
        pass
