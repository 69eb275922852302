"""The observer ``faulthandler`` in real processes, where C code really keeps the GIL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

from otel_introspect.engine.dead_man import parse_dump

pytestmark = pytest.mark.realtime

SCRIPT = """
import asyncio, faulthandler, json, os, signal, sys, tempfile, threading, time
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otel_introspect.instrumentation.introspect import IntrospectInstrumentor

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
before = faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later
IntrospectInstrumentor().instrument(tracer_provider=provider, watchdog_observers="thread,signal,faulthandler",
                                    watchdog_checkpoint="none", recorder_dir=os.environ.get("DIRECTORY", "none"))
tracer = provider.get_tracer("script")

# As long as it takes here to keep the GIL for about so many seconds.
def measured(numbers=10**6):
    began = time.perf_counter()
    sum(range(numbers))
    took = time.perf_counter() - began
    return measured(numbers * 2) if took < 0.2 else int(numbers / took)
in_a_second = measured()
def innermost(seconds): return sum(range(int(in_a_second * seconds)))
def request(name="request", seconds=5):
    with tracer.start_as_current_span(name, context=Context()):
        innermost(seconds)
def seen(span):
    return [(each.attributes["otel_introspect.observer"], each.attributes["code.function.name"],
             each.attributes["otel_introspect.elapsed_ms"],
             [line for line in each.attributes["code.stacktrace"].splitlines() if line.startswith("  File")][-1])
            for each in span.events if each.name == "otel_introspect.stack_snapshot"]
def show():
    provider.shutdown()
    IntrospectInstrumentor().uninstrument()
    spans = [[span.name, seen(span)] for span in exporter.get_finished_spans()]
    print(json.dumps({"spans": spans, "shown": shown,
                      "back": (faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later) == before}))
