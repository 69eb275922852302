"""How a profile lands on its span: names, types and bounds, beside the snapshots."""

from __future__ import annotations

import sys

import pytest
from opentelemetry.sdk.trace import SpanLimits, TracerProvider

from otel_introspect import faults, semconv
from otel_introspect.config import EvidenceConfig
from otel_introspect.engine.stacks import capture, outwards
from otel_introspect.engine.watchdog import Snapshot
from otel_introspect.sinks.budget import SPAN_BYTES, size_of
from otel_introspect.sinks.reporter import Overrun, ProfileReport, SpanReporter

TAKEN = 1_700_000_000_000_000_000
SNAPSHOT = "otel_introspect.stack_snapshot"
PROFILE = "otel_introspect.profile"
ID = "ab" * 16


@pytest.fixture(name="reporter")
def _reporter(clock):
    return SpanReporter(EvidenceConfig(), clock=clock)


@pytest.fixture(name="span")
def _span():
    return TracerProvider().get_tracer(__name__).start_span("GET /")


def deep(n):
    return deep(n - 1) if n else capture(outwards(sys._getframe()))


def snapshot(depth=300, remaining=4):
    return Snapshot(
        taken=TAKEN,
        capture=deep(depth),
        thread_id=7,
        thread_name="worker",
        elapsed_ms=1000,
        threshold_ms=1000,
        observer="thread",
        lateness_ms=0,
        remaining=remaining,
    )


def report(**given):
    values = {
        "taken": TAKEN,
        "id": ID,
        "text": "1.000 view  views.py:5",
        "trigger": "slow",
        "engine": "sampler",
        "interval_ms": 10,
        "sample_count": 100,
        "duration_ms": 1000,
        "truncated": False,
        "url": None,
    }
    return ProfileReport(**{**values, **given})


def attached(span):
    return sum(size_of(event.name, event.attributes) for event in span.events)


def names(span):
    return [event.name for event in span.events]


def test_names_and_types_are_the_contract_s(reporter, span):
    """
    A profile event has exactly the attributes of the contract, each of its type; the span has its id.
    """
    assert reporter.report_profile(span, report(url="https://store.example/ab.html"))

    (event,) = span.events
    assert event.name == "otel_introspect.profile"
    assert event.timestamp == TAKEN
    assert {key: type(value) for key, value in event.attributes.items()} == {
        "otel_introspect.profile.id": str,
        "otel_introspect.profile.text": str,
        "otel_introspect.profile.trigger": str,
        "otel_introspect.profile.engine": str,
        "otel_introspect.profile.interval_ms": int,
        "otel_introspect.profile.sample_count": int,
        "otel_introspect.profile.duration_ms": int,
        "otel_introspect.profile.truncated": bool,
        "otel_introspect.profile.url": str,
    }
    assert dict(span.attributes) == {"otel_introspect.profile.id": ID}
    documented = {value for name, value in vars(semconv).items() if name.startswith("PROFILE_")}
    assert documented - {PROFILE} == set(event.attributes)


def test_a_profile_that_is_not_stored_has_no_url(reporter, span):
    """
    Where there is no whole profile to be had there is no key for it either.
    """
    reporter.report_profile(span, report())

    (event,) = span.events
    assert "otel_introspect.profile.url" not in event.attributes


def test_nothing_of_ours_is_called_an_exception(reporter, span):
    """
    No key of ours begins with ``exception.``: Grafana would show the event as *the* exception of the span.
    """
    reporter.report_profile(span, report())

    assert not [key for event in span.events for key in event.attributes if key.startswith("exception.")]


