"""Real workers that die in the midst of real requests, each in another way: every request is sent, once and right."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time

import kills
import pytest
from kills import KINDS, Requests, kill_all, open_spans, outcome, start, wait_until
from services import BIN, ERROR, PROJECT, environment, free_port

pytestmark = pytest.mark.realtime

# Only for who has more time.
BY_HAND = ("uvicorn-8", "uvicorn-workers-1", "uvicorn-workers-8")
UNWANTED = ("otel_introspect failed", "Exception in thread")


@pytest.fixture(name="folder")
def _folder(tmp_path):
    return tmp_path / "flight"


def complaints_in(log):
    return [line for line in log.splitlines() if any(each in line for each in UNWANTED)]


@pytest.mark.parametrize("kind", [name for name in KINDS if name not in BY_HAND])
def test_kill_9(services, receiver, folder, kind):
    """
    Each request of killed workers is in the receiver exactly once, as the one that the client sent, with its stack.
    """
    for done in kills.rounds_of(services, receiver, KINDS[kind], folder, 2 if KINDS[kind].module == "gunicorn" else 1):
        assert done.complaints() == []


WAYS = {
    "segfault": ("/die?by=segfault", -signal.SIGSEGV),
    "_exit": ("/die?by=exit", 3),
    "abort": ("/die?by=abort", -signal.SIGABRT),
    "memory": ("/die?by=memory", -signal.SIGKILL),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["sync-1", "gthread-8"])
def test_other_ends(services, receiver, folder, kind, way):
    """
    A segmentation fault, ``_exit``, ``abort`` and want of memory cost no request its span.
    """
    service = start(services, KINDS[kind], folder)
    try:
        requests = Requests(service.port, WAYS[way][0] + "&seconds=0.8", 1)
        known = {}

        def is_running():
            known.update(open_spans(folder))
            return requests.parents.keys() <= known.keys()

        assert wait_until(is_running)
        done = outcome(receiver, [service.name], requests.parents, known)
        requests.close()
        log = service.log
    finally:
        service.stop()
    assert done.complaints(with_stack=False) == []
    (span,) = next(iter(done.found.values()))
    assert span.snapshots
    assert "before_the_end" in span.snapshots[0].stack
    assert complaints_in(log) == []


CONFIGURATION = """
import os, time

def post_fork(server, worker):
    if os.path.exists({flag!r}):
        time.sleep(20)

def child_exit(server, worker):
    server.log.info("the user's own child_exit for %s", worker.pid)
