"""A receiver's counterpart, and the environment a demo is run in."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from otel_introspect import faults


@pytest.fixture(autouse=True)
def _counts_of_this_test_only():
    faults.forget()
    yield
    faults.forget()


@pytest.fixture(name="body")
def _body():
    """An ExportTraceServiceRequest in protobuf."""
    span = Span(trace_id=b"\xab" * 16, span_id=b"\x01" * 8, name="GET /", kind=Span.SPAN_KIND_SERVER)
    scope_spans = ScopeSpans(spans=[span])
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[scope_spans])]).SerializeToString()


class Collector:
    """Somebody who takes traces over HTTP; remembers path, headers and body of what came."""

    def __init__(self, status=200):
        self.came = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.came.append((self.path, dict(self.headers), body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture(name="make_collector")
def _make_collector():
    made = []

    def make_collector(status=200):
        made.append(Collector(status))
        return made[-1]

    yield make_collector

    for each in made:
        each.close()
