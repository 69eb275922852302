"""Who sees what in real processes: the thread, or the alarm where something keeps the GIL."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest
from services import BIN, THRESHOLD_MS, environment

pytestmark = pytest.mark.realtime

OBSERVER = "otel_introspect.observer"
ELAPSED = "otel_introspect.elapsed_ms"

SCRIPT = """
import math, os, re, signal, sys, time
from opentelemetry import trace

tracer = trace.get_tracer("script")

def stuck(seconds):
    took = []
    for _ in range(3):
        began = time.perf_counter()
        re.match(r"^(a+)+$", "a" * 14 + "!")
        took.append(time.perf_counter() - began)
    length = 14 + math.ceil(math.log2(seconds / min(took)))  # each letter more takes twice as long
    re.match(r"^(a+)+$", "a" * length + "!")

def timer():
    return signal.getitimer(signal.ITIMER_REAL)
"""


def by_observer(span, name):
    return [event for event in span.snapshots if event.attributes[OBSERVER] == name]


@pytest.mark.parametrize("kind", ["single", "preload", "uvicorn", "gevent"])
def test_a_regular_expression_in_the_main_thread(services, kind):
    """
    A view that is stuck in a regular expression has the stack at its threshold; by the alarm, unless that has just let
    the thread have the GIL for another reason.
    """
    path = "/regex?seconds=1" if kind != "uvicorn" else "/async/regex?seconds=1"
    service, by_alarm = services(kind), []
    for _ in range(5):
        span = service.ask(path)
        assert span.slow is True
        first = span.snapshots[0]
        assert first.attributes["code.function.name"].endswith("regex")
        assert "re.match" in first.stack
        assert THRESHOLD_MS <= first.attributes[ELAPSED] < 4 * THRESHOLD_MS
        assert span.start <= first.time < span.end
        by_alarm += by_observer(span, "signal")
        if by_alarm:
            break

    assert by_alarm


def test_sleep_is_seen_by_the_thread(services):
    """
    A view that sleeps is looked at by the thread, on the same worker.
    """
    span = services("single").ask("/slow?seconds=0.7&of=observers")

    assert by_observer(span, "thread")


def test_pool_threads_are_not_the_alarm_s(services):
    """
    What runs in a pool's thread is not seen by the alarm: neither what keeps the GIL nor what lets go of it.
    """
    service = services("gthread")
    span = service.ask("/regex?seconds=1")
    busy = service.ask("/busy?seconds=1")

    assert busy.slow is True
    assert by_observer(busy, "signal") == []
    assert by_observer(span, "signal") == []


def launched(receiver, name, script, *, code=0, **environ):
    if not (BIN / "opentelemetry-instrument").exists():
        pytest.skip("opentelemetry-instrument is not installed beside this Python")
    done = subprocess.run(
        [str(BIN / "opentelemetry-instrument"), sys.executable, "-c", SCRIPT + textwrap.dedent(script)],
        env=environment(
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.endpoint(name),
            OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="django",
            **environ,
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert [line for line in done.stderr.splitlines() if "Conflicting values" not in line] == []
    return done.stdout


def test_a_script(receiver):
    """
    A plain script whose first span keeps the GIL from its start has the stack by the alarm.
    """
    name = "observed-script"
    launched(
        receiver,
        name,
        """
        with tracer.start_as_current_span("nightly"):
            stuck(1)
        """,
    )

    (span,) = receiver.wait_for(name, lambda each: each.name == "nightly")
    (first, *_) = by_observer(span, "signal")
    assert "in stuck" in first.stack
    assert first.attributes[ELAPSED] < 4 * THRESHOLD_MS


def test_a_script_that_becomes_another_program(receiver):
    """
    A program that takes the place of one in the middle of a span, or soon after it, is not ended by a timer of ours.
    """
    said = launched(
        receiver,
        "observed-exec",
        """
        with tracer.start_as_current_span("first"):
            print(timer()[0] > 0, flush=True)
        child = "import signal, time; print(list(signal.getitimer(signal.ITIMER_REAL))); time.sleep(2); print('alive')"
        os.execvp(sys.executable, [sys.executable, "-c", child])
        """,
    )

    assert said.splitlines() == ["True", "[0.0, 0.0]", "alive"]


def test_a_script_with_an_alarm_of_its_own(receiver):
    """
    A script that uses SIGALRM itself, before or within its spans, has every alarm when it is due and no other.
    """
    said = launched(
        receiver,
        "observed-alarms",
        """
        rang = []
        def handler(*_):
            rang.append(time.monotonic())
        for _ in range(3):
            with tracer.start_as_current_span("job"):
                time.sleep(0.1)
                signal.signal(signal.SIGALRM, handler)
                time.sleep(0.5)
                began = time.monotonic()
                signal.alarm(1)
                while len(rang) < 1:
                    time.sleep(0.01)
                print(len(rang), rang[0] - began > 0.99)
                rang.clear()
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
        """,
    )

    assert said.splitlines() == ["1 True"] * 3


def test_an_alarm_that_ends_the_script(receiver):
    """
    ``signal.alarm`` without a handler ends the process as ever, also while a span is open.
    """
    launched(
        receiver,
        "observed-end",
        """
        with tracer.start_as_current_span("job"):
            signal.alarm(1)
            for _ in range(300):
                time.sleep(0.05)
        """,
        code=-signal.SIGALRM,
    )
