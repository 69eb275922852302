"""Spans are kept until their entry span comes, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_introspect import faults
from otel_introspect.exporters.span_view import SpanView
from otel_introspect.exporters.trace_buffer import TraceBuffer


def ids(traces):
    return [[span.span_id for span in trace.spans] for trace in traces]


def test_children_wait_for_their_entry_span(make_span):
    """
    Nothing comes out until the entry span does, then all that belongs to it.
    """
    buffer = TraceBuffer()

    assert buffer.add([make_span("3", "2"), make_span("2", "1")]) == []
    assert ids(buffer.add([make_span("1")])) == [["3", "2", "1"]]
    assert len(buffer) == 0


def test_a_process_that_calls_itself_has_two_traces(make_span):
    """
    Two entry spans in one trace are each handed out with their own children only.
    """
    buffer = TraceBuffer()
    buffer.add([make_span("inner child", "inner"), make_span("outer child", "outer")])

    inner = buffer.add([make_span("inner", "outer child", entry=True)])
    outer = buffer.add([make_span("outer")])

    assert ids(inner) == [["inner child", "inner"]]
    assert ids(outer) == [["outer child", "outer"]]


def test_they_are_two_in_one_batch_as_well(make_span):
    """
    An entry span that arrives together with the one that caused it does not become a part of that one's tree.
    """
    outer, inner = make_span("outer"), make_span("inner", "outer", entry=True)

    assert ids(TraceBuffer().add([outer, inner])) == [["outer"], ["inner"]]


def test_what_ends_after_its_parent_comes_by_itself(make_span):
    """
    A child that ends after its trace was handed out (a streamed body) is handed out at once, and called late.
    """
    buffer = TraceBuffer()
    buffer.add([make_span("1")])

    assert buffer.add([make_span("3", "2")]) == []
    (trace,) = buffer.add([make_span("2", "1")])

    assert [span.span_id for span in trace.spans] == ["3", "2"]
    assert trace.late


def test_the_oldest_are_dropped_and_counted(make_span):
    """
    When too many spans wait the oldest go, and the count of dropped ones says so.
    """
    buffer = TraceBuffer(max_spans=3)
    buffer.add(make_span(f"{number}", "1", trace_id=f"trace {number // 2}") for number in range(2, 7))

    assert len(buffer) == 3
    assert ids(buffer.drain()) == [["4", "5"], ["6"]]
    assert sum(faults.counts.values()) == 2


def test_draining_gives_what_is_left(make_span):
    """
    What waits in vain comes out as partial traces, once.
    """
    buffer = TraceBuffer()
    buffer.add([make_span("2", "1")])

    (trace,) = buffer.drain()

    assert trace.partial
    assert buffer.drain() == []


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 9), st.booleans()), max_size=60),
    st.integers(1, 20),
)
def test_bounds_hold_and_nothing_comes_out_twice(rows, max_spans):
    """
    For any spans in any order the bound holds, and each comes out once at most.
    """
    buffer = TraceBuffer(max_spans)
    given_spans = [
        SpanView(f"t{trace}", f"{trace}.{span}", f"{trace}.{parent}" if parent else "", entry, "", "", number, number)
        for number, (trace, span, parent, entry) in enumerate(rows)
    ]
    came = []
    for span in given_spans:
        came += [each for trace in buffer.add([span]) for each in trace.spans]
        assert len(buffer) <= max_spans
    came += [each for trace in buffer.drain() for each in trace.spans]

    assert len(buffer) == 0
    assert len({id(span) for span in came}) == len(came)
