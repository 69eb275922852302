"""What is left of requests that run while their process ends in an orderly way."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from services import BIN, ERROR, GUNICORN, SERVER, environment
from test_real_servers import bare

pytestmark = pytest.mark.realtime

# Longer than any test: what comes was sent because of us, or as the process exited.
UNHURRIED = {"OTEL_BSP_SCHEDULE_DELAY": 60_000}
UNWANTED = ("otel_introspect failed", "ended span", "Fatal Python error", "Exception in thread")

SCRIPT = """
import os, signal, sys, threading, time
from opentelemetry import trace

tracer = trace.get_tracer("script")

def stuck_in_here():
    time.sleep(60)

def request(name, work=stuck_in_here):
    with tracer.start_as_current_span(name, kind=trace.SpanKind.SERVER):
        work()

def in_background(name, work=stuck_in_here):
    threading.Thread(target=request, args=(name, work), daemon=True).start()
    time.sleep(0.3)

"""


@pytest.fixture(name="run")
def _run(receiver, tmp_path):
    """Runs a script to its end under the launcher; returns its exit status, its words and its spans."""

    def run(code, endpoint=None, **environ):
        name = f"exit-{time.monotonic_ns()}"
        path = tmp_path / "script.py"
        path.write_text(SCRIPT + textwrap.dedent(code), encoding="utf-8")
        done = subprocess.run(
            [str(BIN / "opentelemetry-instrument"), sys.executable, str(path)],
            env=environment(
                OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=endpoint or receiver.endpoint(name),
                DJANGO_SETTINGS_MODULE=None,
                OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="django",
                **{**UNHURRIED, **environ},
            ),
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        said = done.stdout + done.stderr
        assert [line for line in said.splitlines() if any(each in line for each in UNWANTED)] == []
        return done.returncode, said, receiver.spans(name)

    return run


def assert_cut_off(span, function):
    """It says that it ended with its process, and where it was."""
    assert span.status == ERROR
    assert span.attributes["error.type"] == "ProcessEnded"
    assert span.attributes["otel_introspect.interrupted"] is True
    assert span.types["otel_introspect.interrupted"] == "bool"
    event = span.snapshots[-1]
    assert bare(event.attributes["code.function.name"]) == function
    return event


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise SystemExit('enough')", "raise LookupError"])
def test_the_interpreter_exits(run, end):
    """
    A request in a daemon thread has its span, with the stack that it was in, however the main thread comes to its end.
    """
    status, _, spans = run(f"in_background('GET /daemon')\n{end}")

    assert status == {"": 0, "sys.exit(3)": 3}.get(end, 1)
    (span,) = spans
    assert span.name == "GET /daemon"
    assert_cut_off(span, "stuck_in_here")


def test_many_at_once(run):
    """
    Each of a hundred requests has its span, once.
    """
    _, _, spans = run("for number in range(100): in_background(f'GET /{number}') if number == 99 else "
                      "threading.Thread(target=request, args=(f'GET /{number}',), daemon=True).start()")  # fmt: skip

    assert sorted(span.name for span in spans) == sorted(f"GET /{number}" for number in range(100))
    assert {span.attributes["error.type"] for span in spans} == {"ProcessEnded"}


def test_a_signal_handler_that_exits(run):
    """
    SIGTERM that the application turns into SystemExit is an orderly end.
    """
    status, _, spans = run("""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
        in_background("GET /daemon")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    """)

    assert status == 4
    (span,) = spans
    assert_cut_off(span, "stuck_in_here")


def test_threads_that_are_waited_for_end_by_themselves(run):
    """
    The interpreter waits for threads that are no daemons: what they do is not cut off, and their spans are as always.
    """
    _, _, spans = run("""
        threading.Thread(target=request, args=("GET /worker", lambda: time.sleep(1))).start()
        time.sleep(0.2)
    """)

    (span,) = [each for each in spans if each.name == "GET /worker"]
    assert span.status != ERROR
    assert "otel_introspect.interrupted" not in span.attributes


def test_a_request_that_goes_on_after_its_end_was_written(run):
    """
    A thread that comes to the end of its request while the process exits does not end the span again.
    """
    _, said, spans = run("""
        import atexit
        in_background("GET /daemon", lambda: time.sleep(0.8))
        atexit.unregister(trace.get_tracer_provider().shutdown)
        from otel_introspect.instrumentation import exits
        exits._at_exit()
        time.sleep(1)
        trace.get_tracer_provider().force_flush()
    """)

    (span,) = spans
    assert_cut_off(span, "<lambda>")
    assert "ended span" not in said


def test_a_forked_child_leaves_its_parent_s_spans_alone(run):
    """
    The span of a request in which a child was forked is sent once, by the parent, as it really ended.
    """
    _, _, spans = run("""
        def fork():
            pid = os.fork()
            if pid == 0:
                try:
                    sys.exit(0)
                except SystemExit:
                    import atexit
                    atexit._run_exitfuncs()
                    os._exit(0)
            os.waitpid(pid, 0)

        request("GET /forking", fork)
    """)

    (span,) = spans
    assert "otel_introspect.interrupted" not in span.attributes


def test_an_exit_without_open_spans(run):
    """
    A process that has nothing open ends as it would without us.
    """
    status, said, spans = run("request('GET /done', lambda: None)")

    assert (status, len(spans)) == (0, 1)
    assert spans[0].status != ERROR
    assert "introspect" not in said


def test_a_collector_that_never_answers(run):
    """
    Our part of the exit is bounded: the process ends without us as late as with us, a few seconds apart.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        code = """
            in_background("GET /daemon")
            from otel_introspect.instrumentation import exits
            began = time.monotonic()
            exits._at_exit()
            print("took", time.monotonic() - began, flush=True)
            os._exit(0)
        """

        _, said, _ = run(code, endpoint)

    (took,) = [float(line.split()[1]) for line in said.splitlines() if line.startswith("took")]
    assert took < 8


