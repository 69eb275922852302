"""What counts as an explanation, and what as left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_introspect.demo.evidence import Evidence
from otel_introspect.demo.visits import FAST_ROUTES, SLOW_VISITS, SlowVisit
from otel_introspect.exporters.span_view import EventView, SpanView

VISIT = SlowVisit("a slow thing", "/slow/", "slow/", "the_slow_part", "look here")


def span(route, function=None, *, slow=False):
    events = ()
    if function:
        stack = f'  File "/srv/a.py", line 1, in {function}'
        events = (EventView("otel_introspect.stack_snapshot", 0, {"code.stacktrace": stack}),)
    attributes = {"http.route": route}
    if slow:
        attributes["otel_introspect.slow"] = True
    return SpanView(
        trace_id=f"trace of {route}",
        span_id="1",
        parent_id="",
        entry=True,
        name="",
        kind="SERVER",
        start_ns=0,
        end_ns=5,
        attributes=attributes,
        events=events,
    )


@pytest.fixture(name="evidence")
def _evidence():
    return Evidence((VISIT,))


def test_a_stack_with_the_function_explains_the_visit(evidence):
    """
    A visit is explained when a stack on its slow span shows the function that was slow.
    """
    (arrival,) = evidence.add([span("slow/", "the_slow_part", slow=True)])

    assert arrival.visit is VISIT
    assert evidence.missing() == []


@pytest.mark.parametrize(("function", "slow"), [("another_part", True), (None, True), ("the_slow_part", False)])
def test_less_than_that_does_not(evidence, function, slow):
    """
    Another function's stack, no stack, or a stack on a span that is not marked as slow is not enough.
    """
    evidence.add([span("slow/", function, slow=slow)])

    assert evidence.missing() == [VISIT]
    assert not evidence.without_trace(VISIT)


def test_a_trace_that_did_not_come_is_told_from_one_without_evidence(evidence):
    """
    The reader is told whether the trace or only its evidence is missing.
    """
    assert evidence.without_trace(VISIT)


def test_evidence_on_the_span_of_a_streamed_body_counts(evidence):
    """
    A span that comes after its trace, without a route of its own, counts for the request that it belongs to.
    """
    evidence.add([span("slow/")])
    body = span("slow/", "the_slow_part", slow=True)
    late = replace(body, span_id="2", parent_id="1", entry=False, attributes={"otel_introspect.slow": True})

    (arrival,) = evidence.add([late])

    assert arrival.visit is VISIT
    assert evidence.missing() == []


def test_fast_requests_are_counted_and_those_that_were_not_fast_told_apart(evidence):
    """
    A fast request with anything on its span is not one that was left alone.
    """
    arrivals = evidence.add([span("cart/"), span("products/<int:pk>/", "f", slow=True)])

    assert (evidence.fast, evidence.fast_but_slow) == (2, 1)
    assert [arrival.visit for arrival in arrivals] == [None]


def test_every_visit_can_be_told_from_the_others():
    """
    Each slow visit has a route of its own, which is none of the fast ones.
    """
    routes = [visit.route for visit in SLOW_VISITS]

    assert len(set(routes)) == len(routes)
    assert not FAST_ROUTES & set(routes)
