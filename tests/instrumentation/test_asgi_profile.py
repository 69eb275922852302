"""Profiles of ASGI requests: which are taken, what the application sees, and how long they go on."""

from __future__ import annotations

import asyncio
import time

import pytest
from opentelemetry.baggage import get_baggage
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_introspect import timeouts
from otel_introspect.config import IntrospectConfig, ProfilerConfig
from otel_introspect.instrumentation.asgi import DeadlineMiddleware, ProfileMiddleware, service_unavailable
from otel_introspect.introspection import Introspection, activate
from otel_introspect.processors.watchdog import WatchdogSpanProcessor
from otel_introspect.profiling import pools
from otel_introspect.triggers import tokens
from otel_introspect.triggers.travel import BAGGAGE_KEY

KEY = "only-for-these-tests"
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


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
        self.headers = {}

    async def ask(self, app, query="", headers=(), **scope):
        app = OpenTelemetryMiddleware(app, tracer_provider=self.provider)
        sent = []

        async def send(message):
            sent.append(message)

        async def receive():
            return {"type": "http.disconnect"}

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/page",
            "query_string": query.encode(),
            "headers": [*headers],
            "server": ("localhost", 80),
            **scope,
        }
        await app(scope, receive, send)
        self.headers = dict(sent[0]["headers"])
        return b"".join(each["body"] for each in sent[1:])

    def get(self, app, query="", headers=(), **scope):
        return asyncio.run(self.ask(ProfileMiddleware(app), query, headers, **scope))

    @property
    def outcome(self):
        return self.headers.get(b"x-introspect", b"").decode()

    @property
    def profiles(self):
        return [
            (span, event.attributes["otel_introspect.profile.text"])
            for span in self.exporter.get_finished_spans()
            for event in span.events
            if event.name == "otel_introspect.profile"
        ]

    @property
    def text(self):
        ((_, text),) = self.profiles
        return text


@pytest.fixture(name="service")
def _service(request):
    pools.follow()
    service = Service(**getattr(request, "param", {}))

    yield service

    service.provider.shutdown()
    pools.leave()
    timeouts.release()


def work(seconds=0.08):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(50))


async def application(scope, _receive, send):
    work()
    await send(START)
    body = repr((scope["query_string"], scope["headers"])).encode()
    await send({"type": "http.response.body", "body": body})


def token(path=b"/page", query="", method="GET"):
    return tokens.sign(KEY, method, path, query)


def test_a_signed_request_is_profiled(service):
    """
    It is answered as always, with the headers in addition, and its span has the profile.
    """
    plain = service.get(application, "a=1")
    assert (service.outcome, service.profiles) == ("", [])
    signed = service.get(application, f"a=1&__introspect__={token(query='a=1')}")
    assert service.outcome.startswith("profiled; trace_id=")
    assert b"server-timing" in service.headers
    in_header = service.get(application, "a=1", [(b"x-introspect", token(query="a=1").encode())])
    assert service.outcome.startswith("profiled; ")

    assert plain == signed == in_header
    assert [("application  " in text, span.kind.name) for span, text in service.profiles] == [(True, "SERVER")] * 2


@pytest.mark.parametrize("scope", [{"raw_path": b"/stra%C3%9Fe"}, {"raw_path": b"/stra%C3%9Fe?a=1"}, {}])
def test_the_path_is_what_the_server_has_got(service, scope):
    """
    Its bytes count, undecoded where the server hands them on, in UTF-8 where not.
    """
    service.get(application, f"__introspect__={token('/straße'.encode())}", path="/straße", **scope)

    assert service.outcome.startswith("profiled; ")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("__introspect__", "unsigned"),
        ("__geordi__=", "unsigned"),
        ("__introspect__=1", "malformed"),
        (f"__introspect__={token(method='POST')}", "bad-signature"),
    ],
    ids=["blank", "geordi's", "1", "another method's"],
)
def test_why_it_is_not(service, query, reason):
    """
    A request that may not be profiled is answered as always, and told why not.
    """
    plain = service.get(application)

    assert service.get(application, query) == plain
    assert service.outcome == f"refused; reason={reason}"
    assert not service.profiles


def test_a_token_counts_once(service):
    """
    The same request again is refused.
    """
    query = f"__introspect__={token()}"
    service.get(application, query)
    service.get(application, query)

    assert service.outcome == "refused; reason=replayed"


async def streamed_work():
    work()
    await asyncio.sleep(0)


