"""What is left of a request when gunicorn gives up on its worker, or is told to end."""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from services import ERROR, GUNICORN
from test_real_servers import bare

pytestmark = pytest.mark.realtime

TIMEOUT = 2
# Longer than any test: what comes was sent because of us, or as the process exited.
UNHURRIED = {"OTEL_BSP_SCHEDULE_DELAY": 60_000}
UNWANTED = ("otel_introspect failed", "ended span", "Fatal Python error", "Exception in thread")
WAYS = ["stuck_in_sleep", "stuck_in_a_lock", "stuck_in_a_regex", "stuck_in_recv"]


def gunicorn(*options, workers=1):
    return [*GUNICORN, "-w", str(workers), "--timeout", str(TIMEOUT), *options]


def assert_nobody_complained(service):
    assert [line for line in service.log.splitlines() if any(each in line for each in UNWANTED)] == []


def assert_given_up_on(span):
    """It says that it was interrupted, by whom and where; returns the event that does."""
    assert span.status == ERROR
    assert span.attributes["error.type"] == "WorkerAborted"
    assert span.attributes["otel_introspect.interrupted"] is True
    assert span.types["otel_introspect.interrupted"] == "bool"
    assert TIMEOUT <= span.end - span.start < TIMEOUT + 3
    # The alarm may have looked before, at what keeps the GIL.
    return [each for each in span.snapshots if each.attributes["otel_introspect.observer"] == "signal"][-1]


@pytest.fixture(name="stuck", scope="module", params=["django", "plain"])
def _stuck(request, services):
    if request.param == "django":
        service = services.start(
            "stuck-django", command=gunicorn("wsgi"), **UNHURRIED, DJANGO_SETTINGS_MODULE="stuck_settings"
        )
    else:
        service = services.start("stuck-plain", command=gunicorn("stuck_plain"), **UNHURRIED)

    yield service

    service.stop()
    assert_nobody_complained(service)


@pytest.mark.parametrize("way", WAYS)
def test_a_request_that_gunicorn_gives_up_on(stuck, way):
    """
    Its span arrives, with the stack of where it was stuck, through the SDK's own batches, and no hook of the user's.
    """
    span = stuck.ask(f"/{way}")

    event = assert_given_up_on(span)
    assert bare(event.attributes["code.function.name"]) == way
    assert event.attributes["code.file.path"].endswith("/project/stuck.py")
    assert f"in {way}\n" in event.stack
    assert "handle_abort" not in event.stack
    assert event.attributes["otel_introspect.elapsed_ms"] >= 1000 * TIMEOUT


def test_a_lock_that_the_interrupted_code_holds(stuck):
    """
    A request that is stuck while it holds its own span's lock ends with its evidence, and its worker does not hang.
    """
    span = stuck.entry(stuck.hang_up("/stuck_in_the_span", after=TIMEOUT + 2))

    event = assert_given_up_on(span)
    assert bare(event.attributes["code.function.name"]) == "stuck_in_the_span"


HOOKS = """
import atexit, os

def note(what):
    with open({notes!r}, "a") as notes:
        notes.write(what + "\\n")

def post_worker_init(worker):
    atexit.register(note, "atexit")

def worker_abort(worker):
    note("worker_abort " + str(worker.pid == os.getpid()))
    {more}

def worker_exit(server, worker):
    note("worker_exit " + str(worker.pid == os.getpid()))
"""


@pytest.fixture(name="with_hooks")
def _with_hooks(services, tmp_path):
    """A service whose configuration has hooks that take notes, and what they have noted once all are there."""
    started = []
    notes = tmp_path / "notes"
    notes.touch()

    def noted(*wanted):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and set(notes.read_text().splitlines()).isdisjoint(wanted[-1:]):
            time.sleep(0.05)
        return notes.read_text().splitlines()[: len(wanted)]

    def with_hooks(more="pass", **environ):
        configuration = tmp_path / "gunicorn_conf.py"
        configuration.write_text(HOOKS.format(notes=str(notes), more=more), encoding="utf-8")
        command = gunicorn("-c", str(configuration), "stuck_plain")
        started.append(services.start("hooks", command=command, **{**UNHURRIED, **environ}))
        return started[-1], noted

    yield with_hooks

    for service in started:
        service.stop()
        assert_nobody_complained(service)


