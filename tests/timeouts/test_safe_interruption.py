"""An interruption is raised only where the code that it hits can bear it."""

# ruff: noqa: PT012 - what a limit interrupts is rarely a single statement

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import sys
import textwrap
import threading
import time
import weakref

import pytest
from interruptions import FOREVER, LIMIT, PATIENCE, Expired, Inner, in_thread, spin
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from otel_introspect import DeadlineExceeded, profile, timeout
from otel_introspect.config import IntrospectConfig
from otel_introspect.introspection import Introspection, activate

SLOW = 4 * LIMIT


class Steps:
    """A context manager that is slow where the test says so, and remembers how far it came."""

    def __init__(self, slow_in, work=time.sleep):
        self.slow_in = slow_in
        self.work = work
        self.done = []

    def step(self, name):
        if name == self.slow_in:
            self.work(SLOW)
        self.done.append(name)

    def __enter__(self):
        self.step("enter")
        return self

    def __exit__(self, *_exc_info):
        self.step("exit")

    async def __aenter__(self):
        self.step("enter")
        return self

    async def __aexit__(self, *_exc_info):
        self.step("exit")


both_kinds_of_work = pytest.mark.parametrize("work", [time.sleep, spin], ids=["sleeping", "busy"])


@both_kinds_of_work
def test_enter_is_not_interrupted(work):
    """
    What is being set up as a block begins is set up to the end, and so is torn down.
    """
    steps = Steps("enter", work)
    with pytest.raises(Expired), timeout(LIMIT, Expired), steps:
        time.sleep(FOREVER)

    assert steps.done == ["enter", "exit"]


@both_kinds_of_work
def test_exit_is_not_interrupted(work):
    """
    What is being torn down as a block ends is torn down to the end; the interruption comes right after it.
    """
    steps = Steps("exit", work)
    with pytest.raises(Expired), timeout(LIMIT, Expired):
        with steps:
            pass
        time.sleep(FOREVER)

    assert steps.done == ["enter", "exit"]


@pytest.mark.parametrize("slow_in", ["enter", "exit"])
def test_a_generator_as_context_manager_is_not_interrupted(slow_in):
    """
    What ``contextlib.contextmanager`` makes is as safe as a class with ``__enter__`` and ``__exit__``.
    """
    done = []

    @contextlib.contextmanager
    def steps():
        time.sleep(SLOW if slow_in == "enter" else 0)
        done.append("enter")
        try:
            yield
        finally:
            time.sleep(SLOW if slow_in == "exit" else 0)
            done.append("exit")

    with pytest.raises(Expired), timeout(LIMIT, Expired):
        with steps():
            pass
        time.sleep(FOREVER)

    assert done == ["enter", "exit"]


@pytest.mark.parametrize("slow_in", ["enter", "exit"])
def test_aenter_and_aexit_are_not_interrupted(slow_in):
    """
    The same holds for ``__aenter__`` and ``__aexit__`` of a coroutine that the main thread drives without a loop.
    """
    steps = Steps(slow_in)

    async def work():
        async with steps:
            pass
        time.sleep(FOREVER)

    with pytest.raises(Expired), timeout(LIMIT, Expired):
        work().send(None)

    assert steps.done == ["enter", "exit"]


@pytest.mark.parametrize("slow_in", ["enter", "exit"])
def test_a_task_in_aenter_or_aexit_is_not_cancelled(slow_in):
    """
    A task that awaits within ``__aenter__`` or ``__aexit__`` is cancelled after that.
    """
    done = []

    class Connection:
        """Opening or closing it takes longer than the limit."""

        async def __aenter__(self):
            await asyncio.sleep(SLOW if slow_in == "enter" else 0)
            done.append("enter")

        async def __aexit__(self, *_exc_info):
            await asyncio.sleep(SLOW if slow_in == "exit" else 0)
            done.append("exit")

    async def main():
        with pytest.raises(Expired):
            async with timeout(LIMIT, Expired):
                async with Connection():
                    pass
                await asyncio.sleep(FOREVER)

    asyncio.run(main())

    assert done == ["enter", "exit"]


@pytest.mark.parametrize("slow_in", ["enter", "exit"])
def test_enter_and_exit_are_not_interrupted_in_a_thread(slow_in):
    """
    The same holds for the exception that is left for another thread.
    """
    steps = Steps(slow_in, spin)

    def work():
        with timeout(LIMIT, Expired):
            with steps:
                spin(0 if slow_in == "exit" else FOREVER)
            spin(FOREVER)

    with pytest.raises(Expired):
        in_thread(work)
    assert steps.done == ["enter", "exit"]


