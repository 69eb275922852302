"""What the profiler's tests share: a provider with everything running on the real clock, and work that can be seen."""

from __future__ import annotations

import contextlib
import gc
import time

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_introspect.config import EvidenceConfig, IntrospectConfig, ProfilerConfig, RecorderConfig, WatchdogConfig
from otel_introspect.introspection import Introspection, activate
from otel_introspect.processors.watchdog import WatchdogSpanProcessor
from otel_introspect.profiling import pools

PROFILE = "otel_introspect.profile"
SNAPSHOT = "otel_introspect.stack_snapshot"
TEXT = "otel_introspect.profile.text"
ID = "otel_introspect.profile.id"
PATIENCE = 10
"""Seconds within which everything here happens, or it does not happen at all."""


def busy(seconds):
    """Keep the processor busy in Python for that long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def idle(seconds):
    """Wait for that long."""
    time.sleep(seconds)


def until(condition, patience=PATIENCE):
    """Wait for something that others do."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def profiles_of(span):
    """The profiles that a finished span has."""
    return [event for event in span.events if event.name == PROFILE]


class Profiled:
    """A provider, watched and profiled as the settings say, by the introspector's own thread."""

    def __init__(self, *, evidence=None, watchdog=None, **profiler):
        self.config = IntrospectConfig(
            evidence=EvidenceConfig(**evidence or {}),
            watchdog=WatchdogConfig(**{"threshold": 0, "checkpoint": "none", **(watchdog or {})}),
            profiler=ProfilerConfig(**{"triggers": (), **profiler}),
            recorder=RecorderConfig(directory="none"),
        )
        self.introspection = Introspection(self.config)
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(WatchdogSpanProcessor(self.introspection))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.introspection.tracer_provider = self.provider
        self.tracer = self.provider.get_tracer(__name__)
        self.introspection.prepare()

    @property
    def profiler(self):
        return self.introspection.profiler

    def request(self, name="GET /", **given):
        """A request, as a block."""
        return self.tracer.start_as_current_span(name, **given)

    def spans(self):
        return list(self.exporter.get_finished_spans())

    def span(self, name="GET /"):
        """The one finished span of this name."""
        (found,) = [span for span in self.spans() if span.name == name]
        return found

    def profiles(self):
        """All profiles that landed on spans."""
        return [event for span in self.spans() for event in profiles_of(span)]

    def text(self, name="GET /"):
        """The text of the one profile on the one span of this name."""
        (event,) = profiles_of(self.span(name))
        return event.attributes[TEXT]

    def is_clean(self):
        """Whether nothing is being sampled, nor remembered."""
        gc.collect()
        profiler = self.profiler
        return not (len(profiler.sampler) or profiler._live or profiler._of_spans or any(profiler._tails.values()))


@contextlib.contextmanager
def running():
    """Makes them, and gives all back at the end."""
    made = []

    def make_profiled(**settings):
        made.append(Profiled(**settings))
        activate(made[-1].introspection)
        return made[-1]

    try:
        yield make_profiled
    finally:
        for each in made:
            each.provider.shutdown()
            each.introspection.stop()
        pools.leave()
