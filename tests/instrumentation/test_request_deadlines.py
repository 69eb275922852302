"""A Django request that outlives its deadline: what it is answered with, and what it leaves behind."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

pytest.importorskip("django")

import deadline_site
from deadline_site import FOREVER, connection, said
from django.conf import settings
from django.db.backends.signals import connection_created
from django.test import AsyncClient, Client, TestCase
from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from otel_introspect import faults, timeouts
from otel_introspect.config import IntrospectConfig, TimeoutConfig
from otel_introspect.instrumentation.django import IntrospectDjangoInstrumentor, interruption, request_deadline
from otel_introspect.introspection import Introspection, activate

LIMIT_MS = 60
# Where a thread connects to the database first: interrupted at that, it would leave the connection to the collector.
LIMIT_WITH_CONNECTING_MS = 400
PLAIN = b"The request took too long.\n"


class Site:
    """The site, with the instrumentors that a launcher would run."""

    def __init__(self, provider):
        self._provider = provider
        self.exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def configure(self, timeout=LIMIT_MS, **more):
        config = IntrospectConfig(timeout=TimeoutConfig(timeout=timeout, **more))
        activate(Introspection(config, tracer_provider=self._provider))

    def get(self, path):
        return Client(raise_request_exception=False).get(path)

    def get_async(self, path):
        async def get():
            return await AsyncClient(raise_request_exception=False).get(path)

        return asyncio.run(get())

    @property
    def span(self):
        """The last request's."""
        return self.exporter.get_finished_spans()[-1]

    @property
    def mechanisms(self):
        return {
            event.attributes["otel_introspect.timeout.mechanism"]
            for event in self.span.events
            if event.name == "otel_introspect.timeout"
        }


@pytest.fixture(name="site")
def _site():
    provider = TracerProvider()
    DjangoInstrumentor().instrument(tracer_provider=provider)
    instrumentor = IntrospectDjangoInstrumentor()
    instrumentor.instrument()
    said.clear()
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS note")
        cursor.execute("CREATE TABLE note (text TEXT)")
    site = Site(provider)
    site.configure()

    yield site

    instrumentor.uninstrument()
    DjangoInstrumentor().uninstrument()
    connection.close()
    provider.shutdown()
    timeouts.enable_timeouts()
    timeouts.release()
    assert request_deadline.current.get() is request_deadline.NO_DEADLINE
    assert not [key for key, *_ in connection_created.receivers if "otel_introspect" in str(key)]


def notes():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM note")
        return cursor.fetchone()[0]


def elapsed(function, *arguments):
    started = time.monotonic()
    function(*arguments)
    return time.monotonic() - started


# What is answered.


@pytest.mark.parametrize("path", ["/busy", "/sleeping", "/stubborn", "/fast?slow=1"])
def test_a_request_past_its_deadline_is_answered_with_503(site, path, monkeypatch):
    """
    Whatever it does, in a view or in middleware, and whatever exceptions it catches, it ends soon, with a plain 503.
    """
    monkeypatch.setattr(settings, "MIDDLEWARE", [*settings.MIDDLEWARE, "deadline_site.slow_middleware"])
    started = time.monotonic()
    response = site.get(path)

    assert time.monotonic() - started < FOREVER / 2
    assert (response.status_code, response.content) == (503, PLAIN)
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "Retry-After" not in response.headers


def test_a_request_within_its_deadline(site):
    """
    A request that is in time is answered as it would be without a deadline, and nothing is written to its span.
    """
    response = site.get("/fast")

    assert (response.status_code, response.content) == (200, b"fast")
    assert site.span.status.status_code is StatusCode.UNSET
    assert not site.span.events


def test_no_deadline(site):
    """
    With the timeout 0, which is the default, and with all of them disabled, no request is interrupted.
    """
    for options in ({"timeout": 0}, {"disabled": True}):
        site.configure(**options)
        assert site.get("/leisurely").content == b"leisurely"
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_timeouts_disabled_in_code(site):
    """
    ``disable_timeouts`` holds for requests, too.
    """
    timeouts.disable_timeouts()

    assert site.get("/leisurely").content == b"leisurely"


def test_streamed_bodies_have_no_deadline(site):
    """
    A body that is streamed after the view has returned may take as long as it wants.
    """
    assert site.get("/streaming").getvalue() == b"one two"


@pytest.mark.parametrize("view", ["late_callable", "late_coroutine", "late_with_template"])
@pytest.mark.parametrize("get", [Site.get, Site.get_async])
def test_a_view_answers_instead(site, get, view):
    """
    ``TIMEOUT_VIEW`` names what makes the response: a function, a coroutine function, or one that returns a template's.
    """
    site.configure(view=f"deadline_site.{view}")
    response = get(site, "/tidy")

    assert response.status_code == 504
    assert b"/tidy was too slow" in response.content