def test_del_is_not_interrupted():
    """
    In ``__del__`` Python would discard the exception: it is raised after it.
    """
    done = []

    class Finalized:
        """Takes its time to go."""

        def __del__(self):
            time.sleep(SLOW)
            done.append("deleted")

    with pytest.raises(Expired), timeout(LIMIT, Expired):
        finalized = Finalized()
        del finalized
        time.sleep(FOREVER)

    assert done == ["deleted"]


def test_logging_is_not_interrupted(monkeypatch):
    """
    A record that is being written is written to its end, and its handler's lock is free afterwards.
    """
    written = []

    class SlowStream:
        """Takes its time to write."""

        def write(self, text):
            time.sleep(SLOW)
            written.append(text)

        def flush(self):
            pass

    handler = logging.StreamHandler(SlowStream())
    handler.terminator = ""
    logger = logging.getLogger("slow")
    logger.propagate = False
    monkeypatch.setattr(logger, "handlers", [handler])
    with pytest.raises(Expired), timeout(LIMIT, Expired):
        logger.warning("whole")
        time.sleep(FOREVER)

    assert written == ["whole"]

    def free():
        with handler.lock:
            return True

    assert in_thread(free)


class SlowExporter(SpanExporter):
    """Takes its time to export."""

    def __init__(self):
        self.exported = []

    def export(self, spans):
        time.sleep(SLOW)
        self.exported.extend(span.name for span in spans)
        return SpanExportResult.SUCCESS


def test_the_sdk_is_not_interrupted():
    """
    A span that is being exported is exported to the end.
    """
    exporter, provider = SlowExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer(__name__)
    with pytest.raises(Expired), timeout(LIMIT, Expired):
        tracer.start_span("whole").end()
        time.sleep(FOREVER)
    provider.shutdown()

    assert exporter.exported == ["whole"]


def test_a_span_s_lock_is_never_left_locked():
    """
    However often writing to a span is interrupted, the span can be written to.
    """
    provider = TracerProvider()
    tracer = provider.get_tracer(__name__)
    locked = hits = 0
    for number in range(300):
        span = tracer.start_span("work")
        try:
            with timeout(0.0002 + number % 50 * 0.00001, Expired):
                for value in range(10**6):
                    span.set_attribute("value", value)
                    span.add_event("event")
        except Expired:
            hits += 1
        locked += span._lock.locked()
        if locked:
            break
        span.end()
    provider.shutdown()

    assert locked == 0
    assert hits == 300


@pytest.fixture(name="modules")
def _modules(tmp_path, monkeypatch):
    """Modules that import each other, and take a while."""
    names = [f"limited_module_{number}" for number in range(6)]
    for name, imported in zip(names, [*names[1:], "json"], strict=True):
        body = f"import {imported}\nVALUES = [number * 2 for number in range(300)]\nDONE = True\n"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(body))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield names
    for name in names:
        sys.modules.pop(name, None)


def test_imports_are_whole_or_not_there(modules):
    """
    However often an import is interrupted, no half module stays, and everybody can import it afterwards.
    """
    halves, hits = [], 0
    for number in range(300):
        for name in modules:
            sys.modules.pop(name, None)
        try:
            with timeout(0.0001 + number % 60 * 0.00002, Expired):
                importlib.import_module(modules[0])
                spin(0.002)
        except Expired:
            hits += 1
        halves += [name for name in modules if name in sys.modules and not hasattr(sys.modules[name], "DONE")]
    for name in modules:
        sys.modules.pop(name, None)

    assert halves == []
    assert hits > 200
    assert in_thread(lambda: importlib.import_module(modules[0])).DONE


def test_setting_up_and_tearing_down_stay_balanced():
    """
    However often it is interrupted, what was entered has been left, and nothing was left that was not entered.
    """
    balance = []

    class Resource:
        """Counts."""

        def __enter__(self):
            balance.append(1)

        def __exit__(self, *_exc_info):
            balance.append(-1)

    unbalanced = hits = 0
    for number in range(1000):
        balance.clear()
        try:
            with timeout(0.00005 + number % 50 * 0.000002, Expired):
                for _ in range(2000):
                    with Resource():
                        pass
        except Expired:
            hits += 1
        unbalanced += sum(balance) != 0

    assert unbalanced == 0
    assert hits > 300


def test_a_lock_is_never_left_locked():
    """
    However often a ``with lock`` is interrupted, the lock is free afterwards.
    """
    lock, locked, hits = threading.Lock(), 0, 0
    for number in range(2000):
        try:
            with timeout(0.00005 + number % 50 * 0.000002, Expired):
                for _ in range(3000):
                    with lock:
                        pass
        except Expired:
            hits += 1
        if lock.locked():
            locked += 1
            lock.release()

    assert locked == 0
    assert hits > 500


