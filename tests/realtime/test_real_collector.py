"""The evidence through real collectors: rotel, and otelcol-contrib with the files of collector_config."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from collector_files import COLLECTORS, ROOT, collector
from every_evidence import LABELS, as_log_records, messages, spans_of
from http_receiver import HttpReceiver
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from ottl_model import transform
from sampling_model import matching
from services import free_port

pytestmark = pytest.mark.realtime

PATIENCE = 20
OTELCOL = shutil.which("otelcol-contrib")
needs_otelcol = pytest.mark.skipif(
    OTELCOL is None, reason="needs otelcol-contrib with all of its components: put it on PATH"
)
TYPES = {"/v1/traces": ExportTraceServiceRequest, "/v1/logs": ExportLogsServiceRequest}


class Backend(HttpReceiver):
    """Keeps every message."""

    def __init__(self):
        self.messages = []
        super().__init__(server=ThreadingHTTPServer)

    def keep(self, path, body):
        self.messages.append(TYPES[path].FromString(body))

    def wait_for(self, count, items):
        """What *items* finds in all messages, as soon as that are *count*."""
        return self.wait_until(lambda: [each for message in self.messages for each in items(message)], count, PATIENCE)


@pytest.fixture(name="backend")
def _backend():
    backend = Backend()
    yield backend
    backend.close()


@contextlib.contextmanager
def running(command, port, log, **environ):
    """A collector that listens on *port*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "ROTEL_"))}
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, env={**kept, **environ}, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def send(port, message):
    path = next(path for path, kind in TYPES.items() if isinstance(message, kind))
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", message.SerializeToString(), {"Content-Type": "application/x-protobuf"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 200


def spans(message):
    """Each span with its resource and scope, as bytes."""
    return [
        b"\0".join(part.SerializeToString(deterministic=True) for part in (resource.resource, scope.scope, span))
        for resource in getattr(message, "resource_spans", ())
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def records(message):
    """Each log record with its resource and scope, as bytes."""
    return [
        b"\0".join(part.SerializeToString(deterministic=True) for part in (resource.resource, scope.scope, record))
        for resource in getattr(message, "resource_logs", ())
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def test_everything_arrives_whole_through_rotel(backend, tmp_path):
    """
    Every span with every kind of evidence, and the same as log records, comes out byte by byte as it went in.
    """
    rotel = pytest.importorskip("rotel")
    agent = Path(rotel.__file__).parent / "rotel-agent"
    # It is linked against Python's shared library, which is not always where the system looks for it.
    library = {"LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR")}
    tried = subprocess.run([str(agent), "--version"], env=library, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"rotel can't be started here: {tried.stderr.strip()}")
    port, grpc = free_port(), free_port()
    sent = messages()
    command = [
        str(agent),
        "start",
        f"--otlp-http-endpoint=127.0.0.1:{port}",
        f"--otlp-grpc-endpoint=127.0.0.1:{grpc}",
        "--exporter=otlp",
        "--otlp-exporter-protocol=http",
        f"--otlp-exporter-endpoint={backend.url}",
    ]

    with running(command, port, tmp_path / "rotel.log", **library):
        for message in sent.values():
            send(port, message)
            send(port, as_log_records(message))
        expected = sorted(each for message in sent.values() for each in spans(message))
        logged = sorted(each for message in sent.values() for each in records(as_log_records(message)))
        came = backend.wait_for(len(expected), spans)
        came_logged = backend.wait_for(len(logged), records)

    assert sorted(came) == expected
    assert sorted(came_logged) == logged
    assert len(expected) > len(LABELS)


@needs_otelcol
@pytest.mark.parametrize("name", COLLECTORS)
def test_otelcol_takes_the_file(name):
    """
    The collector itself finds nothing wrong with the file.
    """
    ran = subprocess.run(
        [OTELCOL, "validate", f"--config={ROOT / name}"], capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.returncode == 0, ran.stderr


def otelcol(name, backend, port, **override):
    """A command that runs the file and has it send to *backend*, with what *override* says, and its environment."""
    given = {
        "exporters::otlp_http/test::endpoint": backend.url,
        "exporters::otlp_http/test::encoding": "proto",
        "service::telemetry::metrics::level": "none",
        **override,
    }
    for pipeline in collector(name)["service"]["pipelines"]:
        given[f"service::pipelines::{pipeline}::exporters"] = "[otlp_http/test]"
    environ = {"OTLP_HTTP_ENDPOINT": f"127.0.0.1:{port}", "OTLP_GRPC_ENDPOINT": f"127.0.0.1:{free_port()}"}
    configs = [f"--config=yaml:{key}: {value}" for key, value in given.items()]
    return [OTELCOL, f"--config={ROOT / name}", *configs], environ


@needs_otelcol
@pytest.mark.parametrize("name", ["otelcol.yaml", "otelcol-scale/agent.yaml"])
def test_otelcol_passes_everything_on(name, backend, tmp_path):
    """
    What decides nothing passes on every span and every log record, byte by byte.
    """
    port = free_port()
    command, environ = otelcol(name, backend, port)
    sent = messages()

    with running(command, port, tmp_path / "otelcol.log", **environ):
        for message in sent.values():
            send(port, message)
            send(port, as_log_records(message))
        expected = sorted(each for message in sent.values() for each in spans(message))
        logged = sorted(each for message in sent.values() for each in records(as_log_records(message)))
        came = backend.wait_for(len(expected), spans)
        came_logged = backend.wait_for(len(logged), records)

    assert (sorted(came), sorted(came_logged)) == (expected, logged)


@needs_otelcol
def test_otelcol_redacts_as_the_model_says(backend, tmp_path):
    """
    The real transform processor makes of every span and log record what our model of it makes of them.
    """
    port = free_port()
    name = "otelcol-redaction.yaml"
    command, environ = otelcol(name, backend, port)
    sent = [each for message in messages().values() for each in (message, as_log_records(message))]

    with running(command, port, tmp_path / "otelcol.log", **environ):
        for message in sent:
            send(port, message)
        for message in sent:
            transform(collector(name)["processors"]["transform/redact"], message)
        expected = sorted(each for message in sent for each in (*spans(message), *records(message)))
        came = backend.wait_for(len(expected), lambda message: [*spans(message), *records(message)])

    assert sorted(came) == expected


@needs_otelcol
def test_otelcol_samples_as_the_model_says(backend, tmp_path):
    """
    The real tail_sampling processor keeps the traces that our model keeps, and drops the fast one.
    """
    port = free_port()
    name = "otelcol-tail-sampling.yaml"
    command, environ = otelcol(name, backend, port, **{"processors::tail_sampling::decision_wait": "1s"})
    environ["KEEP_PERCENT"] = "0"
    policies = collector(name)["processors"]["tail_sampling"]["policies"]
    sent = messages()
    kept = [message for message in sent.values() if matching(policies, message)]
    assert len(kept) == len(sent) - 1

    with running(command, port, tmp_path / "otelcol.log", **environ):
        for message in sent.values():
            send(port, message)
        expected = sorted(span.span_id for message in kept for span in spans_of(message))
        came = backend.wait_for(len(expected), lambda message: [span.span_id for span in spans_of(message)])
        time.sleep(1)

    assert sorted(came) == expected