@pytest.mark.parametrize("get", [Site.get, Site.get_async])
def test_a_template_answers_instead(site, get):
    """
    ``TIMEOUT_VIEW`` may also be the name of a template, which knows the request and is sent with status 503.
    """
    site.configure(view="late.html")
    response = get(site, "/tidy")

    assert (response.status_code, response.content) == (503, b"<p>/tidy was too slow</p>")


def test_who_answers_may_ask_the_database(site):
    """
    By then the interrupted transaction is rolled back, and queries are not cut any more.
    """
    site.configure(view="deadline_site:late_with_query")
    response = site.get("/writing")

    assert (response.status_code, response.content) == (504, b"0")


@pytest.mark.parametrize(
    "view", ["nowhere.to_be_found", "deadline_site.late_and_broken", "deadline_site.late_and_nothing", "no.html"]
)
def test_a_view_that_fails_to_answer(site, view, caplog):
    """
    If it can't be found, raises or returns no response, the plain 503 is sent; the fault is logged once and counted.
    """
    site.configure(view=view)
    answers = [site.get("/tidy") for _ in range(2)]

    assert [(each.status_code, each.content) for each in answers] == [(503, PLAIN)] * 2
    assert faults.counts == {("failed", "answering an interrupted request as TIMEOUT_VIEW says"): 2}
    assert len([each for each in caplog.records if each.name == "otel_introspect.faults"]) == 1


# What is left behind.


def test_finally_blocks_run(site):
    """
    The interruption goes through the application as any exception does.
    """
    site.get("/tidy")

    assert said == ["finally"]


def test_the_span_says_so_and_ends(site):
    """
    OpenTelemetry's middleware ends the span with the 503; it is an error and carries the interruption.
    """
    site.get("/busy")
    (span,) = site.exporter.get_finished_spans()

    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["http.status_code"] == 503
    assert span.attributes["otel_introspect.interrupted"] is True
    assert span.attributes["error.type"] == "RequestInterrupted"
    assert site.mechanisms == {"alarm"}


def test_the_next_request_is_not_touched(site):
    """
    After an interruption the next request on the thread is a root of its own, and there is no current span in between.
    """
    site.get("/busy")

    assert trace.get_current_span() is trace.INVALID_SPAN
    assert site.get("/fast").content == b"fast"
    assert site.span.parent is None
    assert not site.span.events


def test_ten_in_a_row(site):
    """
    One interruption is like the other.
    """
    assert [site.get("/busy").status_code for _ in range(10)] == [503] * 10
    assert site.get("/fast").status_code == 200


@pytest.mark.parametrize("path", ["/writing", "/writes_and_spins"])
@pytest.mark.parametrize("is_atomic", [True, False])
def test_an_open_transaction_is_rolled_back(site, path, is_atomic, monkeypatch):
    """
    With ``atomic`` or ``ATOMIC_REQUESTS`` nothing of an interrupted request stays; its connection is closed.
    """
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", is_atomic)
    before = connection.connection
    response = site.get(path)

    assert response.status_code == 503
    assert connection.connection is None
    assert notes() == (0 if is_atomic or path == "/writing" else 1)
    assert connection.connection is not before


def test_a_connection_that_is_lost_in_a_transaction(site):
    """
    Even if the interruption came while Django was leaving a transaction, the next request has a connection that works.
    """
    assert site.get("/lost_in_transaction").status_code == 503

    assert not connection.in_atomic_block
    assert notes() == 0


def test_the_transaction_of_a_test_goes_on(site):
    """
    Within Django's ``TestCase`` the connection, on which the test has its own transaction, is left alone.
    """

    class Test(TestCase):
        def test(self):
            self.answer = site.get("/writing")
            self.notes = notes()

    test = Test("test")
    result = test.run()

    assert result.wasSuccessful(), result
    assert (test.answer.status_code, test.notes) == (503, 0)


def test_a_connection_that_fails_to_close(site, monkeypatch):
    """
    The response is sent all the same.
    """

    def broken():
        connection.connection.close()
        raise OSError("the network is gone")

    monkeypatch.setattr(connection, "_close", broken)
    response = site.get("/writing")
    monkeypatch.undo()

    assert response.content == PLAIN
    assert faults.counts == {("failed", "closing a database connection"): 1}


def test_a_request_within_a_request(site):
    """
    The interruption of a request is not taken for that of another one which it makes in its own process.
    """
    assert site.get("/outer").content == PLAIN

    assert [each.attributes.get("otel_introspect.interrupted") for each in site.exporter.get_finished_spans()][
        -1
    ] is True


# Queries.


def test_a_query_of_sqlite_is_cut(site):
    """
    SQLite's C code is not interrupted by any POSIX signal, so it asks itself whether the deadline has passed.
    """
    started = time.monotonic()
    response = site.get("/querying")

    assert time.monotonic() - started < FOREVER / 2
    assert (response.status_code, response.content) == (503, PLAIN)
    assert site.span.attributes["otel_introspect.interrupted"] is True
    assert notes() == 0


