"""The deadline of an ASGI request: cancelled in its task, and answered if it is not too late for that."""

from __future__ import annotations

import asyncio
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_introspect import DeadlineExceeded, faults, timeouts
from otel_introspect.config import IntrospectConfig, TimeoutConfig
from otel_introspect.instrumentation.asgi import DeadlineMiddleware
from otel_introspect.introspection import Introspection, activate

LIMIT = 0.06
FOREVER = 5.0
HTTP = {"type": "http"}
START = {"type": "http.response.start", "status": 200, "headers": []}
PLAIN = b"The request took too long.\n"


@pytest.fixture(autouse=True)
def _given_back():
    yield
    timeouts.release()


async def receive():
    return {"type": "http.disconnect"}


def serve(app, scope=HTTP):
    """Serve one request; returns what was sent."""
    sent = []

    async def send(message):
        sent.append(message)

    started = time.monotonic()
    try:
        asyncio.run(app(scope, receive, send))
    except DeadlineExceeded as error:
        sent.append(error)
    assert time.monotonic() - started < FOREVER / 2
    return sent


async def never(_scope, _receive, send):
    await asyncio.sleep(FOREVER)
    await send(START)


async def fast(_scope, _receive, send):
    await send(START)
    await send({"type": "http.response.body", "body": b"fast"})


def is_plain(sent):
    start, body = sent
    return start["status"] == 503 and body["body"] == PLAIN and b"retry-after" not in dict(start["headers"])


def test_a_request_in_time():
    """
    A request that is in time is answered by the application.
    """
    assert serve(DeadlineMiddleware(fast, LIMIT)) == [START, {"type": "http.response.body", "body": b"fast"}]


def test_nothing_is_started_yet():
    """
    As long as the response has not been started, it is a 503 with a line of plain text.
    """
    sent = serve(DeadlineMiddleware(never, LIMIT))

    assert is_plain(sent)
    assert dict(sent[0]["headers"])[b"content-length"] == b"%d" % len(PLAIN)


def test_the_response_is_started():
    """
    Then the server gets a ``DeadlineExceeded``, and nothing is sent that would end the body as if it were whole.
    """

    async def app(_scope, _receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await asyncio.sleep(FOREVER)

    start, body, error = serve(DeadlineMiddleware(app, LIMIT))

    assert (start, body["body"]) == (START, b"one")
    assert isinstance(error, DeadlineExceeded)


def test_the_response_is_complete():
    """
    What an application does after its response is ended in silence.
    """

    async def app(scope, receive, send):
        await fast(scope, receive, send)
        await asyncio.sleep(FOREVER)

    assert len(serve(DeadlineMiddleware(app, LIMIT))) == 2


def test_finally_blocks_run():
    """
    The application sees a cancellation, and may clean up as long as it needs.
    """
    said = []

    async def app(_scope, _receive, _send):
        try:
            await asyncio.sleep(FOREVER)
        except asyncio.CancelledError:
            said.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0.01)
            said.append("finally")

    assert is_plain(serve(DeadlineMiddleware(app, LIMIT)))
    assert said == ["cancelled", "finally"]


def test_another_response():
    """
    Another application may answer in its stead.
    """

    async def late(scope, _receive, send):
        await send({**START, "status": 504})
        await send({"type": "http.response.body", "body": scope["type"].encode()})

    start, body = serve(DeadlineMiddleware(never, LIMIT, response=late))

    assert (start["status"], body["body"]) == (504, b"http")


def test_another_response_that_fails():
    """
    If that raises before it has started, the plain 503 is sent; after that, the server gets its error.
    """

    async def broken(_scope, _receive, _send):
        raise ValueError("who answers fails")

    async def half(_scope, _receive, send):
        await send(START)
        raise ValueError("who answers fails")

    assert is_plain(serve(DeadlineMiddleware(never, LIMIT, response=broken)))
    assert faults.counts == {("failed", "answering an interrupted request"): 1}
    with pytest.raises(ValueError, match="who answers fails"):
        serve(DeadlineMiddleware(never, LIMIT, response=half))


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_scopes_have_no_deadline(kind):
    """
    WebSockets and the lifespan take as long as they take.
    """

    async def app(_scope, _receive, send):
        await asyncio.sleep(LIMIT * 3)
        await send({"type": "done"})

    assert serve(DeadlineMiddleware(app, LIMIT), {"type": kind}) == [{"type": "done"}]


def test_a_cancellation_from_outside_stays_one():
    """
    A server that cancels the request, as its client has gone, sees it cancelled.
    """

    async def run():
        task = asyncio.create_task(DeadlineMiddleware(never, FOREVER)(HTTP, receive, None))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_one_within_the_other():
    """
    The outer one's interruption passes through the inner one.
    """
    assert is_plain(serve(DeadlineMiddleware(DeadlineMiddleware(never, FOREVER), LIMIT)))
    assert is_plain(serve(DeadlineMiddleware(DeadlineMiddleware(never, LIMIT), FOREVER)))


def test_the_limit_is_the_configured_one(monkeypatch):
    """
    Without *seconds* the limit is that of the environment or of the instrumentor's settings; 0 is none.
    """
    monkeypatch.setenv("OTEL_PYTHON_INTROSPECT_TIMEOUT", "60")
    by_environment = DeadlineMiddleware(never)
    activate(Introspection(IntrospectConfig(timeout=TimeoutConfig(timeout=50))))
    by_settings = DeadlineMiddleware(never)
    activate(Introspection(IntrospectConfig()))

    assert is_plain(serve(by_environment))
    assert is_plain(serve(by_settings))
    assert len(serve(DeadlineMiddleware(fast))) == len(serve(DeadlineMiddleware(fast, 0))) == 2


def test_the_request_s_span_says_so():
    """
    The current span gets the evidence.
    """
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer(__name__).start_as_current_span("GET /"):
        serve(DeadlineMiddleware(never, LIMIT))

    (span,) = exporter.get_finished_spans()
    assert span.attributes["otel_introspect.interrupted"] is True
    assert [event.attributes["otel_introspect.timeout.mechanism"] for event in span.events] == ["task_cancel"]