shown = []
"""


def run(code: str, **environ: str):
    given = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "OTEL"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(code)],
        env={**given, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "otel_introspect failed" not in done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["back"]
    return result


def by_faulthandler(snapshots):
    return [each for each in snapshots if each[0] == "faulthandler"]


def test_the_first_request_of_the_main_thread():
    """
    A request that keeps the GIL from its very start, in the main thread of a process that had none, says where it was.
    """
    ((_, snapshots),) = run("request(); show()")["spans"]

    ((_, function, elapsed, line),) = by_faulthandler(snapshots)
    assert function == "innermost"
    assert line.endswith("in innermost")
    assert 1_000 <= elapsed < 5_000


def test_requests_of_other_threads():
    """
    So does one on any other thread, while requests that were over before have nothing.
    """
    spans = run("""
        stop = threading.Event()
        def healthy():
            while not stop.is_set():
                with tracer.start_as_current_span("healthy"): time.sleep(0.005)
        healthy_one = threading.Thread(target=healthy); healthy_one.start()
        time.sleep(2.3)
        # One that ends before the introspector has had its turn, beside the other thread's, is not seen.
        for _ in range(4):
            stuck = threading.Thread(target=request); stuck.start(); stuck.join()
            time.sleep(0.5)
            if any(span.name == "request" and span.events for span in exporter.get_finished_spans()): break
        stop.set(); healthy_one.join(); show()
    """)["spans"]

    stuck = [snapshots for name, snapshots in spans if name == "request"]
    healthy = [snapshots for name, snapshots in spans if name == "healthy"]
    ((_, function, elapsed, _),) = by_faulthandler(stuck[-1])
    assert function == "innermost"
    assert 1_000 <= elapsed < 5_000
    assert len(healthy) > 20
    # One of them at a time may have waited for the GIL, and be slow for it.
    assert sum(bool(snapshots) for snapshots in healthy) <= len(stuck)


def test_healthy_processes_are_not_written_down():
    """
    Slow requests that sleep, wait for a lock or run Python have snapshots by others only.
    """
    spans = run("""
        lock = threading.Lock(); lock.acquire()
        def wait(how):
            with tracer.start_as_current_span(how):
                if how == "sleep": time.sleep(4)
                elif how == "lock": lock.acquire(timeout=4)
                else:
                    end = time.monotonic() + 4
                    while time.monotonic() < end: sum(range(1000))
        threads = [threading.Thread(target=wait, args=(how,)) for how in ("sleep", "lock", "python")]
        for each in threads: each.start()
        for each in threads: each.join()
        show()
    """)["spans"]

    assert len(spans) == 3
    for _, snapshots in spans:
        assert {each[0] for each in snapshots} == {"thread"}


def test_a_task_has_its_own_stack_only():
    """
    On an event loop the task that kept the GIL has the stack, and none that waited beside it.
    """
    spans = run("""
        async def stuck():
            with tracer.start_as_current_span("stuck"):
                await asyncio.sleep(0.01)
                innermost(5)
        async def waits():
            with tracer.start_as_current_span("waits"):
                await asyncio.sleep(1.5)
        async def main(): await asyncio.gather(waits(), stuck(), waits())
        asyncio.run(main()); show()
    """)["spans"]

    by_name = dict(spans)
    assert [each[1] for each in by_faulthandler(by_name["stuck"])] == ["innermost"]
    assert [each for name, snapshots in spans if name == "waits" for each in by_faulthandler(snapshots)] == []


def test_a_foreign_timer_fires_on_time():
    """
    Who sets faulthandler's timer has it, though a request keeps the GIL meanwhile; that one has no snapshot by it.
    """
    result = run("""
        file = os.open(tempfile.mkstemp()[1], os.O_RDWR)
        with tracer.start_as_current_span("before"): time.sleep(0.1)
        faulthandler.dump_traceback_later(2.5, file=file)
        request()
        written = os.pread(file, 100_000, 0).decode()
        shown += ["Timeout (0:00:02.500000)!" in written, "in innermost" in written]
        faulthandler.cancel_dump_traceback_later()
        with tracer.start_as_current_span("between"): time.sleep(1.2)  # until we come round again
        request()
        show()
    """)

    assert result["shown"] == [True, True]
    by_name = [by_faulthandler(snapshots) for name, snapshots in result["spans"] if name == "request"]
    assert [len(each) for each in by_name] == [0, 1]


def test_a_parked_process_has_no_timer():
    """
    A process that has had no request for a while has no thread in C that waits, and an empty file.
    """
    result = run("""
        def threads(): return len(os.listdir("/proc/self/task"))
        alone = threads()
        with tracer.start_as_current_span("one"): time.sleep(0.3); shown.append(threads() - alone)
        for _ in range(100):
            time.sleep(0.2)
            if threads() - alone <= 1: break
        shown.append(threads() - alone)
        show()
    """)

    # The introspector's own, and faulthandler's.
    assert result["shown"] == [2, 1]


def test_forks_beside_it():
    """
    Children that are forked while it is set end, and one that goes on with requests has its own snapshots.
    """
    result = run("""
        with tracer.start_as_current_span("parent"):
            time.sleep(0.1)
            for number in range(20):
                child = os.fork()
                if not child:
                    signal.alarm(60)
                    sys.exit(0)
                shown.append(os.waitpid(child, 0)[1])
            child = os.fork()
            if not child:
                signal.alarm(60)
                request("child")
                (span,) = [each for each in exporter.get_finished_spans() if each.name == "child"]
                os._exit(0 if ("faulthandler", "innermost") in [each[:2] for each in seen(span)] else 3)
            shown.append(os.waitpid(child, 0)[1])
        show()
    """)

    assert result["shown"] == [0] * 21


def test_what_is_left_of_a_killed_process(tmp_path):
    """
    Beside the flight record of a process that was killed while it kept the GIL lies the stack that kept it.
    """
    given = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "OTEL"))}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + "request(seconds=100)"], env={**given, "DIRECTORY": str(tmp_path)}
    )
    try:
        wait_until(lambda: any(each.stat().st_size for each in tmp_path.glob("*.dump")))
    finally:
        process.kill()
        process.wait()

    (dump,) = tmp_path.glob("*.dump")
    assert dump.with_suffix(".flight").exists()
    *_, main_thread = parse_dump(dump.read_bytes()).values()
    assert main_thread[0][2] == "innermost"


def wait_until(happens) -> None:
    end = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_pytest_keeps_its_timeout(tmp_path):
    """
    A test that hangs is still reported by pytest, with the observer switched on in it.
    """
    (tmp_path / "pytest.ini").write_text("[pytest]\nfaulthandler_timeout = 3\n")
    (tmp_path / "test_hangs.py").write_text(
        SCRIPT
        + textwrap.dedent("""
        def test_hangs():
            with tracer.start_as_current_span("hangs"):
                time.sleep(5)
            IntrospectInstrumentor().uninstrument()
    """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "Timeout (0:00:03)!" in done.stderr
    assert "in test_hangs" in done.stderr
