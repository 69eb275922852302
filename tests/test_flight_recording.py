"""The flight recorder at work under the tracer provider: which spans it has, what it is told, and by whom."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from otel_introspect import faults
from otel_introspect.config import IntrospectConfig, ProfilerConfig, RecorderConfig, WatchdogConfig
from otel_introspect.engine.recorder_reading import read_record
from otel_introspect.introspection import Introspection
from otel_introspect.processors.watchdog import WatchdogSpanProcessor

PATIENCE = 30


@pytest.fixture(name="make")
def _make(tmp_path):
    made = []

    def make(directory=None, *, threshold=60_000, observers=("thread",), **given):
        config = IntrospectConfig(
            watchdog=WatchdogConfig(threshold=threshold, observers=observers, checkpoint="none"),
            profiler=ProfilerConfig(triggers=()),
            recorder=RecorderConfig(directory=str(directory or tmp_path / "flight")),
        )
        provider = TracerProvider(**given)
        introspection = Introspection(config, tracer_provider=provider)
        provider.add_span_processor(WatchdogSpanProcessor(introspection))
        introspection.tracer = provider.get_tracer(__name__)
        made.append((provider, introspection))
        return introspection

    yield make

    for provider, introspection in made:
        introspection.stop()
        provider.shutdown()


def spans_in(introspection):
    path = introspection.recorder.path
    return {} if path is None else {span.span_id: span for span in read_record(path, alive=True).spans}


def id_of(span):
    return span.get_span_context().span_id


def under(*, remote):
    context = SpanContext(trace_id=0xABC, span_id=0xDEF, is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(context))


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def test_an_entry_span(make):
    """
    It is there, with all that OpenTelemetry knows of it, from its start to its end.
    """
    introspection = make()
    attributes = {"http.request.method": "GET", "url.path": "/orders", "secret": "x"}
    span = introspection.tracer.start_span(
        "GET /orders", context=under(remote=True), kind=SpanKind.SERVER, attributes=attributes
    )
    (found,) = spans_in(introspection).values()
    span.end()

    assert (found.trace_id, found.span_id, found.parent_id) == (0xABC, id_of(span), 0xDEF)
    assert found.parent_is_remote
    assert (found.start, found.kind, found.name) == (span.start_time, SpanKind.SERVER.value, "GET /orders")
    assert found.attributes == {"http.request.method": "GET", "url.path": "/orders"}
    assert spans_in(introspection) == {}


def test_the_query_is_not_written_down(make):
    """
    Of a path in the old conventions' spelling only what stands before the query is kept.
    """
    introspection = make()
    span = introspection.tracer.start_span("GET", attributes={"http.method": "GET", "http.target": "/a?token=secret"})
    content = introspection.recorder.path.read_bytes()
    (found,) = spans_in(introspection).values()
    span.end()

    assert found.attributes == {"http.method": "GET", "http.target": "/a"}
    assert b"secret" not in content


@pytest.mark.parametrize("kind", ["child", "unsampled"])
def test_a_span_that_is_not_watched(make, kind):
    """
    Child spans and what is not sampled are not written down.
    """
    introspection = make(sampler=ALWAYS_OFF) if kind == "unsampled" else make()
    introspection.recorder.open()
    span = introspection.tracer.start_span("work", context=under(remote=kind == "unsampled"))
    found = spans_in(introspection)
    span.end()

    assert found == {}


def test_the_resource(make):
    """
    What the process is comes from the tracer provider.
    """
    introspection = make()
    introspection.recorder.open()
    resource = read_record(introspection.recorder.path).resource

    assert resource["telemetry.sdk.language"] == "python"


def test_what_is_left_out(make):
    """
    A span of which nothing is to be collected is struck out.
    """
    introspection = make()
    span = introspection.tracer.start_span("health")
    introspection.leave_out(id_of(span))

    assert spans_in(introspection) == {}
    span.end()


def test_switching_off(make, tmp_path):
    """
    When we are switched off the file goes, and spans that are open end as ever.
    """
    introspection = make()
    span = introspection.tracer.start_span("work")
    introspection.stop()
    span.end()

    assert list((tmp_path / "flight").iterdir()) == []
    assert faults.counts == {}


def test_none(make):
    """
    Set to ``none`` there is no recorder.
    """
    assert make("none").recorder is None


def test_where_a_request_is_after_a_second(make):
    """
    The introspector writes down where a request is that is a second old, whatever the threshold, and that it lives.
    """
    introspection = make()
    span = introspection.tracer.start_span("work", attributes={"http.route": "/<id>"})
    span.update_name("renamed")
    found = wait_until(lambda: next((each for each in spans_in(introspection).values() if each.stack), None))
    beat = read_record(introspection.recorder.path).beat
    span.end()

    assert found.name == "renamed"
    assert found.attributes["http.route"] == "/<id>"
    assert "test_where_a_request_is_after_a_second" in [frame.function for frame in found.stack.frames]
    assert beat is not None


def test_evidence(make):
    """
    What is put on a slow span is written down, too.
    """
    introspection = make(threshold=50)
    span = introspection.tracer.start_span("slow")
    found = wait_until(lambda: next((each for each in spans_in(introspection).values() if each.events), None))
    span.end()

    assert found.events[0].name == "otel_introspect.stack_snapshot"
    assert "test_evidence" in found.events[0].attributes["code.stacktrace"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX")
def test_what_the_alarm_sees(make, monkeypatch):
    """
    What only the handler of the POSIX signal sees is written down in it: nobody else may come to that.
    """
    introspection = make(threshold=50, observers=("thread", "signal"))
    monkeypatch.setattr(introspection.introspector, "_look", lambda: 60 * 10**9)  # as if it were kept from looking
    span = introspection.tracer.start_span("slow")
    found = wait_until(lambda: next((each for each in spans_in(introspection).values() if each.stack), None))
    span.end()

    assert found.stack.observer == "signal"
    assert "test_what_the_alarm_sees" in [frame.function for frame in found.stack.frames]


def test_a_forked_child(make):
    """
    A child has a file of its own, with what it begins and not what its parent has open.
    """
    introspection = make()
    span = introspection.tracer.start_span("the parent's")
    path = introspection.recorder.path
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            introspection.tracer.start_span("the child's")
            wait_until(lambda: introspection.recorder.path)
            mine = introspection.tracer.start_span("the child's second")
            found = spans_in(introspection)
            right = introspection.recorder.path != path and id_of(mine) in found and id_of(span) not in found
            os.write(write, b"right" if right else repr(found).encode())
            status = 0
        finally:
            introspection.recorder.close()
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)

    assert said == b"right"
    assert list(spans_in(introspection)) == [id_of(span)]
    span.end()


def test_a_directory_that_is_refused(make, tmp_path, caplog):
    """
    Without a recorder the span is watched and ends as ever, and one line says why.
    """
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    introspection = make(folder, threshold=50)
    for _ in range(3):
        with introspection.tracer.start_as_current_span("slow") as span:
            wait_until(lambda: span.events)

    assert span.events[0].name == "otel_introspect.stack_snapshot"
    assert len([each for each in caplog.records if "keeps no flight recorder" in each.getMessage()]) == 1


COSTS = """
import os, sys, time
from opentelemetry.sdk.trace import TracerProvider
from otel_introspect.config import IntrospectConfig, RecorderConfig
from otel_introspect.introspection import Introspection
from otel_introspect.processors.watchdog import WatchdogSpanProcessor
provider = TracerProvider()
config = IntrospectConfig(recorder=RecorderConfig(directory=sys.argv[1]))
introspection = Introspection(config, tracer_provider=provider)
provider.add_span_processor(WatchdogSpanProcessor(introspection))
tracer = provider.get_tracer("costs")

