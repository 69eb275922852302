"""Spans to write on, a way out of endless loops, and the alarm given back after each test."""

from __future__ import annotations

import ctypes
import logging
import signal
import threading
import time

import pytest
from interruptions import FOREVER
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_introspect import timeouts


@pytest.fixture(autouse=True)
def _given_back(request):
    """Handler and timer are given back at once instead of a second later; nothing lasted to its own end."""
    started = time.monotonic()

    yield

    took = time.monotonic() - started
    timeouts.enable_timeouts()
    timeouts.release()
    assert took < FOREVER or request.node.get_closest_marker("realtime"), "what should last for ever came to its end"


class NotInterruptedError(BaseException):
    """The loop would have gone on for ever."""


@pytest.fixture(name="rescue")
def _rescue():
    """Ends an endless loop of the main thread that nothing else has ended for a minute."""
    over = threading.Event()
    main = threading.main_thread().ident

    def watch():
        while not over.wait(60):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(NotInterruptedError))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


class Spans:
    """A tracer and what it has finished."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer(__name__)

    def current(self, name="work"):
        """A block in which there is a current span."""
        return self.tracer.start_as_current_span(name)

    def named(self, name="work"):
        (span,) = [each for each in self.exporter.get_finished_spans() if each.name == name]
        return span

    def events(self, name="work"):
        """The attributes of what the span says about limits."""
        return [dict(event.attributes) for event in self.named(name).events if event.name == "otel_introspect.timeout"]

    def event(self, name="work"):
        (event,) = self.events(name)
        return event


@pytest.fixture(name="spans")
def _spans():
    spans = Spans()
    yield spans
    spans.provider.shutdown()


@pytest.fixture(name="our_log")
def _our_log(caplog):
    """What we have logged so far, as messages."""
    caplog.set_level(logging.DEBUG)
    return lambda: [each.getMessage() for each in caplog.records if each.name.startswith("otel_introspect")]


class Foreign:
    """Somebody else's use of SIGALRM: a handler that remembers its calls."""

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, signum, frame):
        self.calls.append((signum, frame.f_code.co_name if frame else None))


@pytest.fixture(name="foreign")
def _foreign():
    before = signal.getsignal(signal.SIGALRM)
    foreign = Foreign()
    signal.signal(signal.SIGALRM, foreign)
    yield foreign
    timeouts.release()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
