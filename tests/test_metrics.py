"""The metrics about ourselves."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_introspect import faults, metrics
from otel_introspect.config import IntrospectConfig, ProfilerConfig
from otel_introspect.introspection import Introspection, activate


@pytest.fixture(name="reader")
def _reader(monkeypatch):
    monkeypatch.setattr(metrics, "_published", False)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    metrics.publish(provider)

    yield reader

    provider.shutdown()


@pytest.fixture(name="introspection")
def _introspection():
    introspection = Introspection(IntrospectConfig(profiler=ProfilerConfig(triggers=("slow",))))
    activate(introspection)

    yield introspection

    introspection.stop()


def collected(reader):
    """Name, attributes and value of each data point."""
    data = reader.get_metrics_data()
    if data is None:
        return []
    return [
        (metric.name, dict(point.attributes), point.value)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


def test_nothing_is_told_without_an_introspection(reader):
    """
    Where nothing is set up there is nothing to tell, and nothing is made for telling it.
    """
    assert collected(reader) == []


def test_nothing_is_made_for_being_collected(reader, introspection):
    """
    Collecting does not load the profiler.
    """
    assert collected(reader) == []
    assert introspection.profiler_if_made() is None


def test_what_we_cost(reader, introspection):
    """
    Our CPU time is told in seconds and as a share of the process's.
    """
    introspection.profiler.sampler.cpu.spend(0.25)
    found = {name: value for name, _, value in collected(reader)}

    assert found["otel_introspect.cpu.time"] >= 0.25
    assert found["otel_introspect.cpu.utilization"] > 0


def test_what_we_did(reader, introspection):
    """
    Profiles are told by trigger, what was not attached by outcome and reason.
    """
    introspection.profiler.taken["slow"] = 3
    faults.count("refused", "profile: busy")
    found = collected(reader)

    assert ("otel_introspect.profiles", {"otel_introspect.profile.trigger": "slow"}, 3) in found
    missing = {"otel_introspect.outcome": "refused", "otel_introspect.reason": "profile: busy"}
    assert ("otel_introspect.evidence.missing", missing, 1) in found


def test_instruments_are_made_once(reader, introspection):
    """
    Setting up again makes no second instrument of a name.
    """
    metrics.publish()
    introspection.profiler.taken["tail"] = 1

    assert len([name for name, _, _ in collected(reader) if name == "otel_introspect.profiles"]) == 1


def test_a_broken_meter_provider_harms_nobody(monkeypatch):
    """
    A meter provider that raises costs the metrics, and nothing else.
    """
    monkeypatch.setattr(metrics, "_published", False)
    metrics.publish(object())

    assert faults.counts["failed", "publishing metrics"] == 1
