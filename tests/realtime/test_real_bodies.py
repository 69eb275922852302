"""Streamed bodies: their evidence is on a span of their own, and whatever happens to them nothing stays behind."""

from __future__ import annotations

import contextlib
import http.client
import time

import pytest
from services import ERROR

pytestmark = pytest.mark.realtime


def body_span(service, trace_id):
    """The span of a slow body; there is one at most."""
    found = [each for each in service.spans(trace_id, count=2, seconds=8) if each.scope == "otel_introspect"]
    assert len(found) == 1, service.log[-2000:]
    return found[0]


def no_body_span(service, trace_id):
    return not [each for each in service.spans(trace_id, count=9, seconds=0.8) if each.scope == "otel_introspect"]


@pytest.mark.parametrize(
    ("kind", "path", "function"),
    [
        ("gthread", "/body/sync_body", "sync_chunks"),
        ("sync", "/body/sync_body", "sync_chunks"),
        ("gthread", "/body/slow_file_body", "read_slowly"),
        ("gthread", "/body/async_body_of_sync_view", "chunk_source"),
        ("uvicorn", "/body/sync_body", "sync_chunks"),
        ("uvicorn", "/body/sync_body_of_async_view", "sync_chunks"),
        ("uvicorn", "/body/async_body", "chunk_source"),
        ("uvicorn", "/body/async_body_of_sync_view", "chunk_source"),
        ("uvicorn-instrumented", "/body/async_body", "chunk_source"),
        ("uvicorn-instrumented", "/body/sync_body", "sync_chunks"),
    ],
)
def test_a_slow_body_says_where(services, kind, path, function):
    """
    A slow body has a span with snapshots that name what produces it, wherever that runs.
    """
    service = services(kind)
    answer = service.get(path)

    assert answer.status == 200
    deadline = time.monotonic() + 8
    snapshots = []
    while not snapshots and time.monotonic() < deadline:
        snapshots = [event for span in service.spans(answer.trace_id) for event in span.snapshots]
        time.sleep(0.1)
    assert snapshots
    assert any(function in each.words for each in snapshots), [each.words for each in snapshots]


def test_the_spans_of_a_slow_body(services):
    """
    The request's own span ends before its body and is not slow; the body's is a child of it and spans the body.
    """
    service = services("gthread")
    answer = service.get("/body/sync_body")
    body = body_span(service, answer.trace_id)
    request = service.entry(answer.trace_id)

    assert request.evidence == []
    assert body.parent_id == request.span_id
    assert 0.7 < body.end - body.start < 3
    assert body.slow is True
    assert len(body.snapshots) == body.attributes["otel_introspect.snapshots"] == 2


@pytest.mark.parametrize("kind", ["gthread", "uvicorn"])
@pytest.mark.parametrize("path", ["/body/sync_body?seconds=0", "/body/async_body?seconds=0", "/body/file_body"])
def test_a_fast_body_has_no_span(services, kind, path):
    """
    A body that is quick leaves no span and no evidence.
    """
    service = services(kind)
    answer = service.get(path)

    assert answer.status == 200
    assert service.entry(answer.trace_id).evidence == []
    assert no_body_span(service, answer.trace_id)


@pytest.mark.parametrize("kind", ["gthread", "runserver", "uvicorn"])
def test_a_body_that_nobody_iterates(services, kind):
    """
    A body that is never asked for, as under HEAD, ends with its response.
    """
    service = services(kind)
    answer = service.get("/body/head_body", method="HEAD")

    assert answer.status == 200
    assert no_body_span(service, answer.trace_id)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("gthread", "/body/raising_body"),
        ("uvicorn", "/body/raising_body"),
        ("uvicorn", "/body/raising_async_body"),
    ],
)
def test_a_slow_body_that_raises(services, kind, path):
    """
    A slow body that breaks off has a span that says so.
    """
    service = services(kind)
    with contextlib.suppress(http.client.HTTPException, OSError):  # whatever the client makes of it
        service.get(path)
    (span,) = service.all_spans(
        lambda span: span.scope == "otel_introspect" and span.attributes.get("error.type") == "ValueError", count=1
    )[-1:]

    assert span.status == ERROR
    assert len(span.snapshots) >= 1


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("gthread", "/body/long_body"),
        ("uvicorn", "/body/long_body"),
        ("uvicorn", "/body/long_async_body"),
    ],
)
def test_a_client_that_leaves_in_the_middle_of_a_body(services, kind, path):
    """
    A slow body whose client goes away ends, with what was seen until then, and the next request is served.
    """
    service = services(kind)
    trace_id = service.hang_up(path, after=1.2)

    span = body_span(service, trace_id)
    assert span.snapshots
    assert span.end - span.start < 8
    assert service.get("/fast").status == 200


@pytest.mark.parametrize("kind", ["gthread", "uvicorn"])
def test_an_exempt_body(services, kind):
    """
    The body of an exempt view is not watched either.
    """
    service = services(kind)
    answer = service.get("/body/exempted_body")

    assert "second" in answer.body
    assert no_body_span(service, answer.trace_id)
