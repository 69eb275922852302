"""The names in all files: attributes, events and metrics are ones that the package has, as it calls them."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
from collector_files import ROOT, parse, text

from otel_introspect import metrics, semconv

FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file())
DASHBOARD = "grafana/dashboards/slow-requests.json"
_OURS = re.compile(r"otel_introspect(?:\.[a-z_]+)+")
_SERIES = re.compile(r"\botel_introspect_[a-z_]+")


def ours(module):
    return {
        value
        for name, value in vars(module).items()
        if name.isupper() and name[0] != "_" and str(value).startswith("otel_introspect.")
    }


NAMES = ours(semconv) | ours(metrics) | {"otel_introspect.server", "otel_introspect.outcome", "otel_introspect.reason"}


@pytest.mark.parametrize("name", FILES)
def test_every_name_of_ours_is_one(name):
    """
    Each attribute, event and metric that a file mentions is in semconv or among the metrics.
    """
    assert sorted({found.rstrip(".") for found in _OURS.findall(text(name))} - NAMES) == []


class Recorder:
    """A meter provider that only notes what is made."""

    def __init__(self):
        self.made = {}

    def get_meter(self, *_args, **_given):
        return self

    def __getattr__(self, name):
        kind = name.removeprefix("create_").removeprefix("observable_")

        def create(metric, *given, **_more):
            unit = next(each for each in given if isinstance(each, str))
            self.made[metric] = (kind, unit)
            return SimpleNamespace(record=None)

        return create


def prometheus(metric, kind, unit):
    """What Prometheus's OTLP receiver calls it: UnderscoreEscapingWithSuffixes, its default."""
    name = re.sub(r"[^a-z0-9]", "_", metric)
    if unit == "s":
        name += "_seconds"
    if kind == "gauge" and unit == "1":
        name += "_ratio"
    if kind == "counter":
        name += "_total"
    return [f"{name}_{each}" for each in ("bucket", "sum", "count")] if kind == "histogram" else [name]


@pytest.fixture(name="series")
def _series(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(metrics, "_published", False)
    monkeypatch.setattr(metrics.tally, "record_lateness_with", lambda _record: None)
    monkeypatch.setattr(metrics, "get_meter", lambda *_args, **_given: recorder)
    metrics.publish()
    assert set(recorder.made) == ours(metrics)
    return {name for metric, (kind, unit) in recorder.made.items() for name in prometheus(metric, kind, unit)}


@pytest.mark.parametrize("name", [DASHBOARD, "grafana/provisioning/datasources/datasources.yaml"])
def test_every_series_exists(series, name):
    """
    Each series that a panel or a link asks for is one of our metrics, as Prometheus names it; labels are attributes.
    """
    labels = {re.sub(r"\W", "_", each) for each in NAMES}

    asked = {each for each in _SERIES.findall(text(name)) if each.startswith("otel_introspect_")}

    assert asked - series - labels == set()
    assert asked & series


def test_the_dashboard_shows_each_metric(series):
    """
    Every metric that we have is in the dashboard somewhere; of the lateness its buckets are.
    """
    asked = set(_SERIES.findall(text(DASHBOARD)))

    assert {each for each in series if not each.endswith(("_sum", "_count"))} - asked == set()


def panels():
    return [panel for panel in json.loads(text(DASHBOARD))["panels"] if panel["type"] != "row"]


def test_the_panels_are_laid_out():
    """
    Each panel has its own id and place, overlaps no other one, fits the grid's 24 columns and says what it shows.
    """
    every = json.loads(text(DASHBOARD))["panels"]
    taken = set()
    for panel in every:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in every}) == len(every)
    assert [panel["title"] for panel in panels() if not panel["description"]] == []


def test_the_panels_data_sources_are_provisioned():
    """
    Each panel and each link asks a data source that the provisioning file defines, by its uid and its type.
    """
    sources = {each["uid"]: each for each in parse("grafana/provisioning/datasources/datasources.yaml")["datasources"]}

    for panel in panels():
        for target in panel["targets"]:
            assert target["datasource"]["type"] == sources[target["datasource"]["uid"]]["type"]
    linked = re.findall(r"datasourceUid: (\w+)", text("grafana/provisioning/datasources/datasources.yaml"))
    assert set(linked) <= set(sources)
    assert [each["uid"] for each in sources.values() if each.get("isDefault")] == ["tempo"]


def test_jaeger_s_links():
    """
    Each link pattern has what Jaeger's page asks for, on spans and on events under their new and old names.
    """
    patterns = json.loads(text("jaeger-ui.json"))["linkPatterns"]
    code = {"code.file.path", "code.line.number", "code.function.name"}

    for pattern in patterns:
        assert set(pattern) == {"type", "key", "url", "text"}
        assert pattern["type"] in (["attributes", "tags"], ["events", "logs"])
        parameters = set(re.findall(r"#\{([^}]*)\}", pattern["url"] + pattern["text"]))
        assert parameters <= NAMES | code | {"trace.traceID"}
        # A value is put in as a part of a URL, with each / as %2F: it can be a query's value or a name, not a path.
        assert re.match(r"https?://[^#]+#\{", pattern["url"])
    assert {"otel_introspect.profile.id", "otel_introspect.profile.url", "code.file.path"} <= {
        pattern["key"] for pattern in patterns
    }


_BRACES = re.compile(r"[(){}]")


def traceql():
    """Every TraceQL query in our files and pages."""
    examples = text("grafana/traceql-examples.md")
    found = re.findall(r"\| `(\{.*\})` \|", examples)
    found += [line for line in examples.splitlines() if line.startswith("{ ")]
    for page in sorted((ROOT.parent / "docs").glob("*/*.md")):
        found += re.findall(r"`(\{ (?:span|event)\b[^`]*\})`", page.read_text(encoding="utf-8"))
    return found + [
        target["query"] for panel in panels() for target in panel["targets"] if target["datasource"]["type"] == "tempo"
    ]


@pytest.mark.parametrize("query", traceql())
def test_traceql(query):
    """
    Braces and quotes are balanced, numbers begin with a digit, and each attribute has the scope that it is found by.
    """
    bare = re.sub(r'"[^"]*"', '""', query.replace("${service:regex}", ""))
    assert query.count('"') % 2 == 0
    depth = 0
    for brace in _BRACES.findall(bare):
        depth += 1 if brace in "({" else -1
        assert depth >= 0
    assert depth == 0
    # Only what a span has is compared: of a mark that most spans don't have, != finds nothing.
    assert re.findall(r"[\w.]+ != true", bare) == []
    # Grafana's grammar, which has no number without a digit before its point, marks such a query as wrong.
    assert re.findall(r"(?<![\w\"}])[.]\d", bare) == []
    for scope, name in re.findall(r"(\w+)[.](otel_introspect[\w.]*)", bare):
        assert scope == ("event" if _is_of_an_event(name) else "span")


def _is_of_an_event(name):
    on_spans = {
        semconv.SLOW,
        semconv.SNAPSHOTS,
        semconv.RECOVERED,
        semconv.CHECKPOINT,
        semconv.INTERRUPTED,
        semconv.PROFILE_ID,
    }
    return name not in on_spans
