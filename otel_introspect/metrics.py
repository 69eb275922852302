"""What we cost and what we did, as OpenTelemetry metrics: without a meter provider nothing happens.

All are read when somebody collects them, on the thread that does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from otel_introspect.faults import counts, fail_open
from otel_introspect.introspection import active

if TYPE_CHECKING:
    from otel_introspect.profiling.profiler import Profiler

CPU_TIME: Final = "otel_introspect.cpu.time"
"""Seconds: what the introspector's thread and the alarm's handler have used."""
CPU_SHARE: Final = "otel_introspect.cpu.utilization"
"""The same as a share of the process's CPU time since profiles can be taken, from 0 to 1."""
PROFILES: Final = "otel_introspect.profiles"
"""Profiles that were put on spans, by ``otel_introspect.profile.trigger``."""
EVIDENCE: Final = "otel_introspect.evidence.missing"
"""What was not attached, by ``otel_introspect.outcome`` (dropped, refused or failed) and ``otel_introspect.reason``."""

_published = False


def publish(meter_provider: MeterProvider | None = None) -> None:
    """Make the instruments, once in a process; they show whichever introspection is active."""
    global _published  # noqa: PLW0603 - an instrument can't be taken back
    if _published:
        return
    _published = True
    with fail_open("publishing metrics"):
        meter = get_meter("otel_introspect", meter_provider=meter_provider)
        meter.create_observable_counter(CPU_TIME, [_cpu_time], "s", "CPU time that otel_introspect has used")
        meter.create_observable_gauge(CPU_SHARE, [_cpu_share], "1", "Share of the process's CPU time that it has used")
        meter.create_observable_counter(PROFILES, [_profiles], "{profile}", "Profiles that were put on spans")
        meter.create_observable_counter(EVIDENCE, [_missing], "{item}", "Evidence that was not attached")


def _profiler() -> Profiler | None:
    introspection = active()
    return None if introspection is None else introspection.profiler_if_made()


def _cpu_time(_options: CallbackOptions) -> Iterable[Observation]:
    profiler = _profiler()
    return [] if profiler is None else [Observation(profiler.sampler.cpu.seconds)]


def _cpu_share(_options: CallbackOptions) -> Iterable[Observation]:
    profiler = _profiler()
    return [] if profiler is None else [Observation(profiler.sampler.cpu.share())]


def _profiles(_options: CallbackOptions) -> Iterable[Observation]:
    profiler = _profiler()
    taken = {} if profiler is None else dict(profiler.taken)
    return [Observation(number, {"otel_introspect.profile.trigger": trigger}) for trigger, number in taken.items()]


def _missing(_options: CallbackOptions) -> Iterable[Observation]:
    return [
        Observation(number, {"otel_introspect.outcome": kind, "otel_introspect.reason": reason})
        for (kind, reason), number in list(counts.items())
    ]
