"""The metrics about ourselves."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_introspect import capacity, faults, metrics, tally, timeout
from otel_introspect.config import IntrospectConfig, ProfilerConfig
from otel_introspect.errors import DeadlineExceeded
from otel_introspect.introspection import Introspection, activate


@pytest.fixture(autouse=True)
def _afresh(monkeypatch):
    """What other tests have counted is not told, nor what they have said of a server."""
    tally.forget()
    monkeypatch.delitem(sys.modules, "uwsgi", raising=False)

    yield

    tally.forget()
    tally.record_lateness_with(None)
    capacity.note(None)


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
        (metric.name, dict(point.attributes), getattr(point, "value", None))
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


class Served:
    """A worker of gunicorn's, as far as that matters."""

    def __init__(self, module, **settings):
        self.cfg = SimpleNamespace(**settings)
        self.__class__ = type("Worker", (Served,), {"__module__": module})


def test_nothing_is_told_without_an_introspection(reader):
    """
    Where nothing is set up there is nothing to tell, and nothing is made for telling it.
    """
    assert collected(reader) == []


def test_nothing_is_made_for_being_collected(reader, introspection):
    """
    Collecting loads no profiler, and tells what is open: nothing.
    """
    assert {(name, value) for name, _, value in collected(reader)} == {
        ("otel_introspect.entry_spans.open", 0),
        ("otel_introspect.entry_spans.open_slow", 0),
        ("otel_introspect.entry_spans.slow", 0),
    }
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


def test_entry_spans(reader, make_tracing):
    """
    How many are open, how many of these are slow, and how many have turned slow, is read from the live table.
    """
    tracing = make_tracing(threshold=100)
    activate(tracing.introspection)
    first, second = tracing.start("one"), tracing.start("two")
    tracing.look(50)
    assert numbers(reader, "otel_introspect.entry_spans") == {"open": 2, "open_slow": 0, "slow": 0}

    tracing.look(50)
    first.end()
    third = tracing.start("three")
    assert numbers(reader, "otel_introspect.entry_spans") == {"open": 2, "open_slow": 1, "slow": 2}
    second.end()
    third.end()
    assert numbers(reader, "otel_introspect.entry_spans") == {"open": 0, "open_slow": 0, "slow": 2}


def numbers(reader, prefix):
    return {name.rpartition(".")[2]: value for name, _, value in collected(reader) if name.startswith(prefix)}


def test_snapshots(reader, make_tracing):
    """
    Snapshots are told by observer, with how late they were, in seconds.
    """
    tracing = make_tracing(threshold=100, max_snapshots=2)
    activate(tracing.introspection)
    span = tracing.start("slow")
    tracing.look(130)
    tracing.look(70)
    span.end()

    assert ("otel_introspect.snapshots", {"otel_introspect.observer": "thread"}, 2) in collected(reader)
    (point,) = points(reader, "otel_introspect.snapshots.lateness")
    assert (point.count, dict(point.attributes)) == (2, {"otel_introspect.observer": "thread"})
    assert point.sum == pytest.approx(0.03)
    assert point.explicit_bounds[:2] == (0.001, 0.002)