def test_a_condition_is_never_left_locked():
    """
    A wait for a condition is interrupted, and however often that happens its lock is free afterwards.
    """
    locked = hits = 0
    for number in range(300):
        condition = threading.Condition(threading.Lock())
        try:
            with timeout(0.0002 + number % 50 * 0.00002, Expired), condition:
                while True:
                    condition.wait(0.0003)
        except Expired:
            hits += 1
        locked += condition._lock.locked()

    assert locked == 0
    assert hits == 300


def test_what_is_swallowed_comes_again():
    """
    Code that swallows the interruption and carries on is interrupted again, half a second later.
    """
    times = []
    started = time.monotonic()

    def work():
        try:
            time.sleep(FOREVER)
        except Expired:
            times.append(time.monotonic() - started)
        time.sleep(FOREVER)

    with pytest.raises(Expired), timeout(LIMIT, Expired):
        work()
    times.append(time.monotonic() - started)

    assert 0.4 <= times[1] - times[0] < PATIENCE


@pytest.mark.realtime
def test_what_is_always_swallowed_is_given_up(spans):
    """
    Code that swallows every interruption is interrupted four times, then recorded as not to be stopped.
    """
    swallowed = []

    def work():
        end = time.monotonic() + 4
        while time.monotonic() < end:
            try:
                time.sleep(0.01)
            except Expired:
                swallowed.append(True)

    with spans.current(), timeout(LIMIT, Expired):
        work()
    event = spans.event()

    assert len(swallowed) == 4
    assert event["otel_introspect.timeout.attempts"] == 4
    assert event["otel_introspect.timeout.enforced"] is False
    assert "otel_introspect.interrupted" not in spans.named().attributes


def test_each_interruption_is_a_new_object():
    """
    What is raised again after it was swallowed is not the same exception.
    """
    raised = []
    with pytest.raises(Expired) as last, timeout(LIMIT, Expired("given")):
        try:
            time.sleep(FOREVER)
        except Expired as error:
            raised.append(error)
        time.sleep(FOREVER)

    assert raised[0] is not last.value
    assert raised[0].args == last.value.args == ("given",)


def test_a_long_finally_is_left_to_end():
    """
    While the interruption is still on its way out through a long ``finally`` it is not raised again.
    """
    done = []

    def work():
        try:
            time.sleep(FOREVER)
        finally:
            spin(0.4)
            time.sleep(0.8)
            done.append("cleaned up")

    with pytest.raises(Expired), timeout(LIMIT, Expired):
        work()

    assert done == ["cleaned up"]


def test_a_long_except_is_left_to_end():
    """
    While the interruption is being handled it is not raised again, though it may be once it is done with.
    """
    done = []

    def work():
        try:
            time.sleep(FOREVER)
        except Expired:
            time.sleep(1.2)
            done.append("handled")
            raise

    with pytest.raises(Expired), timeout(LIMIT, Expired):
        work()

    assert done == ["handled"]


def test_a_long_exit_is_left_to_end():
    """
    A context manager that takes its time to tear down after the interruption has that time.
    """
    steps = Steps("exit", lambda _: time.sleep(1.2))
    with pytest.raises(Expired), timeout(LIMIT, Expired), steps:
        time.sleep(FOREVER)

    assert steps.done == ["enter", "exit"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_python_discards_comes_again():
    """
    An interruption that hits a callback whose exceptions Python discards is raised again in the work.
    """

    class Referred:
        """Can be referred to weakly."""

    def work():
        referred = Referred()
        reference = weakref.ref(referred, lambda _: time.sleep(SLOW))
        del referred
        time.sleep(FOREVER)
        return reference

    with pytest.raises(Expired), timeout(LIMIT, Expired):
        work()


def test_a_limit_inside_of_an_exit():
    """
    Within ``__exit__`` a limit of its own is in force: only what was opened outside waits.
    """
    seen = []

    class Closing:
        """Closes something for as long as it is let."""

        def __enter__(self):
            return self

        def __exit__(self, *_exc_info):
            try:
                with timeout(LIMIT, Inner):
                    time.sleep(FOREVER)
            except Inner:
                seen.append("inner")

    with timeout(FOREVER, Expired), Closing():
        pass

    assert seen == ["inner"]


def test_a_profiled_function_is_interrupted():
    """
    What ``profile`` puts around a function does not keep that from being interrupted.
    """

    @profile
    def busy():
        spin(2)

    @profile
    def busy_generator():
        spin(2)
        yield

    introspection = Introspection(IntrospectConfig())
    activate(introspection)
    try:
        for work in (busy, lambda: list(busy_generator())):
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded), timeout(0.1):
                work()
            assert time.monotonic() - began < 0.8
    finally:
        introspection.stop()
