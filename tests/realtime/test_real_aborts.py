"""Requests that end in no ordinary way, and what the next one on that worker sees."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from services import ERROR

pytestmark = pytest.mark.realtime


@pytest.mark.parametrize("kind", ["single", "gthread", "uvicorn", "runserver"])
@pytest.mark.parametrize("seconds", ["0", "0.5"])
def test_a_base_exception_ends_the_span(services, kind, seconds):
    """
    A request that ends in an exception which is no ``Exception`` has its span, ended as an error, with its evidence.
    """
    service = services(kind)
    trace_id = service.hang_up(f"/aborted?by=odd&seconds={seconds}", after=float(seconds) + 0.5)

    span = service.entry(trace_id)
    assert span.status == ERROR
    assert span.attributes["error.type"].endswith("Odd")
    assert len(span.snapshots) == (1 if float(seconds) else 0)


@pytest.mark.parametrize("kind", ["single", "gthread", "uvicorn", "runserver"])
def test_the_next_request_is_not_touched(services, kind):
    """
    After such a request the next one on the worker is a root of its own, and fast.
    """
    service = services(kind)
    service.hang_up("/aborted?by=odd", after=0.3)
    time.sleep(0.5)
    answer = service.get("/who", remote_parent=False)

    about = json.loads(answer.body)
    span = service.entry(about["trace"])
    assert span.parent_id == ""
    assert span.evidence == []
    assert [each for each in service.spans(about["trace"]) if each.span_id != span.span_id and each.kind == 2] == []


@pytest.mark.parametrize("kind", ["uvicorn", "gthread"])
@pytest.mark.parametrize("by", ["exit", "interrupt"])
def test_exits_and_interrupts(services, kind, by):
    """
    A ``SystemExit`` or ``KeyboardInterrupt`` in a view does to the server what it would do without us; the span ends.
    """
    service = services.start(kind)
    try:
        trace_id = service.hang_up(f"/aborted?by={by}&seconds=0.5", after=1.2)
        (span,) = service.spans(trace_id, seconds=6)[:1]
    finally:
        service.stop()
    assert span.status == ERROR
    assert len(span.snapshots) == 1
    assert "otel_introspect failed" not in service.log


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-instrumented"])
def test_a_client_that_goes_away(services, kind):
    """
    A request cancelled since its client has gone ends its span, with what was seen until then.
    """
    service = services(kind)
    trace_id = service.hang_up("/async/disconnected?seconds=2", after=0.7)

    span = service.entry(trace_id)
    assert span.snapshots
    assert "in innermost" in span.snapshots[0].stack
    assert service.ask("/async/fast").evidence == []


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-instrumented"])
def test_a_view_that_is_cancelled(services, kind):
    """
    A ``CancelledError`` out of an asynchronous view ends the span, and the next request is its own.
    """
    service = services(kind)
    trace_id = service.hang_up("/async/cancelled?seconds=0.5", after=1.0)

    assert service.entry(trace_id).snapshots
    about = json.loads(service.get("/who", remote_parent=False).body)
    assert service.entry(about["trace"]).parent_id == ""


@pytest.mark.parametrize("kind", ["single", "gthread", "uvicorn"])
def test_sigterm_during_a_slow_request(services, kind):
    """
    A server told to end while a request is slow lets it finish, exports its evidence and exits as it would without us.
    """
    service = services.start(kind)
    try:
        trace_id = service.hang_up("/slow?seconds=0.9", after=0.6)
        os.kill(service.process.pid, signal.SIGTERM)
        status = service.process.wait(15)
        spans = service.spans(trace_id, seconds=2)
    finally:
        service.stop()
    assert status in (0, -signal.SIGTERM)
    assert "Traceback" not in service.log
    assert "Fatal Python error" not in service.log
    if spans:  # what is exported at the end is the SDK's to say
        assert spans[0].slow


def test_a_worker_that_is_told_to_exit(services):
    """
    ``sys.exit`` in a request of a synchronous worker ends the worker, not the service.
    """
    service = services.start("sync")
    try:
        service.hang_up("/exiting_thread", after=0.5)
        deadline = time.monotonic() + 10
        while service.get("/fast").status != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        span = service.ask("/slow?seconds=0.5")
    finally:
        service.stop()
    assert len(span.snapshots) == 1
    assert "otel_introspect failed" not in service.log