"""


def test_the_arbiter_recovers_where_no_worker_does(services, receiver, folder, tmp_path):
    """
    Where the new worker takes long, the arbiter sees to it; the user's own hook is called as ever.
    """
    flag = tmp_path / "slow"
    configuration = tmp_path / "configuration.py"
    configuration.write_text(CONFIGURATION.format(flag=str(flag)))
    kind = kills.Kind(kills.gunicorn("-w", "1", "-c", str(configuration)), 1)
    service = start(services, kind, folder)
    try:
        parents, before = kills.one_round(
            service, receiver, folder, kind.path, 1, kill=lambda pids: (flag.touch(), kill_all(pids))
        )
        ((_, pid),) = before.values()
        done = outcome(receiver, [service.name], parents, before)
        flag.unlink()
        log = service.log
    finally:
        service.stop()
    assert done.complaints() == []
    assert f"the user's own child_exit for {pid}" in log
    assert complaints_in(log) == []


def test_workers_that_are_killed_as_the_arbiter_stops(services, receiver, folder):
    """
    Requests that outlast the graceful stop are sent by the arbiter before it ends.
    """
    service = start(services, KINDS["gthread-8"], folder)
    try:
        requests = Requests(service.port, "/stubborn?seconds=60", 4)
        assert wait_until(lambda: requests.parents.keys() <= open_spans(folder).keys())
        before = open_spans(folder)
        wait_until(lambda: all(span.events for span, _ in open_spans(folder).values()))
        for pid in {pid for _, pid in before.values()}:
            os.kill(pid, signal.SIGSTOP)  # it does not hear of anything any more
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(30)
        done = outcome(receiver, [service.name], requests.parents, before)
        requests.close()
    finally:
        service.stop()
    assert done.complaints() == []


def test_a_sibling_recovers(services, receiver, folder):
    """
    Where nothing is restarted, another service that is at work in the same directory sends what a killed one has left.
    """
    kind = KINDS["uvicorn-8"]
    service, sibling = start(services, kind, folder), start(services, kind, folder)
    try:
        requests = Requests(sibling.port, kind.path, 1)
        parents, before = kills.one_round(service, receiver, folder, kind.path, 8, kill=kill_all)
        done = outcome(receiver, [service.name, sibling.name], parents, before)
        requests.close()
    finally:
        service.stop()
        sibling.stop()
    assert done.complaints() == []


def test_a_request_that_keeps_the_gil(services, receiver, folder):
    """
    A request in ``sum(range(10**9))`` of any thread has faulthandler's stack, also if its worker is killed in there.
    """
    service = start(
        services, KINDS["gthread-8"], folder, OTEL_PYTHON_INTROSPECT_WATCHDOG_OBSERVERS="thread,faulthandler"
    )
    try:
        requests = Requests(service.port, "/adding", 1)
        assert wait_until(lambda: requests.parents.keys() <= open_spans(folder).keys())
        before = open_spans(folder)
        ((_, pid),) = [before[each] for each in requests.parents]
        assert wait_until(lambda: any(each.stat().st_size for each in folder.glob("*.dump")))
        time.sleep(0.2)
        kill_all([pid])
        done = outcome(receiver, [service.name], requests.parents, before)
        requests.close()
    finally:
        service.stop()
    assert done.complaints(with_stack=False) == []
    (span,) = next(iter(done.found.values()))
    assert span.snapshots[-1].attributes["otel_introspect.observer"] == "faulthandler"
    assert "in adding" in span.snapshots[-1].stack
    assert list(folder.glob("*.dump")) == []


def test_a_celery_worker_s_child(receiver, tmp_path, folder):
    """
    The task of a killed Celery child is sent as that task's span.
    """
    if shutil.which("redis-server") is None or importlib.util.find_spec("opentelemetry.instrumentation.celery") is None:
        pytest.skip("Celery, its instrumentation or Redis is not installed")
    port, name = free_port(), "celery-kill"
    with contextlib.ExitStack() as running:

        def run(*command, **environ):
            log = running.enter_context((tmp_path / f"{command[0].rpartition('/')[2]}.log").open("wb"))
            process = subprocess.Popen(
                command, cwd=PROJECT.parent / "jobs", env=environment(**environ), stdout=log, stderr=subprocess.STDOUT
            )
            running.callback(process.wait, 20)
            running.callback(process.kill)
            return process

        run(shutil.which("redis-server"), "--port", str(port), "--save", "", "--appendonly", "no")
        environ = {
            "JOBS_REDIS": f"redis://127.0.0.1:{port}/0",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": receiver.endpoint(name),
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "django",
            "OTEL_PYTHON_INTROSPECT_PROFILER_TRIGGERS": "none",
            "OTEL_PYTHON_INTROSPECT_RECORDER_DIR": folder,
            "DJANGO_SETTINGS_MODULE": None,
        }
        launcher = str(BIN / "opentelemetry-instrument")
        run(launcher, "celery", "-A", "jobs", "worker", "--concurrency", "1", "--without-heartbeat", **environ)
        submit = "import jobs; jobs.plain.delay(60)"
        subprocess.run(
            [sys.executable, "-c", submit],
            cwd=PROJECT.parent / "jobs",
            env=environment(**environ),
            check=True,
            timeout=60,
        )
        assert wait_until(lambda: any(span.events for span, _ in open_spans(folder).values()))
        ((span, pid),) = open_spans(folder).values()
        os.kill(pid, signal.SIGKILL)
        found = receiver.wait_for(name, lambda each: each.attributes.get("otel_introspect.recovered"), seconds=40)

    (recovered,) = found
    assert recovered.trace_id == format(span.trace_id, "032x")
    assert recovered.span_id == format(span.span_id, "016x")
    assert recovered.status == ERROR
    assert "build" in recovered.snapshots[0].stack