def test_a_query_within_the_view_s_own_timeout_is_cut_too(site):
    """
    What limits the view limits its queries.
    """
    site.configure(timeout=60_000)

    assert site.get("/querying_within_its_own").status_code == 503


def test_other_queries_are_not_cut(site):
    """
    Outside requests a query may take as long as it wants, on the same connection, too; so may it with no deadline.
    """
    site.get("/querying")
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e6) SELECT sum(i) FROM n"
        )
        assert cursor.fetchone() == (500000500000,)


def test_the_application_s_own_interrupted_query(site):
    """
    Such an error of the application's own is an error, as long as the request is in time.
    """
    assert site.get("/interrupted_by_itself").status_code == 500


# What a view says itself.


@pytest.mark.parametrize("timeout", [0, 60_000])
@pytest.mark.parametrize(
    ("get", "path"),
    [
        (Site.get, "/limited"),
        (Site.get_async, "/limited"),
        (Site.get, "/limited_async"),
        (Site.get_async, "/limited_async"),
    ],
)
def test_a_view_s_own_timeout_is_answered_alike(site, timeout, get, path):
    """
    A ``DeadlineExceeded`` that a view lets through becomes the same 503, whether requests have a deadline or not.
    """
    site.configure(timeout=timeout)
    response = get(site, path)

    assert (response.status_code, response.content) == (503, PLAIN)
    assert site.span.attributes["error.type"] == "DeadlineExceeded"


@pytest.mark.parametrize("get", [Site.get, Site.get_async])
@pytest.mark.parametrize("path", ["/patient", "/patient_async", "/exempted", "/exempted_async"])
def test_a_view_may_take_longer(site, get, path):
    """
    A view's own timeout replaces the request's deadline, and an exempt view has none.
    """
    response = get(site, path)

    assert (response.status_code, response.content.decode()) == (200, path[1:])
    assert not site.span.events


# Under ASGI.


@pytest.mark.parametrize("path", ["/waiting", "/waiting_for_a_query"])
def test_an_asynchronous_view_is_cancelled(site, path):
    """
    Under ASGI the task in which a view runs is cancelled, and the response is the same.
    """
    site.configure(timeout=LIMIT_WITH_CONNECTING_MS)

    assert elapsed(site.get_async, path) < FOREVER / 2
    assert site.span.attributes["http.status_code"] == 503
    assert "task_cancel" in site.mechanisms
    assert said == (["finally"] if path == "/waiting" else [])


@pytest.mark.parametrize("path", ["/tidy", "/querying", "/rendering"])
@pytest.mark.parametrize("middleware", [[], ["deadline_site.sync_only"]])
def test_a_synchronous_view_under_asgi_is_interrupted_on_its_thread(site, path, middleware, monkeypatch):
    """
    The thread that works for the task is interrupted, too: in a view, a query or a template.
    """
    monkeypatch.setattr(settings, "MIDDLEWARE", [*settings.MIDDLEWARE, *middleware])
    site.configure(timeout=LIMIT_WITH_CONNECTING_MS)
    started = time.monotonic()
    response = site.get_async(path)

    assert time.monotonic() - started < FOREVER / 2
    assert (response.status_code, response.content) == (503, PLAIN)
    assert "async_exception" in site.mechanisms


def test_an_asynchronous_view_inside_synchronous_middleware(site, monkeypatch):
    """
    The view's task is cancelled where a thread waits for it, too.
    """
    monkeypatch.setattr(settings, "MIDDLEWARE", [*settings.MIDDLEWARE, "deadline_site.sync_only"])
    response = site.get_async("/waiting")

    assert (response.status_code, said) == (503, ["finally"])
    assert site.mechanisms == {"task_cancel"}


def test_an_asynchronous_view_under_wsgi(site):
    """
    A view that Django gives an event loop of its own is cancelled in there.
    """
    response = site.get("/waiting")

    assert (response.status_code, said) == (503, ["finally"])
    assert site.mechanisms == {"task_cancel"}


def test_a_thread_that_can_not_be_interrupted(site, monkeypatch):
    """
    If the request's thread does not let itself be interrupted, the response does not wait for it longer than a while.
    """
    monkeypatch.setattr(interruption, "_PATIENCE", 0.05)
    DjangoInstrumentor().uninstrument()  # whose middleware waits for that thread in any case
    response = site.get_async("/uninterruptible")

    assert (response.status_code, response.content) == (503, PLAIN)


def test_rendered_responses_are_as_django_makes_them(site):
    """
    What limits the rendering of a template is gone once that is done.
    """
    site.configure(timeout=60_000, view="late.html")
    deadline_site.Slow.__str__, original = (lambda _: "quick"), deadline_site.Slow.__str__
    try:
        response = site.get_async("/rendering")
    finally:
        deadline_site.Slow.__str__ = original

    assert response.content == b"quick"
    assert "render" not in vars(response)
