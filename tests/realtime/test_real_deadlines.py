"""Requests that outlive their deadline under real servers: answered on time, by the same worker, and marked."""

from __future__ import annotations

import json
import time

import pytest
from postgresql import PostgreSQL, find_binaries
from services import ERROR

pytestmark = pytest.mark.realtime

LIMIT_MS = 400
# Two noisy cores: an idle machine is on time by some 10 ms.
LATE = 1.5
PLAIN = "The request took too long.\n"


@pytest.fixture(name="serve")
def _serve(services):
    def serve(kind, **environ):
        return services(
            kind, DJANGO_SETTINGS_MODULE="deadline_settings", OTEL_PYTHON_INTROSPECT_TIMEOUT=LIMIT_MS, **environ
        )

    return serve


@pytest.fixture(scope="module", name="postgresql")
def _postgresql():
    pytest.importorskip("psycopg")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("there is no PostgreSQL server on this machine")
    server = PostgreSQL(binaries)

    yield server

    server.stop()


def ask(service, path):
    """The answer to a request and how many seconds it took."""
    started = time.monotonic()
    answer = service.get(f"/deadline/{path}")
    return answer, time.monotonic() - started


def worker(service):
    return json.loads(ask(service, "worker")[0].body)


def is_idle(service):
    """Whether PostgreSQL soon is in no transaction of anybody's."""
    deadline = time.monotonic() + LATE
    while time.monotonic() < deadline:
        if {state for state, _ in json.loads(ask(service, "sessions")[0].body)} <= {None, "idle"}:
            return True
        time.sleep(0.05)
    return False


def interruptions(span):
    """The events that say so: under ASGI a task's, and that of the thread it waits for."""
    assert span.status == ERROR
    assert span.attributes["otel_introspect.interrupted"] is True
    return [event.attributes for event in span.events if event.name == "otel_introspect.timeout"]


def test_a_regular_expression_ten_times_in_a_row(serve):
    """
    A worker of gunicorn's that is stuck in a regular expression answers with 503 on time, and stays the same worker.
    """
    service = serve("single")
    before = worker(service)["pid"]
    answers = [ask(service, "regex") for _ in range(10)]

    assert [(answer.status, answer.body) for answer, _ in answers] == [(503, PLAIN)] * 10
    assert max(seconds for _, seconds in answers) < LIMIT_MS / 1000 + LATE
    assert worker(service)["pid"] == before
    for answer, _ in answers:
        span = service.entry(answer.trace_id)
        (event,) = interruptions(span)
        assert span.attributes["http.status_code"] == 503
        assert span.attributes["error.type"] == "RequestInterrupted"
        assert event["otel_introspect.timeout.mechanism"] == "alarm"
        assert "in regex" in event["code.stacktrace"]


@pytest.mark.parametrize("kind", ["single", "gthread", "uvicorn"])
@pytest.mark.parametrize("path", ["loop", "query", "limited"])
def test_a_synchronous_view(serve, kind, path):
    """
    A loop in Python, a query of SQLite and a view with a timeout of its own end on time, on every thread.
    """
    service = serve(kind)
    answer, seconds = ask(service, path)

    assert (answer.status, answer.body) == (503, PLAIN)
    assert seconds < LIMIT_MS / 1000 + LATE
    assert any(f"in {path}" in event["code.stacktrace"] for event in interruptions(service.entry(answer.trace_id)))
    assert service.ask("/fast").evidence == []


def test_an_asynchronous_view(serve):
    """
    The task of an asynchronous view is cancelled, and others on the loop go on.
    """
    service = serve("uvicorn")
    started = time.monotonic()
    late, other = service.get_all(["/deadline/waiting", "/async/nested?seconds=0.2"])

    assert time.monotonic() - started < LIMIT_MS / 1000 + LATE
    assert (late.status, late.body, other.status) == (503, PLAIN, 200)
    (event,) = interruptions(service.entry(late.trace_id))
    assert event["otel_introspect.timeout.mechanism"] == "task_cancel"


def test_the_next_request_is_its_own(serve):
    """
    After an interruption a request without a remote parent is the root of a trace of its own.
    """
    service = serve("single")
    ask(service, "regex")
    about = json.loads(service.get("/who", remote_parent=False).body)

    assert service.entry(about["trace"]).parent_id == ""


def test_a_transaction_of_postgresql_is_rolled_back(serve, postgresql):
    """
    What an interrupted request has written is gone, its connection is closed, and the next request gets another one.
    """
    service = serve("single", PROJECT_POSTGRESQL=postgresql.folder)
    assert ask(service, "prepare")[0].status == 200
    assert worker(service)["connected"]
    answer, seconds = ask(service, "writing")

    assert (answer.status, answer.body) == (503, PLAIN)
    assert seconds < LIMIT_MS / 1000 + LATE
    assert not worker(service)["connected"]
    assert ask(service, "notes")[0].body == "0"
    assert is_idle(service)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("single", "-c client_connection_check_interval=200ms"),
        ("single", "-c statement_timeout=600ms"),
        ("gthread", "-c statement_timeout=600ms"),
        ("uvicorn", "-c statement_timeout=600ms"),
    ],
)
def test_a_query_of_postgresql_ends_with_the_request(serve, postgresql, kind, options):
    """
    The server's setting ends the query itself a little after the deadline, whether it could be interrupted or not.
    """
    service = serve(kind, PROJECT_POSTGRESQL=postgresql.folder, PROJECT_POSTGRESQL_OPTIONS=options)
    assert ask(service, "prepare")[0].status == 200
    answer, seconds = ask(service, "writing_slowly")

    assert (answer.status, answer.body) == (503, PLAIN)
    assert seconds < 0.6 + LATE
    assert is_idle(service)
    assert ask(service, "notes")[0].body == "0"
