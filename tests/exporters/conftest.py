"""Spans to print, made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from otel_introspect import faults
from otel_introspect.exporters.span_view import EventView, SpanView

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND

STACK = """\
  File "/srv/venv/lib/python3.12/site-packages/django/core/handlers/base.py", line 197, in _get_response
    response = wrapped_callback(request)
  File "/srv/shop/views.py", line 42, in checkout
    reserve(article)
  File "/usr/lib/python3.12/threading.py", line 629, in wait
    signaled = self._cond.wait(timeout)"""


@pytest.fixture(autouse=True)
def _counts_of_this_test_only():
    faults.forget()
    yield
    faults.forget()


@pytest.fixture(name="make_span")
def _make_span():
    def make_span(span_id: str = "1", parent_id: str = "", **given: Any) -> SpanView:
        given.setdefault("trace_id", TRACE_ID)
        given.setdefault("entry", not parent_id)
        given.setdefault("name", f"span {span_id}")
        given.setdefault("kind", "SERVER" if given["entry"] else "INTERNAL")
        given.setdefault("start_ns", START)
        given.setdefault("end_ns", given["start_ns"] + SECOND)
        return SpanView(span_id=span_id, parent_id=parent_id, **given)

    return make_span


@pytest.fixture(name="make_snapshot")
def _make_snapshot():
    def make_snapshot(stack: str = STACK, elapsed_ms: int = 500, **more: Any) -> EventView:
        return EventView(
            "otel_introspect.stack_snapshot",
            START + elapsed_ms * 1_000_000,
            {"code.stacktrace": stack, "otel_introspect.elapsed_ms": elapsed_ms, **more},
        )

    return make_snapshot