def test_the_user_s_own_hooks(with_hooks):
    """
    ``worker_abort``, ``worker_exit`` and what is registered for the exit run in the worker, in their order.
    """
    service, noted = with_hooks()
    assert_given_up_on(service.ask("/stuck_in_sleep"))

    expected = ["worker_abort True", "worker_exit True", "atexit"]
    assert noted(*expected) == expected


def test_a_hook_that_ends_the_process(with_hooks):
    """
    The span has left the process before the user's hook runs, which may end it on the spot.
    """
    service, noted = with_hooks("os._exit(1)")
    trace_id = service.hang_up("/stuck_in_sleep", after=TIMEOUT + 2)

    assert_given_up_on(service.entry(trace_id))
    assert noted("worker_abort True") == ["worker_abort True"]


def test_a_collector_that_does_not_answer(with_hooks):
    """
    The hook runs, and the worker exits, before gunicorn's patience ends, though the span can't be sent.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        service, noted = with_hooks(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=endpoint)
        assert service.get("/stuck_in_sleep").status == 500

        expected = ["worker_abort True", "worker_exit True"]
        assert noted(*expected) == expected


def test_without_the_watchdog(services):
    """
    A service that watches nothing still learns where it was stuck, and the worker that comes next answers.
    """
    service = services.start("unwatched", command=gunicorn("stuck_plain"), OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD=0)
    try:
        event = assert_given_up_on(service.ask("/stuck_in_a_regex"))
        span = service.ask("/fast")
    finally:
        service.stop()

    assert "in stuck_in_a_regex\n" in event.stack
    assert span.evidence == []
    assert_nobody_complained(service)


def test_a_greenlet_that_lets_no_other_one_run(services):
    """
    Under gevent too: the greenlet that has kept the worker busy says so.
    """
    pytest.importorskip("gevent")
    service = services.start("hogged", command=gunicorn("-k", "gevent", "wsgi"))
    try:
        event = assert_given_up_on(service.entry(service.hang_up("/busy?seconds=30", after=TIMEOUT + 2)))
    finally:
        service.stop()

    assert bare(event.attributes["code.function.name"]) == "busy"
    assert event.attributes["otel_introspect.task.state"] == "running"
    assert "otel_introspect failed" not in service.log


def test_threads_are_not_given_up_on(services):
    """
    A worker with threads is alive while one of them is stuck: gunicorn lets that finish, and so do we.
    """
    service = services.start("threads", command=gunicorn("--threads", "4", "wsgi"))
    try:
        answer = service.get(f"/slow?seconds={TIMEOUT + 1.5}")
        span = service.entry(answer.trace_id)
    finally:
        service.stop()

    assert answer.status == 200
    assert "otel_introspect.interrupted" not in span.attributes
    assert {each.attributes["otel_introspect.observer"] for each in span.snapshots} == {"thread"}


@pytest.mark.parametrize("options", [(), ("--threads", "4")], ids=["sync", "gthread"])
def test_a_graceful_stop(services, options):
    """
    A request that is slow as gunicorn gets SIGTERM is answered, and its span arrives with its evidence.
    """
    service = services.start(
        "stopped", command=[*GUNICORN, "-w", "1", "--graceful-timeout", "5", *options, "wsgi"], **UNHURRIED
    )
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(service.get, "/slow?seconds=1.5")
            time.sleep(0.8)
            os.kill(service.process.pid, signal.SIGTERM)
            answer = asked.result(20)
        status = service.process.wait(20)
    finally:
        service.stop()

    assert (answer.status, answer.body) == (200, "slow")
    assert status == 0
    (span,) = service.spans(answer.trace_id)
    assert span.slow is True
    assert len(span.snapshots) >= 2
    assert "otel_introspect.interrupted" not in span.attributes
    assert_nobody_complained(service)
