"""Profiles of WSGI requests: which are taken, what the application sees, and how long they go on."""

from __future__ import annotations

import time
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from opentelemetry import trace
from opentelemetry.baggage import get_baggage
from opentelemetry.context import get_current
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_introspect import faults, timeouts
from otel_introspect.config import IntrospectConfig, ProfilerConfig
from otel_introspect.instrumentation.wsgi import DeadlineMiddleware, ProfileMiddleware, service_unavailable
from otel_introspect.introspection import Introspection, activate
from otel_introspect.processors.watchdog import WatchdogSpanProcessor
from otel_introspect.triggers import tokens
from otel_introspect.triggers.travel import BAGGAGE_KEY

KEY = "only-for-these-tests"
HEADERS = [("Content-Type", "text/plain")]


class Service:
    """An application behind OpenTelemetry's middleware and ours, and a server."""

    def __init__(self, **settings):
        settings.setdefault("key", KEY)
        self.provider = TracerProvider()
        self.introspection = Introspection(IntrospectConfig(profiler=ProfilerConfig(**settings)))
        self.exporter = InMemorySpanExporter()
        self.provider.add_span_processor(WatchdogSpanProcessor(self.introspection))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        activate(self.introspection)
        self.headers = []

    def get(self, app, query="", path="/page", **environ):
        """The whole body of the answer."""
        body = self.start(ProfileMiddleware(app), query, path, **environ)
        try:
            return b"".join(body)
        finally:
            if hasattr(body, "close"):
                body.close()

    def start(self, app, query="", path="/page", **environ):
        environ = {"QUERY_STRING": query, "PATH_INFO": path, **environ}
        setup_testing_defaults(environ)

        def start_response(_status, headers, *_error):
            self.headers = headers
            return lambda _chunk: None

        return OpenTelemetryMiddleware(app, tracer_provider=self.provider)(environ, start_response)

    @property
    def outcome(self):
        return dict(self.headers).get("X-Introspect", "")

    @property
    def events(self):
        return [
            event
            for span in self.exporter.get_finished_spans()
            for event in span.events
            if event.name == "otel_introspect.profile"
        ]

    @property
    def text(self):
        (event,) = self.events
        return event.attributes["otel_introspect.profile.text"]


@pytest.fixture(name="service")
def _service(request):
    service = Service(**getattr(request, "param", {}))

    yield service

    service.provider.shutdown()
    timeouts.release()


def work(seconds=0.08):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(50))


def seen(environ):
    return repr((environ["QUERY_STRING"], "HTTP_X_INTROSPECT" in environ)).encode()


def application(environ, start_response):
    work()
    start_response("200 OK", HEADERS)
    return [seen(environ)]


def streaming(environ, start_response):
    start_response("200 OK", HEADERS)
    yield b"one "
    body_work()
    yield str(get_baggage(BAGGAGE_KEY) or "").encode()


def body_work():
    work()


def token(path=b"/page", query="", method="GET"):
    return tokens.sign(KEY, method, path, query)


def test_a_signed_request_is_profiled(service):
    """
    It is answered as always, with the headers in addition, and its span has the profile.
    """
    plain = service.get(application, "a=1")
    assert (service.outcome, len(service.events)) == ("", 0)
    signed = service.get(application, f"a=1&__introspect__={token(query='a=1')}")
    assert service.outcome.startswith("profiled; trace_id=")
    assert "Server-Timing" in dict(service.headers)
    in_header = service.get(application, "a=1", HTTP_X_INTROSPECT=token(query="a=1"))
    assert service.outcome.startswith("profiled; ")

    assert plain == signed == in_header
    assert len(service.events) == 2
    assert all("application  " in each.attributes["otel_introspect.profile.text"] for each in service.events)


def test_the_path_is_all_that_the_server_has_got(service):
    """
    The part before the application belongs to it, and bytes are what counts, whatever they mean.
    """
    environ = {"SCRIPT_NAME": "/shop", "path": "/\xff\xc3\x9f"}
    service.get(application, f"__introspect__={token(b'/shop' + bytes([47, 255, 195, 159]))}", **environ)

    assert service.outcome.startswith("profiled; ")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("__introspect__", "unsigned"),
        ("__geordi__=", "unsigned"),
        ("__introspect__=1", "malformed"),
        (f"__introspect__={tokens.sign('another key than ours', 'GET', b'/page', '')}", "bad-signature"),
        (f"__introspect__={token(method='POST')}", "bad-signature"),
    ],
    ids=["blank", "geordi's", "1", "another key's", "another method's"],
)
def test_why_it_is_not(service, query, reason):
    """
    A request that may not be profiled is answered as always, and told why not.
    """
    plain = service.get(application)

    assert service.get(application, query) == plain
    assert service.outcome == f"refused; reason={reason}"
    assert not service.events


def test_a_token_counts_once(service):
    """
    The same request again is refused.
    """
    query = f"__introspect__={token()}"
    service.get(application, query)
    service.get(application, query)

    assert service.outcome == "refused; reason=replayed"


def test_the_body_is_profiled(service):
    """
    A body that is made while it is sent is a part of the profile, and what it calls is told, too.
    """
    body = service.get(streaming, f"__introspect__={token()}")
    ((_, event),) = [(span, event) for span in service.exporter.get_finished_spans() for event in span.events]
    travelling = body.decode().removeprefix("one ")

    assert "body_work  " in event.attributes["otel_introspect.profile.text"]
    (span,) = service.exporter.get_finished_spans()
    service.introspection.request_trigger.check_travel(travelling, span.context.trace_id)
    assert service.get(streaming) == b"one "


