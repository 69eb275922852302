"""``otel-introspect recover``: what it sends by the ordinary variables, what it says, and its exit status."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_introspect.engine import recorder_layout
from otel_introspect.engine.flight_recorder import FlightRecorder
from otel_introspect.engine.recorder_directory import RecorderDirectory

pytestmark = pytest.mark.realtime

PATIENCE = 60


class Collector:
    """Takes traces by OTLP over HTTP; answers with *status*."""

    def __init__(self):
        self.status = 200
        self.spans = []
        self.records = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                if self.path.endswith("/v1/logs"):
                    collector.take_records(ExportLogsServiceRequest.FromString(body))
                elif collector.status == 200:
                    collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def take(self, message):
        for resource in message.resource_spans:
            attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(attributes["service.name"], span.span_id.hex(), span.name) for span in scope.spans]

    def take_records(self, message):
        for resource in message.resource_logs:
            attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_logs:
                self.records += [(attributes["service.name"], each.span_id.hex()) for each in scope.log_records]

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(name="collector")
def _collector():
    collector = Collector()

    yield collector

    collector.close()


@pytest.fixture(name="folder")
def _folder(tmp_path):
    return tmp_path / "flight"


@pytest.fixture(name="die")
def _die(folder):
    """Leaves the file of a process that had these spans open."""

    def die(*keys, service="shop"):
        recorder = FlightRecorder(RecorderDirectory(str(folder)), lambda: {"service.name": service}, 1000)
        recorder.open()
        for key in keys:
            recorder.begin(
                key,
                key << 64 | key,
                0,
                time.time_ns() - 3_000_000_000,
                1,
                1,
                recorder_layout.STABLE_NAMES,
                f"GET /{key}\0GET\0/{key}",
            )
            recorder.add_event(key, "otel_introspect.stack_snapshot", {"code.stacktrace": "..."}, time.time_ns())
        path = recorder.path
        recorder.forget()
        return path

    return die


def environment(collector, **more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return {
        **{name: value for name, value in kept.items() if not name.lower().endswith("_proxy")},
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        **more,
    }


COMMAND = [sys.executable, "-c", "from otel_introspect.cli import main; main()", "recover"]


@pytest.fixture(name="recover")
def _recover(collector, folder):
    """Runs the command to its end."""

    def recover(*arguments, **environ):
        return subprocess.run(
            [*COMMAND, "--dir", str(folder), *arguments],
            env=environment(collector, **environ),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return recover


def test_evidence_goes_where_it_is_to_go(recover, collector, die):
    """
    With EVENTS=log the evidence of dead processes goes to the exporter of log records, as from their own process.
    """
    die(1, 2)

    done = recover(OTEL_PYTHON_INTROSPECT_EVENTS="log")

    assert (done.returncode, done.stderr) == (0, "")
    assert len(collector.spans) == 2
    assert sorted(collector.records) == [("shop", f"{1:016x}"), ("shop", f"{2:016x}")]


def test_it_sends_them_and_says_which(recover, collector, die, folder):
    """
    The requests of all dead processes go to the exporter of the environment, and the command names them.
    """
    die(1, 2)
    die(3, service="bank")

    done = recover()

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(collector.spans) == [
        ("bank", f"{3:016x}", "GET /3"),
        ("shop", f"{1:016x}", "GET /1"),
        ("shop", f"{2:016x}", "GET /2"),
    ]
    assert f"pid {os.getpid()} of shop: sent 2 requests\n" in done.stdout
    assert f"pid {os.getpid()} of bank: sent 1 request\n" in done.stdout
    assert f"  {1 << 64 | 1:032x}       0.0 s  GET /1\n" in done.stdout or "3.0 s  GET /1\n" in done.stdout
    assert list(folder.iterdir()) == []


def test_nothing_to_recover(recover, collector, folder):
    """
    Where nothing was left, or nothing ever recorded, that is said, and it is no failure.
    """
    first = recover()
    folder.mkdir(mode=0o700)
    second = recover()

    assert (first.returncode, first.stdout) == (0, f"Nothing to recover in {folder}.\n")
    assert (second.returncode, second.stdout) == (0, f"Nothing to recover in {folder}.\n")
    assert collector.spans == []


def test_as_json(recover, die):
    """
    A script gets one JSON object for each dead process.
    """
    die(1)

    done = recover("--json")
    (line,) = done.stdout.splitlines()
    said = json.loads(line)
    (request,) = said["requests"]

    assert (said["pid"], said["service"], said["sent"]) == (os.getpid(), "shop", True)
    assert (request["trace_id"], request["span_id"]) == (f"{1 << 64 | 1:032x}", f"{1:016x}")
    assert request["name"] == "GET /1"
    assert type(request["start"]) is float
    assert type(request["seconds"]) is float


def test_what_can_t_be_sent_stays(recover, collector, die, folder):
    """
    Where the collector does not take them the command says so, ends with 1 and keeps the files for the next.
    """
    die(1)
    collector.status = 400

    failed = recover()
    left = len(list(folder.iterdir()))
    collector.status = 200
    done = recover()

    assert failed.returncode == 1
    assert f"pid {os.getpid()} of shop: 1 request could not be sent, and stay where they are" in failed.stderr
    assert left == 1
    assert done.returncode == 0
    assert [span_id for _, span_id, _ in collector.spans] == [f"{1:016x}"]


def test_unreadable_files(recover, collector, die, folder):
    """
    A file that can't be read is named, and the others are sent.
    """
    die(1)
    die(2).write_bytes(b"no record")

    done = recover("--json")

    assert [span_id for _, span_id, _ in collector.spans] == [f"{1:016x}"]
    refused = [each for each in map(json.loads, done.stdout.splitlines()) if "refused" in each]
    assert ["no flight recorder's file" in each["refused"] for each in refused] == [True]
    assert "no flight recorder's file" in done.stderr
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        pytest.param({"OTEL_TRACES_EXPORTER": "none"}, "There is no exporter to send to", id="none"),
        pytest.param({"OTEL_TRACES_EXPORTER": "no_such"}, "The exporter can't be set up", id="unknown"),
        pytest.param({"OTEL_SDK_DISABLED": "true"}, "switched off", id="disabled"),
    ],
)
def test_without_an_exporter(recover, die, environ, why):
    """
    Without an exporter the command says what is missing, without a traceback, and nothing is lost.
    """
    path = die(1)

    done = recover(**environ)

    assert done.returncode == 1
    assert why in done.stderr
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert path.exists()


def test_a_directory_that_is_not_private(recover, die, folder):
    """
    A directory that others may write to is refused, with the reason.
    """
    die(1)
    folder.chmod(0o777)

    done = recover()

    assert done.returncode == 1
    assert "can be written by other users" in done.stderr


def test_the_recorder_is_off(collector):
    """
    Where the environment says that there is no recorder, a directory has to be named.
    """
    done = subprocess.run(
        COMMAND,
        env=environment(collector, OTEL_PYTHON_INTROSPECT_RECORDER_DIR="none"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 1
    assert "--dir" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_following(collector, die, folder, number):
    """
    With --follow it sends what dies from now on, also into a directory that is not there yet, until it is told to end.
    """
    process = subprocess.Popen(
        [*COMMAND, "--dir", str(folder), "--follow"],
        env=environment(collector),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for key in (1, 2):
            die(key)
            assert process.stdout.readline() == f"pid {os.getpid()} of shop: sent 1 request\n"
            assert process.stdout.readline().endswith(f"GET /{key}\n")
        process.send_signal(number)
        out, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()

    assert (process.returncode, out, errors) == (0, "", "")
    assert [name for _, _, name in collector.spans] == ["GET /1", "GET /2"]


def test_under_the_launcher(collector, die, folder):
    """
    Started by the launcher itself it takes what that has set up, and nothing is sent twice.
    """
    die(1)
    launcher = "from opentelemetry.instrumentation.auto_instrumentation import initialize; initialize()"
    code = f"{launcher}; from otel_introspect.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "recover", "--dir", str(folder)],
        env=environment(
            collector,
            OTEL_PYTHON_INTROSPECT_RECORDER_DIR=str(folder),
            OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="django",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "sent 1 request" in done.stdout
    assert len(collector.spans) == 1
