"""What every test has: a clock of its own, and the check that it gives back what it borrowed."""

from __future__ import annotations

import gc
import signal
import sys
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_introspect import faults
from otel_introspect.config import EvidenceConfig, IntrospectConfig, ProfilerConfig, RecorderConfig, WatchdogConfig
from otel_introspect.engine import recorder_directory
from otel_introspect.engine.alarm import ALARM
from otel_introspect.engine.introspector import INTROSPECTOR_NAME
from otel_introspect.introspection import Introspection, activate
from otel_introspect.processors.watchdog import WatchdogSpanProcessor

MILLISECOND = 1_000_000


def introspectors() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == INTROSPECTOR_NAME]


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """Handler, timer, threads, profile and trace function and the collector are as they were."""
    faults.forget()
    before = (signal.getsignal(signal.SIGALRM), sys.getprofile(), sys.gettrace(), gc.isenabled())

    yield

    activate(None)
    faults.forget()
    timer = signal.getitimer(signal.ITIMER_REAL)[0]
    after = (signal.getsignal(signal.SIGALRM), sys.getprofile(), sys.gettrace(), gc.isenabled())
    ALARM.release()  # what one test leaves behind is not to fail all that follow
    assert timer == 0
    assert after == before
    assert introspectors() == []


@pytest.fixture(autouse=True)
def _own_flight_recorders(tmp_path_factory):
    """No test writes where the user's own services do."""
    # Not the fixture of that name: made this early, it would undo what a test has patched after all else is gone.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder_directory, "_default", lambda: tmp_path_factory.getbasetemp() / "flight")
        yield


class FakeClock:
    """A clock that only moves when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000_000_000
        self.offset = 1_700_000_000 * 1_000_000_000

    def monotonic(self) -> int:
        return self.now

    def wall(self) -> int:
        return self.now + self.offset

    def advance(self, milliseconds: float) -> None:
        self.now += int(milliseconds * MILLISECOND)

    def set_wall(self, milliseconds: float) -> None:
        """Somebody sets the machine's clock."""
        self.offset += int(milliseconds * MILLISECOND)


@pytest.fixture(name="clock")
def _clock():
    return FakeClock()


class Tracing:
    """A provider with the watchdog, whose thread does not run: the test looks when it wants to."""

    def __init__(self, clock: FakeClock, evidence: dict[str, object], watchdog: dict[str, object]) -> None:
        self.clock = clock
        self.config = IntrospectConfig(
            evidence=EvidenceConfig(**evidence),
            watchdog=WatchdogConfig(**{"checkpoint": "none", **watchdog}),  # they have tests of their own
            profiler=ProfilerConfig(triggers=()),  # the profiler's own tests have it on
            recorder=RecorderConfig(directory="none"),  # as above
        )
        self.introspection = Introspection(self.config, clock=clock)
        self.introspection.introspector.parked = False  # so that no span starts the thread
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(WatchdogSpanProcessor(self.introspection))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.introspection.tracer_provider = self.provider
        self.tracer = self.provider.get_tracer(__name__)

    def start(self, name: str = "GET /", **given):
        given.setdefault("start_time", self.clock.wall())
        return self.tracer.start_span(name, **given)

    def look(self, milliseconds: float = 0):
        """Let time pass, then let the watchdog look."""
        self.clock.advance(milliseconds)
        return self.introspection.watchdog.look()

    def events(self, name: str = "otel_introspect.stack_snapshot"):
        return [event for span in self.exporter.get_finished_spans() for event in span.events if event.name == name]


@pytest.fixture(name="make_tracing")
def _make_tracing(clock):
    made = []

    def make_tracing(evidence: dict[str, object] | None = None, **watchdog: object) -> Tracing:
        made.append(Tracing(clock, evidence or {}, watchdog))
        return made[-1]

    yield make_tracing

    for tracing in made:
        tracing.provider.shutdown()


@pytest.fixture(name="tracing")
def _tracing(make_tracing):
    return make_tracing()
