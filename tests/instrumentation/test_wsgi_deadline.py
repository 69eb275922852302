"""The deadline of a WSGI request: within the call, within the body, and whether the server hears of it correctly."""

from __future__ import annotations

import io
import sys
import time
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import use_span

from otel_introspect import DeadlineExceeded, faults, timeout, timeouts
from otel_introspect.config import IntrospectConfig, TimeoutConfig
from otel_introspect.instrumentation.wsgi import DeadlineMiddleware
from otel_introspect.introspection import Introspection, activate

LIMIT = 0.06
FOREVER = 5.0
HEADERS = [("Content-Type", "text/plain")]
PLAIN = b"The request took too long.\n"


@pytest.fixture(autouse=True)
def _given_back():
    yield
    timeouts.release()


def spin(seconds=FOREVER):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)


class Server(SimpleHandler):
    """The standard library's handler of one request, without a network."""

    def __init__(self):
        self.sent = io.BytesIO()
        self.error = None
        environ = {"QUERY_STRING": ""}
        setup_testing_defaults(environ)
        super().__init__(io.BytesIO(), self.sent, io.StringIO(), environ, multithread=False, multiprocess=False)
        self.wsgi_file_wrapper = FileWrapper

    def handle_error(self):
        """As a server that closes the connection."""
        self.error = sys.exc_info()[1]
        self.close()

    @property
    def first_line(self):
        return self.sent.getvalue().split(b"\r\n", 1)[0]

    @property
    def body(self):
        return self.sent.getvalue().partition(b"\r\n\r\n")[2]


def serve(app):
    server = Server()
    server.run(app)
    return server


class Body:
    """A body that is closed, as a file is."""

    def __init__(self, chunks):
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.chunks)

    def close(self):
        self.closed += 1


def fast(_environ, start_response):
    start_response("200 OK", HEADERS)
    return [b"fast"]


def never(_environ, start_response):
    spin()
    start_response("200 OK", HEADERS)
    return [b"never"]


def test_a_request_in_time():
    """
    A request that is in time is answered by the application; a body that runs no code of its is handed on as it is.
    """
    body = [b"fast"]

    assert serve(DeadlineMiddleware(fast, LIMIT)).body == b"fast"
    assert DeadlineMiddleware(lambda *_: body, LIMIT)({}, None) is body


def test_a_file_goes_through():
    """
    What the server itself wraps for files is handed on, so that it can send the file in its own way.
    """
    file = FileWrapper(io.BytesIO(b"file"))

    assert DeadlineMiddleware(lambda *_: file, LIMIT)({"wsgi.file_wrapper": FileWrapper}, None) is file


def test_nothing_is_started_yet():
    """
    As long as the application has not begun a response, it is a 503 with a line of plain text.
    """
    server = serve(validator(DeadlineMiddleware(never, LIMIT)))

    assert server.error is None
    assert server.first_line.endswith(b"503 Service Unavailable")
    assert server.body == PLAIN
    assert b"Content-Length: %d\r\n" % len(PLAIN) in server.sent.getvalue()
    assert b"Retry-After" not in server.sent.getvalue()


def test_the_headers_are_not_sent_yet():
    """
    A response that is begun, but of which nothing has been sent, is replaced, in the call and in the body.
    """

    def in_the_call(_environ, start_response):
        start_response("200 OK", HEADERS)
        spin()
        return [b"never"]

    def in_the_body(_environ, start_response):
        start_response("200 OK", [*HEADERS, ("Content-Length", "1000")])
        spin()
        yield b"never"

    for app in (in_the_call, in_the_body):
        server = serve(DeadlineMiddleware(app, LIMIT))
        assert (server.error, server.body) == (None, PLAIN)
        assert server.first_line.endswith(b"503 Service Unavailable")


def test_the_headers_are_sent():
    """
    When a part of the body is out, the server gets a ``DeadlineExceeded``; what it has sent is not added to.
    """

    def with_chunks(_environ, start_response):
        start_response("200 OK", HEADERS)
        yield b"one "
        spin()
        yield b"two"

    def with_write(_environ, start_response):
        start_response("200 OK", HEADERS)(b"one ")
        spin()
        return [b"two"]

    for app in (with_chunks, with_write):
        server = serve(DeadlineMiddleware(app, LIMIT))
        assert isinstance(server.error, DeadlineExceeded)
        assert server.body == b"one "