def points(reader, name):
    return [
        point
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def test_interruptions(reader, introspection):
    """
    Work that hits its limit is told by the way in which it was interrupted, also where no span says so.
    """
    with pytest.raises(DeadlineExceeded), timeout(0.05):
        spin()

    expected = ("otel_introspect.interruptions", {"otel_introspect.timeout.mechanism": "alarm"}, 1)
    assert expected in collected(reader)


def spin():
    while True:
        pass


def test_recovered_spans(reader, introspection):
    """
    Who recovers spans counts them.
    """
    tally.tally("recovered", number=3)

    assert ("otel_introspect.recovered_spans", {}, 3) in collected(reader)


def test_spans_that_find_no_slot(reader, introspection, monkeypatch):
    """
    What the flight recorder has no room for is evidence that is missing.
    """
    monkeypatch.setattr(introspection.recorder, "overflowed", 7)
    missing = {"otel_introspect.outcome": "dropped", "otel_introspect.reason": "flight recorder has no slot"}

    assert ("otel_introspect.evidence.missing", missing, 7) in collected(reader)


@pytest.mark.parametrize(
    ("worker", "expected"),
    [
        (Served("gunicorn.workers.sync"), {"gunicorn sync": 2.0}),
        (Served("gunicorn.workers.gthread", threads=8), {"gunicorn gthread": 0.25}),
        (Served("gunicorn.workers.ggevent", worker_connections=1000), {"gunicorn ggevent": 0.002}),
        (Served("somebody.elses"), {}),
    ],
)
def test_saturation(reader, make_tracing, worker, expected):
    """
    What is open is told as a share of what the server serves at a time; nothing is where that is not known.
    """
    tracing = make_tracing()
    activate(tracing.introspection)
    spans = [tracing.start("one"), tracing.start("two")]
    capacity.note(capacity.of_gunicorn(worker))
    found = {
        attributes["otel_introspect.server"]: value
        for name, attributes, value in collected(reader)
        if name == "otel_introspect.workers.saturation"
    }
    for each in spans:
        each.end()

    assert found == expected


def test_gunicorn_s_own_workers():
    """
    Each kind of gunicorn's workers is known for what it is.
    """
    config = pytest.importorskip("gunicorn.config").Config()
    config.set("threads", 3)
    found = {}
    for name in ("sync", "gthread"):
        module = importlib.import_module(f"gunicorn.workers.{name}")
        (kind,) = [
            each
            for each in vars(module).values()
            if getattr(each, "__module__", "") == module.__name__ and each.__name__.endswith("Worker")
        ]
        worker = kind.__new__(kind)
        worker.cfg = config
        found[name] = capacity.of_gunicorn(worker)

    assert found == {"sync": (1, "gunicorn sync"), "gthread": (3, "gunicorn gthread")}


@pytest.mark.parametrize(
    ("arguments", "variable", "expected"),
    [
        (["/bin/uvicorn", "--limit-concurrency", "50", "app:app"], "", (50, "uvicorn")),
        (["/bin/uvicorn", "--limit-concurrency=50", "app:app"], "7", (50, "uvicorn")),
        (["/lib/uvicorn/__main__.py", "app:app"], "7", (7, "uvicorn")),
        (["/bin/uvicorn", "app:app"], "", None),
        (["/bin/uvicorn", "app:app", "--limit-concurrency"], "", None),
        (["/bin/uvicorn", "app:app", "--limit-concurrency", "many"], "", None),
        (["/bin/other", "--limit-concurrency", "50"], "7", None),
        ([], "7", None),
    ],
)
def test_uvicorn_s_limit(monkeypatch, arguments, variable, expected):
    """
    It is taken from where the user has said it, and nowhere else.
    """
    monkeypatch.setitem(sys.modules, "uvicorn", SimpleNamespace())
    monkeypatch.setenv("UVICORN_LIMIT_CONCURRENCY", variable)
    monkeypatch.setattr(sys, "argv", arguments)

    assert capacity.capacity() == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 1), ({b"threads": b"4"}, 4), ({"threads": "4"}, 4), ({b"gevent": b"100"}, 100), ({b"threads": True}, 1)],
)
def test_uwsgi_s_limit(monkeypatch, options, expected):
    """
    uWSGI says itself how many requests a worker serves.
    """
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=options))

    assert capacity.capacity() == (expected, "uwsgi")


def test_a_forked_child_counts_its_own():
    """
    What a parent has done is not counted once more by its children.
    """
    tally.tally("snapshots", "thread")
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, repr(dict(tally.counts)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)

    assert said == b"{}"


def test_a_histogram_that_raises(introspection):
    """
    An instrument that raises costs no request anything.
    """

    def fails(*_):
        raise ValueError("no")

    tally.record_lateness_with(fails)
    tally.late(5, {})

    assert faults.counts["failed", "recording how late a snapshot was"] == 1


def test_every_metric_is_documented():
    """
    The page about metrics names each of them, and none that there is not.
    """
    names = {
        value for name, value in vars(metrics).items() if name.isupper() and name[0] != "_" and isinstance(value, str)
    }
    page = (Path(__file__).parent.parent / "docs" / "reference" / "metrics.md").read_text()

    assert set(re.findall(r"^\| `(otel_introspect\.[a-z_.]+)`", page, re.MULTILINE)) == names


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