async def streaming(_scope, _receive, send):
    await send(START)
    await send({"type": "http.response.body", "body": b"one ", "more_body": True})
    await streamed_work()
    await send({"type": "http.response.body", "body": str(get_baggage(BAGGAGE_KEY) or "").encode()})
    after_work()


def after_work():
    work()


def test_until_the_response_is_complete(service):
    """
    A body that is made while it is sent is a part of the profile; what comes after it is not.
    """
    body = service.get(streaming, f"__introspect__={token()}")
    ((span, text),) = service.profiles
    service.introspection.request_trigger.check_travel(body.decode().removeprefix("one "), span.context.trace_id)

    assert "streamed_work  " in text
    assert "after_work" not in text
    assert service.get(streaming) == b"one "


def test_two_requests_on_one_event_loop(service):
    """
    Of two requests that take turns, the profile of the one shows no frame of the other.
    """

    async def own(scope, receive, send):
        for _ in range(15):
            work(0.004)
            await asyncio.sleep(0.001)
        await application(scope, receive, send)

    async def foreign_step():
        work(0.004)
        await asyncio.sleep(0.001)

    async def foreign(scope, receive, send):
        for _ in range(15):
            await foreign_step()
        await application(scope, receive, send)

    async def ask_both():
        await asyncio.gather(
            service.ask(ProfileMiddleware(own), f"__introspect__={token()}"), service.ask(ProfileMiddleware(foreign))
        )

    asyncio.run(ask_both())

    assert "own  " in service.text
    assert "foreign" not in service.text


def test_work_on_a_thread(service):
    """
    What the request has a thread do is in its profile.
    """

    async def threading(scope, receive, send):
        await asyncio.to_thread(thread_work)
        await application(scope, receive, send)

    service.get(threading, f"__introspect__={token()}")

    assert "thread_work  " in service.text


def thread_work():
    time.sleep(0.06)


def test_an_application_that_raises(service):
    """
    The profile is on the span, and the exception is the server's to see.
    """

    async def failing(_scope, _receive, _send):
        work()
        raise ValueError("the application fails")

    with pytest.raises(ValueError, match="the application fails"):
        service.get(failing, f"__introspect__={token()}")

    assert "failing  " in service.text


def test_a_request_that_is_cancelled(service):
    """
    So it is where the server cancels the request, as when its client has gone.
    """

    async def waiting(scope, _receive, _send):
        scope["begun"].set()
        await asyncio.sleep(5)

    async def cancel():
        begun = asyncio.Event()
        query = f"__introspect__={token()}"
        asking = asyncio.ensure_future(service.ask(ProfileMiddleware(waiting), query, begun=begun))
        await begun.wait()
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(cancel())

    assert "waiting  " in service.text


def test_within_a_deadline(service):
    """
    Both kinds of middleware go together: an interrupted request keeps its profile.
    """

    async def stuck(_scope, _receive, _send):
        await asyncio.sleep(5)

    body = service.get(DeadlineMiddleware(stuck, 0.06), f"__introspect__={token()}")

    assert b"took too long" in body
    assert service.outcome.startswith("profiled; ")
    assert "stuck  " in service.text
    assert callable(service_unavailable)


@pytest.mark.parametrize(("answer", "admitted"), [(True, True), (1, False)])
def test_whom_the_application_admits(service, answer, admitted):
    """
    A callable of the application's may admit who has not signed, by the answer True only.
    """
    app = ProfileMiddleware(application, allow=lambda scope: scope["path"] == "/page" and answer)
    asyncio.run(service.ask(app, "__introspect__"))

    assert service.outcome.startswith("profiled" if admitted else "refused; reason=not-allowed")


def test_a_coroutine_admits_nobody(service):
    """
    What has to be awaited is not asked.
    """

    async def allow(_scope):
        return True

    asyncio.run(service.ask(ProfileMiddleware(application, allow=allow), "__introspect__"))

    assert service.outcome == "refused; reason=not-allowed"


def test_only_http(service):
    """
    A lifespan or a WebSocket is none of ours.
    """
    called = []

    async def lifespan(scope, _receive, _send):
        called.append(scope["type"])

    asyncio.run(ProfileMiddleware(lifespan)({"type": "lifespan"}, None, None))

    assert called == ["lifespan"]


def test_without_an_introspection(service):
    """
    Where nothing is set up, the application sees what was sent.
    """
    activate(None)

    assert b"__introspect__" in service.get(application, "__introspect__")
    assert service.outcome == ""
