"""The trace of a request that is still stuck, in the receiver."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from conftest import UNWANTED
from otlp_receiver import Receiver
from services import GUNICORN, SERVER, THRESHOLD_MS, free_port

pytestmark = pytest.mark.realtime

# Longer than any test: what comes while the request runs was sent because of us.
AHEAD = {"OTEL_BSP_SCHEDULE_DELAY": 60_000, "OTEL_PYTHON_INTROSPECT_WATCHDOG_CHECKPOINT": "first"}
SECONDS = 6
KINDS = ["sync", "gthread", "gevent", "uvicorn", "uvicorn-instrumented", "runserver"]


def assert_nobody_complained(service):
    assert [line for line in service.log.splitlines() if any(each in line for each in UNWANTED)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_while_the_request_runs(services, kind):
    """
    Under every server a checkpoint with the stack is in the receiver long before the request ends, once.
    """
    service = services(kind, **AHEAD)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(service.get(f"/slow?seconds={SECONDS}")))
    asking.start()

    def ours(span):
        return span.attributes.get("otel_introspect.checkpoint") is True and span.name.startswith("slow: ")

    found = service.all_spans(ours, count=1, seconds=SECONDS - 1)
    still_running = not answers
    asking.join()

    assert still_running
    (checkpoint,) = found
    assert checkpoint.trace_id == answers[0].trace_id
    (event,) = checkpoint.snapshots
    assert "in sleeping_helper\n" in event.stack
    assert checkpoint.attributes["otel_introspect.slow"] is True
    assert checkpoint.attributes.get("http.method", checkpoint.attributes.get("http.request.method")) == "GET"
    assert THRESHOLD_MS / 1000 <= checkpoint.end - checkpoint.start < SECONDS
    assert_nobody_complained(service)


def test_many_at_once_under_gevent(services):
    """
    With a hundred slow requests on one hub no batch is lost, and each request's own span arrives as well.
    """
    service = services("gevent", **{**AHEAD, "OTEL_BSP_SCHEDULE_DELAY": 200})
    answers = service.get_all(["/slow?seconds=1.5"] * 60)
    wanted = {each.trace_id for each in answers}

    spans = service.all_spans(lambda span: span.trace_id in wanted and span.kind == 2, count=len(wanted))

    assert {span.trace_id for span in spans} == wanted
    assert len(spans) == len(wanted)
    assert_nobody_complained(service)
    assert "Failed to export" not in service.log


def test_a_collector_that_comes_up_later(services):
    """
    With nobody listening, requests take as long as ever; once somebody is, what is slow then arrives.
    """
    port = free_port()
    service = services.start(
        "collector-later",
        command=[*GUNICORN, "-w", "1", "--threads", "8", "wsgi"],
        **{**AHEAD, "OTEL_BSP_SCHEDULE_DELAY": 200},
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{port}/later",
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=2,
    )
    try:
        began = time.monotonic()
        answers = service.get_all([*["/slow?seconds=1"] * 4, *["/fast"] * 4])
        took = time.monotonic() - began
        assert {each.status for each in answers} == {200}
        assert took < 5

        receiver = Receiver(port)
        try:
            deadline = time.monotonic() + 20
            arrived = []
            while not arrived and time.monotonic() < deadline:
                trace_id = service.get("/slow?seconds=1").trace_id
                arrived = receiver.wait_for(
                    "later", lambda span, wanted=trace_id: span.trace_id == wanted and span.kind == SERVER, seconds=3
                )
            assert arrived, service.log[-3000:]
            assert "in sleeping_helper\n" in arrived[0].snapshots[0].stack
        finally:
            receiver.close()
    finally:
        service.stop()
    assert_nobody_complained(service)


def test_a_silent_collector_delays_no_request(services):
    """
    With a collector that accepts and never answers, slow requests take as long as they do without us.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
        service = services.start(
            "silent",
            command=[*GUNICORN, "-w", "1", "--threads", "8", "wsgi"],
            **AHEAD,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces",
        )
        try:
            for _ in range(3):
                began = time.monotonic()
                answers = service.get_all(["/slow?seconds=1"] * 8)
                took = time.monotonic() - began

                assert {each.status for each in answers} == {200}
                assert took < 5
        finally:
            service.stop()
        assert_nobody_complained(service)
