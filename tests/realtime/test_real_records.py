"""Evidence as log records, under the launcher, in a receiver."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import Counter

import pytest
from conftest import UNWANTED
from log_receiver import LogReceiver
from services import BIN, GUNICORN, environment

pytestmark = pytest.mark.realtime

# Longer than any test: what comes before that was sent because of us.
LOGS = {
    "OTEL_PYTHON_INTROSPECT_EVENTS": "log",
    "OTEL_LOGS_EXPORTER": "otlp_proto_http",
    "OTEL_BLRP_SCHEDULE_DELAY": 60_000,
}
EVIDENCE = {"OTEL_PYTHON_INTROSPECT_WATCHDOG_ALL_THREADS": "true"}
PATH = "/slow?seconds=1"


@pytest.fixture(scope="module", name="log_receiver")
def _log_receiver():
    receiver = LogReceiver()

    yield receiver

    receiver.close()


@pytest.fixture(scope="module", name="logging_service")
def _logging_service(services, log_receiver):
    return services("gthread", **LOGS, **EVIDENCE, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=log_receiver.endpoint)


def complaints(log):
    return [line for line in log.splitlines() if any(each in line for each in UNWANTED)]


def test_the_same_evidence_joined_by_ids(services, logging_service, log_receiver):
    """
    In log mode each event of span mode comes as a record with the entry span's ids, while the span has its marks only.
    """
    twin = services("gthread", **EVIDENCE).ask(PATH)
    expected = Counter(each.name for each in twin.events)

    span = logging_service.ask(PATH)
    records = log_receiver.wait_for(lambda each: each.trace_id == span.trace_id, count=expected.total())

    assert len(expected) == 3
    assert Counter(each.name for each in records) == expected
    assert {(each.span_id, each.scope, each.flags & 1) for each in records} == {(span.span_id, "otel_introspect", 1)}
    assert span.events == []
    assert span.attributes["otel_introspect.slow"] is True
    assert span.attributes["otel_introspect.snapshots"] == len(twin.snapshots)
    keys = {each.name: set(each.attributes) for each in twin.events}
    for each in records:
        assert set(each.attributes) - {"otel_introspect.stack.frames"} == keys[each.name] - {
            "otel_introspect.stack.frames"
        }
        assert span.start <= each.time <= span.end + 0.1
        assert each.severity == ("INFO" if each.name == "otel_introspect.profile" else "WARN")
    assert any("in sleeping_helper\n" in each.attributes.get("code.stacktrace", "") for each in records)
    assert complaints(logging_service.log) == []


def test_a_record_comes_while_the_request_runs(logging_service, log_receiver):
    """
    A record leaves the process long before its request ends, whatever the exporter's batch is set to.
    """
    span = logging_service.ask("/slow?seconds=3")
    first = min(log_receiver.wait_for(lambda each: each.trace_id == span.trace_id), key=lambda each: each.came)

    assert first.came < span.end - 1


def test_what_comes_after_the_span_s_end(logging_service, log_receiver):
    """
    What is found out when the span has ended comes as a record of it all the same.
    """
    span = logging_service.ask("/late")
    (record,) = log_receiver.wait_for(lambda each: each.trace_id == span.trace_id)

    assert record.span_id == span.span_id
    assert record.time > span.end
    assert "in after_its_end\n" in record.attributes["code.stacktrace"]
    assert span.events == []


def test_a_silent_collector_of_logs_delays_no_request(services):
    """
    With a collector of logs that accepts and never answers slow requests take as long as they do, and spans arrive.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        service = services.start(
            "silent",
            command=[*GUNICORN, "-w", "1", "--threads", "8", "wsgi"],
            **LOGS,
            OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}/v1/logs",
        )
        try:
            for _ in range(2):
                began = time.monotonic()
                answers = service.get_all([PATH] * 8)
                took = time.monotonic() - began

                assert {each.status for each in answers} == {200}
                assert took < 5
            assert service.entry(answers[0].trace_id).slow
        finally:
            service.stop()
        assert complaints(service.log) == []


SCRIPT = """
import time
from opentelemetry import trace
with trace.get_tracer("job").start_as_current_span("job"):
    time.sleep(0.7)
"""


def test_a_script_that_ends_at_once(receiver, log_receiver):
    """
    What is found out just before the process ends leaves it, too.
    """
    launcher = BIN / "opentelemetry-instrument"
    if not launcher.exists():
        pytest.skip("opentelemetry-instrument is not installed beside this Python")
    environ = environment(
        **LOGS,
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=log_receiver.endpoint,
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.endpoint("script"),
    )
    done = subprocess.run(
        [str(launcher), sys.executable, "-c", SCRIPT],
        env=environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    (span,) = receiver.wait_for("script", lambda each: each.name == "job")
    records = log_receiver.wait_for(lambda each: each.trace_id == span.trace_id, count=3)
    assert Counter(each.name for each in records) == {
        "otel_introspect.stack_snapshot": 2,
        "otel_introspect.profile": 1,
    }
    assert (done.returncode, complaints(done.stderr)) == (0, [])


FORKING = """
import os, sys, time
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from otel_introspect import snapshot
from otel_introspect.instrumentation.introspect import IntrospectInstrumentor

class Writing:
    def export(self, batch):
        time.sleep(0.1)  # so that some still wait as the process forks
        for each in batch:
            os.write(1, b"%d %x %d\\n" % (os.getpid(), each.log_record.span_id, each.log_record.timestamp))

    def shutdown(self):
        pass

logs, traces = LoggerProvider(), TracerProvider()
logs.add_log_record_processor(BatchLogRecordProcessor(Writing()))
IntrospectInstrumentor().instrument(tracer_provider=traces, logger_provider=logs, events=["log"], recorder_dir="none")
children = []
for _ in range(5):
    with traces.get_tracer("job").start_as_current_span("job"):
        assert snapshot() and snapshot()
        child = os.fork()
        if not child:
            assert snapshot()
            traces.shutdown()
            logs.shutdown()
            os._exit(0)
        children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
traces.shutdown()
logs.shutdown()
"""


def test_forked_children_send_their_own_once():
    """
    Whatever waits as a process forks, parent and children send each record once.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert len({record for _, record in lines}) == len(lines) == 15
    assert len({pid for pid, _ in lines}) == 6
