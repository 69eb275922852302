"""What we cost and what we did, as OpenTelemetry metrics: without a meter provider nothing happens.

All but the lateness of snapshots are read when somebody collects them, on the thread that does: from the live table,
the recorder and plain counters, so that no request pays for them. ``docs/reference/metrics.md`` lists them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation, get_meter

from otel_introspect import semconv, tally
from otel_introspect.capacity import capacity
from otel_introspect.faults import counts, fail_open
from otel_introspect.introspection import active

if TYPE_CHECKING:
    from otel_introspect.introspection import Introspection
    from otel_introspect.profiling.profiler import Profiler

OPEN: Final = "otel_introspect.entry_spans.open"
"""Entry spans that are open now."""
OPEN_SLOW: Final = "otel_introspect.entry_spans.open_slow"
"""Those of them that are slow."""
SLOW: Final = "otel_introspect.entry_spans.slow"
"""Entry spans that have turned slow."""
SATURATION: Final = "otel_introspect.workers.saturation"
"""Entry spans that are open, as a share of what the process's server serves at a time, where that is known."""
SNAPSHOTS: Final = "otel_introspect.snapshots"
"""Snapshots that were put on spans, by ``otel_introspect.observer``."""
LATENESS: Final = "otel_introspect.snapshots.lateness"
"""Seconds: how long after they were due they were taken, by the same."""
INTERRUPTIONS: Final = "otel_introspect.interruptions"
"""Work that was interrupted, by ``otel_introspect.timeout.mechanism``."""
RECOVERED: Final = "otel_introspect.recovered_spans"
"""Spans of dead processes that this one has sent."""
CPU_TIME: Final = "otel_introspect.cpu.time"
"""Seconds: what the introspector's thread and the alarm's handler have used."""
CPU_SHARE: Final = "otel_introspect.cpu.utilization"
"""The same as a share of the process's CPU time since profiles can be taken, from 0 to 1."""
PROFILES: Final = "otel_introspect.profiles"
"""Profiles that were put on spans, by ``otel_introspect.profile.trigger``."""
EVIDENCE: Final = "otel_introspect.evidence.missing"
"""What was not attached, by ``otel_introspect.outcome`` (dropped, refused or failed) and ``otel_introspect.reason``."""

# From what nobody notices to a thread that was kept from looking for most of a request.
_LATENESS_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SERVER: Final = "otel_introspect.server"

_published = False


def publish(meter_provider: MeterProvider | None = None) -> None:
    """Make the instruments, once in a process; they show whichever introspection is active."""
    global _published  # noqa: PLW0603 - an instrument can't be taken back
    if _published:
        return
    _published = True
    with fail_open("publishing metrics"):
        meter = get_meter("otel_introspect", meter_provider=meter_provider)
        meter.create_observable_up_down_counter(OPEN, [_open], "{span}", "Entry spans that are open")
        meter.create_observable_up_down_counter(OPEN_SLOW, [_open_slow], "{span}", "Entry spans that are open and slow")
        meter.create_observable_counter(SLOW, [_slow], "{span}", "Entry spans that have turned slow")
        meter.create_observable_gauge(SATURATION, [_saturation], "1", "Share of the server's capacity that is in use")
        meter.create_observable_counter(SNAPSHOTS, [_snapshots], "{snapshot}", "Snapshots that were put on spans")
        meter.create_observable_counter(
            INTERRUPTIONS, [_interruptions], "{interruption}", "Work that was interrupted at its limit"
        )
        meter.create_observable_counter(RECOVERED, [_recovered], "{span}", "Spans of dead processes that were sent")
        meter.create_observable_counter(CPU_TIME, [_cpu_time], "s", "CPU time that otel_introspect has used")
        meter.create_observable_gauge(CPU_SHARE, [_cpu_share], "1", "Share of the process's CPU time that it has used")
        meter.create_observable_counter(PROFILES, [_profiles], "{profile}", "Profiles that were put on spans")
        meter.create_observable_counter(EVIDENCE, [_missing], "{item}", "Evidence that was not attached")
        tally.record_lateness_with(_histogram(meter).record)


def _histogram(meter: Meter) -> Histogram:
    said = (LATENESS, "s", "How long after they were due snapshots were taken")
    try:
        return meter.create_histogram(*said, explicit_bucket_boundaries_advisory=_LATENESS_BUCKETS)
    except TypeError:  # an API that does not know of such advice
        return meter.create_histogram(*said)


def _watching() -> Introspection | None:
    introspection = active()
    return introspection if introspection is not None and introspection.watching else None


def _open(_options: CallbackOptions) -> Iterable[Observation]:
    introspection = _watching()
    return [] if introspection is None else [Observation(_in_flight(introspection))]


def _in_flight(introspection: Introspection) -> int:
    return len(introspection.table.open) + len(introspection.table.slow)


def _open_slow(_options: CallbackOptions) -> Iterable[Observation]:
    introspection = _watching()
    return [] if introspection is None else [Observation(len(introspection.table.slow))]


def _slow(_options: CallbackOptions) -> Iterable[Observation]:
    introspection = _watching()
    return [] if introspection is None else [Observation(introspection.table.turned_slow)]


def _saturation(_options: CallbackOptions) -> Iterable[Observation]:
    introspection, known = _watching(), capacity()
    if introspection is None or known is None:
        return []
    return [Observation(_in_flight(introspection) / known.limit, {_SERVER: known.server})]


def _tallied(what: tally.What, attribute: str) -> list[Observation]:
    return [
        Observation(number, {attribute: kind} if kind else {})
        for (which, kind), number in list(tally.counts.items())
        if which == what
    ]


def _snapshots(_options: CallbackOptions) -> Iterable[Observation]:
    return _tallied("snapshots", semconv.OBSERVER)


def _interruptions(_options: CallbackOptions) -> Iterable[Observation]:
    return _tallied("interruptions", semconv.TIMEOUT_MECHANISM)


def _recovered(_options: CallbackOptions) -> Iterable[Observation]:
    return _tallied("recovered", "")


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
    missing = dict(list(counts.items()))
    introspection = active()
    recorder = None if introspection is None else introspection.recorder
    if recorder is not None and recorder.overflowed:
        missing["dropped", "flight recorder has no slot"] = recorder.overflowed
    return [
        Observation(number, {"otel_introspect.outcome": kind, "otel_introspect.reason": reason})
        for (kind, reason), number in missing.items()
    ]