def test_the_body_is_closed():
    """
    The application's body is closed once, when the server closes ours: interrupted, in time, or never iterated.
    """

    def slow():
        yield b"one"
        spin()

    bodies = [Body(slow()), Body([b"one"]), Body([])]
    for body in bodies:

        def app(_environ, start_response, body=body):
            start_response("200 OK", HEADERS)
            return body

        serve(DeadlineMiddleware(app, LIMIT))

    assert [body.closed for body in bodies] == [1, 1, 1]


def test_the_server_s_own_time_counts():
    """
    Between two chunks the server is not interrupted, but the application is as soon as it is asked for the next.
    """

    def app(_environ, start_response):
        start_response("200 OK", HEADERS)
        yield b"one"
        spin()
        yield b"two"

    body = DeadlineMiddleware(app, LIMIT)({}, lambda *_: None)
    first = next(body)
    spin(LIMIT * 2)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        next(body)

    assert first == b"one"
    assert time.monotonic() - started < FOREVER / 2


def test_another_response():
    """
    Another application may answer in its stead, with headers of its own, begun or not.
    """

    def late(environ, start_response):
        start_response("504 Gateway Timeout", [("X-Late", environ["PATH_INFO"])])
        return Body([b"late"])

    def begun(_environ, start_response):
        start_response("200 OK", HEADERS)
        spin()

    for app in (never, begun):
        server = serve(DeadlineMiddleware(app, LIMIT, response=late))
        assert (server.error, server.body) == (None, b"late")
        assert server.first_line.endswith(b"504 Gateway Timeout")
        assert b"X-Late: /" in server.sent.getvalue()


def test_another_response_that_fails():
    """
    If that raises, the plain 503 is sent, and the fault counted.
    """

    def broken(_environ, start_response):
        start_response("504 Gateway Timeout", HEADERS)
        raise ValueError("who answers fails")

    server = serve(DeadlineMiddleware(never, LIMIT, response=broken))

    assert (server.error, server.body) == (None, PLAIN)
    assert faults.counts == {("failed", "answering an interrupted request"): 1}


def test_errors_of_the_application_are_its_own():
    """
    What the application raises goes to the server unchanged.
    """

    def broken(_environ, _start_response):
        raise KeyError("its own")

    with pytest.raises(KeyError, match="its own"):
        DeadlineMiddleware(broken, LIMIT)({}, None)


def test_an_outer_limit_is_not_taken_for_ours():
    """
    What interrupts the request from outside passes through.
    """

    class Outer(BaseException):
        pass

    with pytest.raises(Outer), timeout(LIMIT, Outer):
        DeadlineMiddleware(never, FOREVER)({}, None)
    inner = DeadlineMiddleware(never, FOREVER)
    server = serve(DeadlineMiddleware(inner, LIMIT))

    assert server.body == PLAIN


def test_the_limit_is_the_configured_one(monkeypatch):
    """
    Without *seconds* the limit is that of the environment or of the instrumentor's settings; 0 is none.
    """
    monkeypatch.setenv("OTEL_PYTHON_INTROSPECT_TIMEOUT", "60")
    by_environment = DeadlineMiddleware(never)
    activate(Introspection(IntrospectConfig(timeout=TimeoutConfig(timeout=50))))
    by_settings = DeadlineMiddleware(never)
    activate(Introspection(IntrospectConfig()))

    assert serve(by_environment).body == serve(by_settings).body == PLAIN
    assert DeadlineMiddleware(lambda *_: "as it is")({}, None) == "as it is"
    assert DeadlineMiddleware(lambda *_: "as it is", 0)({}, None) == "as it is"


def test_the_request_s_span_says_so():
    """
    The span that was current in the call gets the evidence, even if the body is produced when it is not any more.
    """
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def app(_environ, start_response):
        start_response("200 OK", HEADERS)
        yield b"one"
        spin()

    span = provider.get_tracer(__name__).start_span("GET /")
    with use_span(span):
        body = DeadlineMiddleware(app, LIMIT)({}, lambda *_: None)
    with pytest.raises(DeadlineExceeded):
        list(body)
    span.end()

    (ended,) = exporter.get_finished_spans()
    assert ended.attributes["otel_introspect.interrupted"] is True
    assert [event.name for event in ended.events] == ["otel_introspect.timeout"]