@pytest.mark.parametrize("depth", [1, 40, 300])
def test_snapshots_never_push_it_out(reporter, span, depth):
    """
    Five snapshots of long stacks, and then the longest text that there may be: all of it is on the span.
    """
    reporter.expect_profile(span)
    for number in range(5):
        assert reporter.report(span, snapshot(depth=depth + number, remaining=5 - number))
    text = "ä" * (reporter.room_for_profile(span) // 2)

    assert reporter.report_profile(span, report(text=text, url="https://store.example/" + "a" * 100))
    assert len(text.encode()) == 2000
    assert names(span) == [SNAPSHOT] * 5 + [PROFILE]
    assert attached(span) <= SPAN_BYTES
    assert not faults.counts


def test_any_number_of_snapshots_never_push_it_out(reporter, span):
    """
    Nor do fifty that somebody asks for one by one.
    """
    reporter.expect_profile(span)
    for number in range(50):
        reporter.report(span, snapshot(depth=100 + number, remaining=0))

    assert reporter.report_profile(span, report(text="x" * 2000))
    assert attached(span) <= SPAN_BYTES


def test_nor_does_an_interruption(reporter, span):
    """
    A deadline's event leaves its room, too.
    """
    reporter.expect_profile(span)
    for number in range(50):
        reporter.report_overrun(span, Overrun(TAKEN, deep(300 + number), 5, 6, "alarm", 1, None, "TimeoutError"))

    assert reporter.report_profile(span, report(text="x" * 2000))
    assert attached(span) <= SPAN_BYTES


def test_two_that_are_expected(reporter, span):
    """
    Room is kept for each: the first to come does not leave the second without.
    """
    reporter.expect_profile(span)
    reporter.expect_profile(span)
    assert reporter.report_profile(span, report(text="x" * 2000))
    reporter.expect_no_profile(span)
    for number in range(50):
        reporter.report(span, snapshot(depth=100 + number, remaining=0))

    assert reporter.room_for_profile(span) == 2000
    assert reporter.report_profile(span, report(text="y" * 2000, id="cd" * 16))
    assert span.attributes["otel_introspect.profile.id"] == "cd" * 16
    assert attached(span) <= SPAN_BYTES


def test_the_room_is_given_back(reporter, span):
    """
    A profile that is not taken after all leaves its room to snapshots.
    """
    for _ in range(20):
        reporter.expect_profile(span)
        reporter.expect_no_profile(span)
    reporter.expect_no_profile(span)

    for number in range(6):
        assert reporter.report(span, snapshot(depth=300 + number, remaining=5 - number))
    assert not faults.counts


def test_one_that_comes_late_makes_do(reporter, span):
    """
    Asked for after the snapshots have had what they wanted, it gets what is left, which is told beforehand.
    """
    for number in range(5):
        reporter.report(span, snapshot(depth=300 + number, remaining=5 - number))
    reporter.expect_profile(span)
    room = reporter.room_for_profile(span)

    assert 200 <= room < 2000
    assert reporter.report_profile(span, report(text="x" * room))
    assert attached(span) <= SPAN_BYTES


def test_a_long_url_takes_its_room_from_the_text(reporter, span):
    """
    A link that takes more than usual leaves less for the text; both are there.
    """
    url = "https://store.example/" + "a" * 1200
    reporter.expect_profile(span)
    for number in range(50):
        reporter.report(span, snapshot(depth=100 + number, remaining=0))
    room = reporter.room_for_profile(span, url)

    assert 200 <= room < 1000
    assert reporter.report_profile(span, report(text="x" * room, url=url))
    assert span.events[-1].attributes["otel_introspect.profile.url"] == url


def test_a_url_that_is_too_long(reporter, span):
    """
    A link longer than a string may be is left out, not cut: a part of it leads nowhere.
    """
    assert reporter.report_profile(span, report(url="https://store.example/" + "a" * 2000))

    assert "otel_introspect.profile.url" not in span.events[0].attributes
    assert faults.counts == {("dropped", "profile: its URL is too long"): 1}


@pytest.mark.parametrize("longest", [64, 200, 2000, 8000, 100_000])
def test_whatever_a_string_may_be(span, clock, longest):
    """
    With shorter strings and with longer ones there is room for snapshots and for the profile.
    """
    reporter = SpanReporter(EvidenceConfig(max_attribute_bytes=longest), clock=clock)
    reporter.expect_profile(span)
    for number in range(5):
        assert reporter.report(span, snapshot(depth=100 + number, remaining=5 - number))
    room = reporter.room_for_profile(span)

    assert room <= longest
    assert reporter.report_profile(span, report(text="x" * room))
    assert attached(span) <= SPAN_BYTES


def test_an_ended_span_is_left_alone(reporter, span, caplog):
    """
    To a span that has ended nothing is written, so that the SDK has nothing to warn about.
    """
    span.end()

    reporter.expect_profile(span)
    assert not reporter.report_profile(span, report())
    assert caplog.records == []
    assert span.events == ()


def test_the_application_s_events_are_never_pushed_out():
    """
    On a span that is full of events or attributes nothing of the application's goes for ours.
    """
    reporter = SpanReporter(EvidenceConfig())
    limits = SpanLimits(max_events=3, max_span_attributes=2)
    span = TracerProvider(span_limits=limits).get_tracer(__name__).start_span("GET /", attributes={"a": 1, "b": 2})
    assert reporter.report_profile(span, report())
    assert ID not in span.attributes.values()
    for number in range(2):
        span.add_event(str(number))

    assert not reporter.report_profile(span, report())
    assert names(span) == [PROFILE, "0", "1"]


def test_the_process_s_budget(reporter):
    """
    A process that has emitted what it may for now has no profile more; the span does not claim one.
    """
    tracer = TracerProvider().get_tracer(__name__)
    spans = [tracer.start_span(str(number)) for number in range(200)]
    taken = [reporter.report_profile(span, report(text="x" * 2000)) for span in spans]

    assert taken[0]
    assert not taken[-1]
    assert [bool(span.attributes) for span in spans] == taken
    assert faults.counts["dropped", "process budget"] == taken.count(False)


def test_a_sink_that_raises(span, clock):
    """
    A sink's fault is counted; the span does not name a profile that it does not have.
    """

    class Broken:
        def emit(self, *_args):
            raise RuntimeError

    reporter = SpanReporter(EvidenceConfig(), clock=clock, sinks=[Broken()])

    assert not reporter.report_profile(span, report())
    assert dict(span.attributes) == {}
    assert faults.counts == {("failed", "emitting to Broken"): 1}