# --- Servers --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def asked(service, path):
    """Asks for *path* and does not wait for the answer; gives the trace id once the request has begun."""
    trace_id = f"{time.monotonic_ns():032x}"
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=10)
    with connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\ntraceparent: 00-{trace_id}-00f067aa0ba902b7-01\r\n\r\n".encode()
        )
        time.sleep(0.8)
        yield trace_id


def assert_nobody_complained(service):
    assert [line for line in service.log.splitlines() if any(each in line for each in UNWANTED)] == []


def ended_by(services, name, command, path, posix_signals, **environ):
    """The entry span of a request that is running while the server is told to end; the server, ended."""
    service = services.start(name, command=command, **{**UNHURRIED, **environ})
    try:
        with asked(service, path) as trace_id:
            for each in posix_signals:
                service.process.send_signal(each)
                time.sleep(0.5)
            service.process.wait(30)
        return service.entry(trace_id)
    finally:
        service.stop()
        assert_nobody_complained(service)


UVICORN = ["uvicorn", "--port", "{port}", "--timeout-graceful-shutdown", "1"]


@pytest.mark.parametrize("posix_signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)], ids=["term", "forced"])
def test_uvicorn_with_a_request_that_does_not_end(services, posix_signals):
    """
    A request that outlives uvicorn's grace has its span, although uvicorn then dies of the signal.
    """
    span = ended_by(services, "uvicorn", [*UVICORN, "exits_asgi:application"], "/clinging", posix_signals)

    event = assert_cut_off(span, "clings_to_life")
    assert event.attributes["otel_introspect.task.state"] == "awaiting"


def test_uvicorn_with_a_request_that_is_cancelled(services):
    """
    A request that uvicorn cancels has its span as well, which its own code has ended.
    """
    span = ended_by(services, "uvicorn", [*UVICORN, "exits_asgi:application"], "/parked", [signal.SIGTERM])

    assert span.end - span.start < 10


@pytest.mark.parametrize("posix_signal", [signal.SIGQUIT, signal.SIGINT])
@pytest.mark.parametrize("way", ["stuck_in_sleep", "stuck_in_a_lock"])
def test_a_gunicorn_worker_that_is_told_to_quit(services, posix_signal, way):
    """
    The request that a worker leaves in the middle says so, and where.
    """
    command = [*GUNICORN, "-w", "1", "stuck_plain"]

    span = ended_by(services, "quit", command, f"/{way}", [posix_signal])

    assert_cut_off(span, way)


def test_gunicorn_s_grace_is_over(services):
    """
    A request that outlives gunicorn's grace has its span before its worker is killed.
    """
    command = [*GUNICORN, "-w", "1", "stuck_plain"]

    span = ended_by(services, "grace", command, "/stuck_in_sleep", [signal.SIGTERM])

    assert_cut_off(span, "stuck_in_sleep")


def test_the_grace_of_threads_is_over(services):
    """
    So has each of those that run in a worker's threads.
    """
    command = [*GUNICORN, "-w", "1", "--threads", "4", "stuck_plain"]

    span = ended_by(services, "grace-gthread", command, "/stuck_in_sleep", [signal.SIGTERM])

    assert_cut_off(span, "stuck_in_sleep")


def test_a_request_that_ends_within_the_grace(services):
    """
    A worker that finishes its request in time sends its span as always.
    """
    command = [*GUNICORN, "-w", "1", "wsgi"]

    span = ended_by(services, "graceful", command, "/slow?seconds=1.5", [signal.SIGTERM])

    assert "otel_introspect.interrupted" not in span.attributes
    assert span.status != ERROR


def test_max_requests(services):
    """
    A worker that gunicorn recycles sends all of its spans.
    """
    service = services.start(
        "recycled", command=[*GUNICORN, "-w", "1", "--max-requests", "3", "stuck_plain"], **UNHURRIED
    )
    try:
        asked_for = []
        for _ in range(9):
            for _ in range(50):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    asked_for.append(service.get("/fast").trace_id)
                    break
                time.sleep(0.1)
        service.process.terminate()
        service.process.wait(20)
        spans = service.all_spans(lambda span: span.trace_id in asked_for and span.kind == SERVER, count=9)
        assert sorted(span.trace_id for span in spans) == sorted(asked_for)
    finally:
        service.stop()
        assert_nobody_complained(service)