def request():
    tracer.start_span("GET /", attributes={"http.request.method": "GET", "url.path": "/"}).end()

request()
os.path.exists("/begin")
for _ in range(10_000):
    request()
os.path.exists("/end")
print(introspection.recorder.path, flush=True)
introspection.stop()
"""


@pytest.mark.realtime
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_ten_thousand_requests_make_no_system_call(tmp_path):
    """
    As the kernel sees it, the thread that serves 10,000 requests asks it for nothing meanwhile.
    """
    log = tmp_path / "calls"
    # A file for each thread, as only the one that serves is to make none.
    command = ["strace", "-ff", "-o", str(log), sys.executable, "-c", COSTS, str(tmp_path / "flight")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip("nobody may trace here")
    assert done.stdout.strip().endswith(".flight"), done.stderr
    (calls,) = [text for text in (each.read_text() for each in tmp_path.glob("calls.*")) if '"/begin"' in text]
    between = calls.partition('"/begin"')[2].partition('"/end"')[0].splitlines()[1:-1]

    # Other threads make it wait for the GIL now and then, and objects need memory, with us or without.
    anybody_s = ("futex", "sched_yield", "---", "brk", "mmap(NULL", "munmap", "madvise")
    assert [line for line in between if not line.startswith(anybody_s)] == []
    assert len(between) < 1000