def test_a_body_that_is_closed_early(service):
    """
    The profile ends with the body, and the application's own close is called.
    """
    closed = []

    class Body:
        def __iter__(self):
            yield b"one"
            work()
            yield b"two"

        def close(self):
            closed.append(True)

    def closing(_environ, start_response):
        work()
        start_response("200 OK", HEADERS)
        return Body()

    body = service.start(ProfileMiddleware(closing), f"__introspect__={token()}")
    assert next(body) == b"one"
    body.close()

    assert closed
    assert "closing  " in service.text


def test_an_application_that_raises(service):
    """
    The profile is on the span, and the exception is the server's to see.
    """

    def failing(_environ, _start_response):
        work()
        raise ValueError("the application fails")

    with pytest.raises(ValueError, match="the application fails"):
        service.get(failing, f"__introspect__={token()}")

    assert "failing  " in service.text
    assert get_current() == {}


def test_a_body_that_raises(service):
    """
    So it is where the body fails.
    """

    def failing(_environ, start_response):
        start_response("200 OK", HEADERS)
        yield b"one"
        work()
        raise ValueError("the body fails")

    with pytest.raises(ValueError, match="the body fails"):
        service.get(failing, f"__introspect__={token()}")

    assert "failing  " in service.text


def test_a_list_stays_a_list(service):
    """
    The server gets the list itself, as it treats those better.
    """
    answers = [b"one"]

    def plain(_environ, start_response):
        start_response("200 OK", HEADERS)
        return answers

    environ = {"QUERY_STRING": f"__introspect__={token()}", "PATH_INFO": "/page"}
    setup_testing_defaults(environ)
    with service.provider.get_tracer(__name__).start_as_current_span("GET /page"):
        assert ProfileMiddleware(plain)(environ, lambda *_: None) is answers
    assert len(service.events) == 1


def test_it_is_wsgi(service):
    """
    A validator has nothing to say, neither as the server nor as the application.
    """
    environ = {"QUERY_STRING": f"__introspect__={token()}", "PATH_INFO": "/page", "SCRIPT_NAME": ""}
    setup_testing_defaults(environ)
    body = validator(ProfileMiddleware(validator(streaming_once)))(environ, lambda *_: lambda _chunk: None)
    assert b"".join(body) == b"one two"
    body.close()


def streaming_once(_environ, start_response):
    start_response("200 OK", HEADERS)
    return iter([b"one ", b"two"])


def test_within_a_deadline(service):
    """
    Both kinds of middleware go together: an interrupted request keeps its profile.
    """

    def stuck(_environ, _start_response):
        work(5.0)

    query = f"__introspect__={token()}"
    body = service.start(ProfileMiddleware(DeadlineMiddleware(stuck, 0.06)), query)

    assert b"took too long" in b"".join(body)
    assert service.outcome.startswith("profiled; ")
    assert "stuck  " in service.text
    assert callable(service_unavailable)


@pytest.mark.parametrize(("answer", "admitted"), [(True, True), (1, False), (None, False)])
def test_whom_the_application_admits(service, answer, admitted):
    """
    A callable of the application's may admit who has not signed, by the answer True only.
    """
    asked = []

    def allow(environ):
        asked.append(environ["PATH_INFO"])
        return answer

    list(service.start(ProfileMiddleware(application, allow=allow), "__introspect__"))

    assert asked == ["/page"]
    assert service.outcome.startswith("profiled" if admitted else "refused; reason=not-allowed")


def from_settings(environ):
    return environ["REMOTE_USER"] == "staff"


@pytest.mark.parametrize("service", [{"allow": f"{__name__}:from_settings"}], indirect=True)
def test_whom_the_setting_admits(service):
    """
    Without one, what ``PROFILER_ALLOW`` names is asked; where that fails, nobody is admitted.
    """
    service.get(application, "__introspect__", REMOTE_USER="staff")
    assert service.outcome.startswith("profiled; ")
    service.get(application, "__introspect__", REMOTE_USER="anybody")
    assert service.outcome == "refused; reason=not-allowed"
    service.get(application, "__introspect__")
    assert service.outcome == "refused; reason=not-allowed"


def test_without_a_span(service):
    """
    Where the request has no span that is recorded, there is nothing to put a profile on.
    """
    environ = {"QUERY_STRING": f"__introspect__={token()}", "PATH_INFO": "/page"}
    setup_testing_defaults(environ)
    started = []
    ProfileMiddleware(application)(environ, lambda _status, headers: started.extend(headers))

    assert ("X-Introspect", "refused; reason=not-recorded") in started


def test_a_span_that_nobody_watches(service):
    """
    A span that is not an entry span, nor a child of one, is profiled where it is.
    """
    environ = {"QUERY_STRING": f"__introspect__={token()}", "PATH_INFO": "/page"}
    setup_testing_defaults(environ)
    tracer = service.provider.get_tracer(__name__)
    with tracer.start_as_current_span("a"), tracer.start_as_current_span("b"), tracer.start_as_current_span("c"):
        ProfileMiddleware(application)(environ, lambda *_: None)

    assert "application  " in service.text
    assert {span.name for span in service.exporter.get_finished_spans() if span.events} == {"c"}


def test_without_an_introspection(service):
    """
    Where nothing is set up, the application sees what was sent.
    """
    activate(None)

    assert b"__introspect__" in service.get(application, "__introspect__")
    assert service.outcome == ""


def test_a_fault_of_ours(service, monkeypatch):
    """
    A fault of our own leaves the page as it is.
    """

    def fail(*_args, **_kwargs):
        raise ValueError("a fault")

    monkeypatch.setattr(type(service.introspection), "request_trigger", property(fail))
    assert service.get(application, "__introspect__") == b"('', False)"
    assert service.outcome == "refused; reason=failed"
    assert faults.counts["failed", "beginning a profile that was asked for"] == 1
    assert trace.get_current_span() is trace.INVALID_SPAN
