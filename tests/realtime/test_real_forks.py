"""Forks: within a request, within a span, again and again."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys

import pytest
from services import environment

pytestmark = pytest.mark.realtime


@pytest.mark.parametrize("kind", ["single", "gthread", "preload", "runserver"])
@pytest.mark.parametrize("path", ["/forking", "/with_multiprocessing"])
def test_a_child_forked_in_a_request(services, kind, path):
    """
    A slow entry span in a child that is forked within a request has snapshots, and so has the request itself.
    """
    service = services(kind)
    marker = secrets.token_hex(4)
    answer = service.get(f"{path}?marker={marker}")

    if (kind, path) != ("gthread", "/with_multiprocessing"):
        # A process that multiprocessing forks from a thread of gunicorn's gthread worker ends with 1, without us too.
        assert answer.body == "0"
    (child,) = service.all_spans(lambda span: span.name == f"child {marker}", count=1)
    assert len(child.snapshots) == 2
    for each in child.snapshots:
        assert "in child_work" in each.stack
    assert len(service.entry(answer.trace_id).snapshots) >= 1


def test_200_forks_while_the_introspector_is_busy(services):
    """
    However often a request forks while it and others are slow, no child and no request hangs.
    """
    service = services("gthread")
    answers = service.get_all(["/many_forks?times=200", "/slow?seconds=1.5", "/busy?seconds=1"])

    assert answers[0].body == "200"
    assert len(service.entry(answers[0].trace_id).snapshots) >= 1
    assert len(service.entry(answers[1].trace_id).snapshots) >= 1


SCRIPT = """
import json, os, sys, time
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = trace.get_tracer_provider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = trace.get_tracer("script")

def wait_in_child(): time.sleep(0.8)
def wait_in_parent(): time.sleep(0.8)
def show(who):
    stacks = lambda span: [e.attributes["code.stacktrace"] for e in span.events if "code.stacktrace" in e.attributes]
    spans = [(s.name, stacks(s)) for s in exporter.get_finished_spans()]
    print(json.dumps([who, spans]), flush=True)
"""


def run(code, *, flags=(), launcher=True, timeout=60, **environ):
    command = [sys.executable, "-c", code]
    if launcher:
        command = ["opentelemetry-instrument", *flags, *command]
    given = environment(OTEL_TRACES_EXPORTER="none", DJANGO_SETTINGS_MODULE=None, **environ)
    return subprocess.run(
        command, env=given, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
    )


def test_a_fork_after_a_span_was_made():
    """
    A child forked after its parent's first span has snapshots in its own slow spans.
    """
    done = run(
        SCRIPT
        + """
with tracer.start_as_current_span("before"): pass
exporter.clear()
if os.fork():
    os.wait()
    show("parent")
else:
    with tracer.start_as_current_span("child"): wait_in_child()
    show("child")
    os._exit(0)
"""
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or "DeprecationWarning" in done.stderr
    lines = dict(json.loads(line) for line in done.stdout.splitlines())
    ((name, stacks),) = lines["child"]
    assert (name, len(stacks)) == ("child", 2)
    assert all("wait_in_child" in each for each in stacks)
    assert lines["parent"] == []


def test_a_fork_inside_a_slow_span():
    """
    A span that is open across a fork is watched on both sides.
    """
    done = run(
        SCRIPT
        + """
with tracer.start_as_current_span("both"):
    time.sleep(0.35)
    child = not os.fork()
    wait_in_child() if child else wait_in_parent()
show("child" if child else "parent")
os._exit(0) if child else os.wait()
"""
    )

    assert done.returncode == 0, done.stderr
    lines = dict(json.loads(line) for line in done.stdout.splitlines())
    for who in ("child", "parent"):
        ((_, stacks),) = lines[who]
        assert any(f"wait_in_{who}" in each for each in stacks), (who, stacks)
        assert not any(f"wait_in_{'parent' if who == 'child' else 'child'}" in each for each in stacks)


def test_a_grandchild():
    """
    A child of a child is watched too.
    """
    done = run(
        SCRIPT
        + """
with tracer.start_as_current_span("first"): time.sleep(0.4)
for generation in range(2):
    if os.fork():
        os.wait()
        os._exit(0)
    exporter.clear()
    with tracer.start_as_current_span(f"generation {generation}"): wait_in_child()
    show(str(generation))
"""
    )

    lines = dict(json.loads(line) for line in done.stdout.splitlines())
    for generation in "01":
        ((_, stacks),) = lines[generation]
        assert len(stacks) == 2


def test_forks_from_several_threads():
    """
    Threads that fork at once while spans turn slow leave no child that hangs.
    """
    done = run(
        SCRIPT
        + """
import threading
failures = []
def work():
    for _ in range(25):
        with tracer.start_as_current_span("short", context=Context()):
            child = os.fork()
            if not child:
                with tracer.start_as_current_span("in child", context=Context()): pass
                os._exit(0)
            failures.append(os.waitpid(child, 0)[1])
            time.sleep(0.004)
threads = [threading.Thread(target=work) for _ in range(6)]
with tracer.start_as_current_span("long"):
    [each.start() for each in threads]
    [each.join() for each in threads]
print(len(failures), sum(failures))
""",
        OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD="3",
        OTEL_PYTHON_INTROSPECT_WATCHDOG_MAX_SNAPSHOTS="32",
    )

    assert done.stdout.split() == ["150", "0"], done.stderr
    assert "otel_introspect" not in done.stderr
