"""What the tests of ``timeout`` share: exceptions, work that lasts, threads and processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time

LIMIT = 0.05
"""Seconds: soon over, and longer than a noisy machine needs to come to what is to be interrupted."""
FOREVER = 20
"""Seconds: what lasts this long was not meant to come to its end."""
PATIENCE = 10
"""Seconds within which everything here happens, or it does not happen at all."""


class Expired(Exception):  # noqa: N818 - what it says is the point
    """What a limit raises where the test does not care which."""


class Outer(Exception):  # noqa: N818 - as above
    """What the limit around another one raises."""


class Inner(Exception):  # noqa: N818 - as above
    """What the limit inside another one raises."""


def spin(seconds):
    """Be busy in Python for that long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def until(condition, patience=PATIENCE):
    """Wait for something that others do."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def in_thread(work, name=None):
    """What *work* returns, or raises, in a thread of its own."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test wants to see it
            outcome.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(FOREVER + PATIENCE)
    assert not thread.is_alive(), "it did not come to its end"
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


def run_script(script, *arguments, python=(), timeout=90, given="", **environ):
    """Run *script* in a process of its own, which must end well; what it printed as JSON, line by line, and its log."""
    # Coverage that measures the tests would otherwise measure the script, too, beside the coverage that the script is
    # about.
    surroundings = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COVERAGE_", "COV_CORE_"))
    }
    done = subprocess.run(
        [sys.executable, *python, "-c", textwrap.dedent(script), *arguments],
        env=surroundings | environ,
        input=given,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


# What most scripts begin with. A script says what it found by `say(...)`, a line of JSON.
PREAMBLE = """
import json, logging, os, signal, sys, threading, time
logging.basicConfig(level=logging.DEBUG, format="%(name)s|%(levelname)s|%(message)s")
from otel_introspect import DeadlineExceeded, Quota, timeout

def say(*what):
    print(json.dumps(what), flush=True)

class Expired(Exception): pass
class Outer(Exception): pass
class Inner(Exception): pass

def outcome(work, *arguments):
    try:
        return work(*arguments) or "done"
    except BaseException as error:
        return type(error).__name__
"""

# The spans of a script: `events()` are the attributes of what the finished ones say about limits.
TRACING = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("script")

def events():
    return [
        dict(event.attributes)
        for span in exporter.get_finished_spans()
        for event in span.events
        if event.name == "otel_introspect.timeout"
    ]
"""


def script(text, *, tracing=False):
    """A script that begins as most do."""
    return PREAMBLE + (TRACING if tracing else "") + textwrap.dedent(text)


def said(log, *words):
    """The lines of a script's log that are ours and contain all *words*."""
    ours = [line for line in log.splitlines() if line.startswith("otel_introspect")]
    return [line for line in ours if all(word in line.lower() for word in words)]
