"""Django requests that ask to be profiled: which ones are, what is answered, and what the view sees of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import unquote_to_bytes

import pytest

pytest.importorskip("django")

import deadline_site  # noqa: F401 - sets Django up
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.views.decorators.http import etag
from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_introspect import exempt, faults, timeouts
from otel_introspect.config import EvidenceConfig, IntrospectConfig, ProfilerConfig, TimeoutConfig
from otel_introspect.engine import handover
from otel_introspect.instrumentation.django import IntrospectDjangoInstrumentor, profile_request
from otel_introspect.introspection import Introspection, activate
from otel_introspect.processors.watchdog import WatchdogSpanProcessor
from otel_introspect.profiling import pools
from otel_introspect.triggers import admission, tokens
from otel_introspect.triggers.travel import BAGGAGE_KEY

KEY = "only-for-these-tests"
EVENT = "otel_introspect.profile"
LONG = 0.1  # two noisy cores: a thread may come to look late


def work(seconds=LONG):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(50))


def _as_bytes(query):
    """Servers pass bytes; Django's test client passes a string."""
    return query.encode() if isinstance(query, str) else query


def what_is_seen(request):
    """All that a page could tell an asking request by."""
    return [
        request.META["QUERY_STRING"],
        sorted(request.GET.lists()),
        request.get_full_path(),
        request.build_absolute_uri(),
        sorted(request.headers),
        _as_bytes(getattr(request, "scope", {}).get("query_string")),
        [name for name, _ in getattr(request, "scope", {}).get("headers", ())],
    ]


def page(request):
    work()
    return HttpResponse(repr(what_is_seen(request)))


async def async_page(request):
    work()
    await asyncio.sleep(0)
    return HttpResponse(repr(what_is_seen(request)))


def outgoing(_request):
    carrier = {}
    CompositePropagator([W3CBaggagePropagator(), TraceContextTextMapPropagator()]).inject(carrier)
    return HttpResponse(carrier.get("baggage", ""))


async def async_outgoing(request):
    await asyncio.sleep(0)
    return outgoing(request)


def failing(_request):
    work()
    raise ValueError("the view fails")


def timed(_request):
    response = HttpResponse("timed")
    response["Server-Timing"] = "db;dur=53"
    work()
    return response


@etag(lambda _request: '"same"')
def conditional(_request):
    return HttpResponse("conditional")


@exempt
def exempted(_request):
    work()
    return HttpResponse("exempted")


def body_work():
    work()


def chunks():
    yield b"one "
    body_work()
    yield b"two"


def streaming(_request):
    work()
    return StreamingHttpResponse(chunks())


async def async_chunks():
    yield b"one "
    body_work()
    yield b"two"


async def async_streaming(_request):
    work()
    return StreamingHttpResponse(async_chunks())


def in_pool(_request):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(pool_work).result()
    return HttpResponse("in_pool")


def pool_work():
    time.sleep(LONG)


async def on_thread(_request):
    await asyncio.to_thread(pool_work)
    return HttpResponse("on_thread")


async def own_step():
    work(0.005)
    await asyncio.sleep(0.002)


async def foreign_step():
    work(0.005)
    await asyncio.sleep(0.002)


async def own(_request):
    for _ in range(15):
        await own_step()
    return HttpResponse("own")


async def foreign(_request):
    for _ in range(15):
        await foreign_step()
    return HttpResponse("foreign")


urlpatterns = [
    path(view.__name__, view)
    for view in (
        *(
            page,
            async_page,
            outgoing,
            async_outgoing,
            failing,
            timed,
            conditional,
            exempted,
            streaming,
            async_streaming,
        ),
        *(in_pool, on_thread, own, foreign),
    )
]

# What decides, and what is inside ours.


def users(get_response):
    """Stands for authentication: the user is known only inside."""

    def middleware(request):
        request.user = SimpleNamespace(is_staff="HTTP_STAFF" in request.META)
        return get_response(request)

    return middleware


def is_staff(request):
    return request.user.is_staff


def is_truthy(_request):
    return 1


def is_broken(_request):
    raise ValueError("nobody knows")


async def is_async(_request):
    return True


class Site:
    """The site, with the instrumentors that a launcher would run."""

    def __init__(self):
        self.exporter = None
        self.introspection = None
        self.provider = None

    def configure(self, *, sampler=None, excluded_urls="", timeout=0, **profiler):
        self.close()
        profiler.setdefault("key", KEY)
        config = IntrospectConfig(
            evidence=EvidenceConfig(excluded_urls=excluded_urls),
            profiler=ProfilerConfig(**profiler),
            timeout=TimeoutConfig(timeout=timeout),
        )
        self.provider = TracerProvider(sampler=sampler)
        self.exporter = InMemorySpanExporter()
        self.introspection = Introspection(config, tracer_provider=self.provider)
        self.provider.add_span_processor(WatchdogSpanProcessor(self.introspection))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        DjangoInstrumentor().instrument(tracer_provider=self.provider)
        IntrospectDjangoInstrumentor().instrument()
        activate(self.introspection)

    def close(self):
        if self.provider is not None:
            IntrospectDjangoInstrumentor().uninstrument()
            DjangoInstrumentor().uninstrument()
            activate(None)
            self.provider.shutdown()

    def get(self, url, *, under_asgi=False, method="GET", address="127.0.0.1", **headers):
        self.exporter.clear()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if not under_asgi:
            client = Client(raise_request_exception=False, REMOTE_ADDR=address)
            response = client.generic(method, url, headers=named)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an asynchronous body; that is Django's to say
                b"".join(response)
            response.close()
            return response

        async def get():
            client = AsyncClient(raise_request_exception=False)
            response = await client.generic(method, url, headers=named)
            if response.streaming:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a synchronous body; that is Django's to say
                    async for _ in response:
                        pass
            response.close()
            return response

        return asyncio.run(get())

    def profiles(self):
        return [
            (span, event) for span in self.exporter.get_finished_spans() for event in span.events if event.name == EVENT
        ]

    @property
    def text(self):
        ((_, event),) = self.profiles()
        return event.attributes["otel_introspect.profile.text"]


@pytest.fixture(name="site")
def _site():
    pools.follow()
    handover.current.set(None)  # tests share a context, requests don't
    site = Site()
    propagator = propagate.get_global_textmap()
    with override_settings(ROOT_URLCONF=__name__):
        site.configure()
        yield site
        site.close()
    propagate.set_global_textmap(propagator)
    pools.leave()
    timeouts.release()


def signed(url, *, method="GET", key=KEY, **stamp):
    """*url* with a token of its own."""
    path, _, query = url.partition("?")
    token = tokens.sign(key, method, unquote_to_bytes(path), query, **stamp)
    return f"{path}?{query}&__introspect__={token}" if query else f"{path}?__introspect__={token}"


def outcome(response):
    return response.headers.get("X-Introspect")


def is_profiled(response):
    return (
        re.fullmatch(r"profiled; trace_id=[0-9a-f]{32}; profile_id=[0-9a-f]{32}", outcome(response) or "") is not None
    )


both = pytest.mark.parametrize("under_asgi", [False, True], ids=["wsgi", "asgi"])


# Profiled.


@both
@pytest.mark.parametrize("view", ["page", "async_page"])
@pytest.mark.parametrize("inside", [[], ["deadline_site.sync_only"]], ids=["plain", "sync-middleware"])
def test_a_signed_request_is_profiled(site, view, under_asgi, inside):
    """
    Whatever the view and the server are, its span carries the profile, the answer says which, and the view is in it.
    """
    with override_settings(MIDDLEWARE=inside):
        site.configure()
        response = site.get(signed(f"/{view}?a=1&b=%20"), under_asgi=under_asgi)

    ((span, event),) = site.profiles()
    identity = event.attributes["otel_introspect.profile.id"]
    assert outcome(response) == f"profiled; trace_id={span.context.trace_id:032x}; profile_id={identity}"
    assert response.headers["Server-Timing"] == f'introspect;desc="profile {identity}"'
    assert event.attributes["otel_introspect.profile.trigger"] == "request"
    assert f"{view}  " in site.text
    assert "work  " in site.text


@both
def test_a_token_in_the_header(site, under_asgi):
    """
    The token may come in the header instead.
    """
    token = tokens.sign(KEY, "GET", b"/page", "a=1")

    assert is_profiled(site.get("/page?a=1", under_asgi=under_asgi, X_Introspect=token))


@both
@pytest.mark.parametrize("view", ["page", "async_page"])
def test_the_page_is_the_same(site, view, under_asgi):
    """
    A view sees nothing of the question, be it in the query string or in a header, admitted or refused.
    """
    plain = site.get(f"/{view}?a=1&b=2", under_asgi=under_asgi)
    token = tokens.sign(KEY, "GET", f"/{view}".encode(), "a=1&b=2")
    profiled = [
        site.get(signed(f"/{view}?a=1&b=2"), under_asgi=under_asgi),
        site.get(f"/{view}?a=1&b=2", under_asgi=under_asgi, X_Introspect=token),
    ]
    refused = [
        site.get(f"/{view}?__geordi__&a=1&b=2", under_asgi=under_asgi),
        site.get(f"/{view}?a=1&__introspect__=nonsense&b=2", under_asgi=under_asgi),
        site.get(f"/{view}?a=1&b=2", under_asgi=under_asgi, X_Introspect="nonsense"),
    ]

    assert outcome(plain) is None
    assert [is_profiled(each) for each in profiled] == [True, True]
    assert {each.content for each in profiled + refused} == {plain.content}
    assert b"introspect" not in plain.content.lower()


def test_who_asks_nothing_gets_nothing(site):
    """
    A request that asks nothing is not profiled, and its answer has no header of ours.
    """
    response = site.get("/page?a=1")

    assert "X-Introspect" not in response.headers
    assert "Server-Timing" not in response.headers
    assert not site.profiles()


def test_without_an_introspection_nothing_happens(site):
    """
    Where nothing is set up, a request that asks is answered as any other.
    """
    activate(None)
    response = site.get("/page?__introspect__=1")

    assert outcome(response) is None
    assert b"__introspect__" in response.content


def test_a_form_that_is_posted(site):
    """
    A token is good for the method that it was signed for only.
    """
    assert is_profiled(site.get(signed("/page", method="POST"), method="POST"))
    assert outcome(site.get(signed("/page", method="POST"))) == "refused; reason=bad-signature"


def test_a_path_beyond_ascii(site):
    """
    The path is signed as bytes, whatever the server makes of them.
    """
    response = site.get(signed("/stra%C3%9Fe"))

    assert response.status_code == 404
    assert is_profiled(response)


def test_the_servers_own_timing_stays(site):
    """
    What the application says about its timing is still said.
    """
    assert re.fullmatch(
        r'db;dur=53, introspect;desc="profile \w+"', site.get(signed("/timed")).headers["Server-Timing"]
    )


@both
def test_a_view_that_raises(site, under_asgi):
    """
    The profile of a view that raises is on the span, and Django's error page says so.
    """
    response = site.get(signed("/failing"), under_asgi=under_asgi)

    assert response.status_code == 500
    assert is_profiled(response)
    assert "failing  " in site.text


@both
def test_a_page_that_is_not_there(site, under_asgi):
    """
    A signed request for a page that is not there is profiled, too.
    """
    response = site.get(signed("/nothing"), under_asgi=under_asgi)

    assert (response.status_code, is_profiled(response), len(site.profiles())) == (404, True, 1)


def test_a_conditional_response(site):
    """
    An answer without a body has the header, and is as it would be.
    """
    response = site.get(signed("/conditional"), If_None_Match='"same"')

    assert (response.status_code, response.content, is_profiled(response)) == (304, b"", True)


def test_an_interrupted_request(site):
    """
    A request that hits its deadline keeps its profile, and the answer in its stead has the header.
    """
    site.configure(timeout=60)
    response = site.get(signed("/stuck"))

    assert response.status_code == 503
    assert is_profiled(response)
    assert "stuck  " in site.text


def stuck(_request):
    work(5.0)


urlpatterns.append(path("stuck", stuck))


@both
def test_an_exempt_view(site, under_asgi):
    """
    A view that is not watched is profiled all the same when somebody asks for it.
    """
    assert is_profiled(site.get(signed("/exempted"), under_asgi=under_asgi))
    assert "exempted  " in site.text


@both
def test_an_excluded_url(site, under_asgi):
    """
    So is one that is excluded by its URL.
    """
    site.configure(excluded_urls="page")

    assert is_profiled(site.get(signed("/page"), under_asgi=under_asgi))
    assert "page  " in site.text


@both
@pytest.mark.parametrize("view", ["streaming", "async_streaming"])
def test_a_streamed_body(site, view, under_asgi):
    """
    The view is profiled on its request's span; the body, which is made when that has ended, on a span of its own.
    """
    response = site.get(signed(f"/{view}"), under_asgi=under_asgi)
    texts = {span.name: event.attributes["otel_introspect.profile.text"] for span, event in site.profiles()}

    assert is_profiled(response)
    assert set(texts) == {f"GET {view}", f"GET {view} body"}
    assert f"{view}  " in texts[f"GET {view}"]
    assert "body_work  " in texts[f"GET {view} body"]


def test_a_body_of_a_request_that_is_refused(site):
    """
    Where the request is not profiled, neither is its body.
    """
    assert outcome(site.get("/streaming?__introspect__")) == "refused; reason=unsigned"
    assert not site.profiles()


@both
def test_a_body_within_the_servers_span(site, under_asgi):
    """
    Where the server's own instrumentation has begun the span, view and body are in one profile, on that.
    """
    with site.provider.get_tracer(__name__).start_as_current_span("server", kind=trace.SpanKind.SERVER):
        response = site.get(signed("/streaming"), under_asgi=under_asgi)
    ((span, _),) = site.profiles()

    assert is_profiled(response)
    assert span.name == "server"
    assert "streaming  " in site.text
    assert "body_work  " in site.text


@pytest.mark.parametrize("view", ["in_pool", "on_thread"])
@both
def test_work_on_other_threads(site, view, under_asgi):
    """
    What the request has done by a pool or by ``to_thread`` is in its profile.
    """
    assert is_profiled(site.get(signed(f"/{view}"), under_asgi=under_asgi))
    assert "pool_work" in site.text


def test_two_requests_on_one_event_loop(site):
    """
    Of two requests that take turns, the profile of the one shows no frame of the other.
    """

    async def get_both():
        client = AsyncClient()
        return await asyncio.gather(client.get(signed("/own")), client.get("/foreign"))

    profiled, plain = asyncio.run(get_both())

    assert (is_profiled(profiled), outcome(plain)) == (True, None)
    assert "own_step" in site.text
    assert "foreign" not in site.text


# Refused.


def test_why_a_token_is_refused(site):
    """
    Each way in which a token can be wrong has a reason of its own.
    """
    now = time.time()
    twice = signed("/page")
    site.get(twice)
    wrong = {
        "/page?__introspect__=v1.nonsense": "malformed",
        signed("/page", key="another key than ours"): "bad-signature",
        signed("/page").replace("/page", "/timed"): "bad-signature",
        signed("/page", now=now - 1000): "expired",
        signed("/page", now=now + 1000): "not-yet-valid",
        twice: "replayed",
        "/page?__introspect__": "unsigned",
        "/page?__geordi__=": "unsigned",
    }

    assert {url: outcome(site.get(url)) for url in wrong} == {
        url: f"refused; reason={reason}" for url, reason in wrong.items()
    }
    assert not site.profiles()
    assert faults.counts["refused", "profile: replayed"] == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"key": ""}, "no-key"),
        ({"triggers": ("slow",)}, "off"),
        ({"triggers": ()}, "off"),
        ({"sampler": ALWAYS_OFF}, "not-recorded"),
    ],
)
def test_why_nothing_is_profiled_here(site, settings, reason):
    """
    Where there is no key, the trigger is off, or the span is not recorded, nothing remote starts a profile.
    """
    site.configure(**settings)

    url = signed("/page") if reason != "no-key" else "/page?__introspect__"
    assert outcome(site.get(url)) == f"refused; reason={reason}"
    assert outcome(site.get(signed("/page"))) == f"refused; reason={reason}"
    assert not site.profiles()


def test_one_at_a_time(site):
    """
    While one is being profiled, another one is refused.
    """
    ticket = site.introspection.profiler.admission.enter(limited=False)

    assert outcome(site.get(signed("/page"))) == "refused; reason=busy"
    ticket.leave()
    assert is_profiled(site.get(signed("/page")))


def test_too_many(site):
    """
    After a burst, further ones are refused for a while.
    """
    for _ in range(admission.BURST):
        site.introspection.profiler.admission.enter(limited=True).leave()

    assert outcome(site.get(signed("/page"))) == "refused; reason=rate"


def test_a_fault_of_ours(site, monkeypatch):
    """
    A fault of our own leaves the page as it is.
    """

    def fail(*_args, **_kwargs):
        raise ValueError("a fault")

    monkeypatch.setattr(site.introspection.profiler, "begin_for_entry", fail)
    assert outcome(site.get(signed("/page"))) == "refused; reason=failed"

    monkeypatch.setattr(profile_request, "_requested", fail)
    response = site.get(signed("/page"))
    assert (response.status_code, outcome(response)) == (200, None)


def test_a_profile_that_does_not_get_onto_its_span(site, monkeypatch):
    """
    Where the span has no room, the answer says that there is no profile.
    """
    monkeypatch.setattr(site.introspection.reporter, "report_profile", lambda *_: False)

    assert outcome(site.get(signed("/page"))) == "refused; reason=failed"


# A developer.


@both
@pytest.mark.parametrize("question", ["__introspect__", "__geordi__", "__geordi__=", "__geordi__=1"])
def test_a_developer_need_not_sign(site, under_asgi, question):
    """
    Under DEBUG, who is on this machine gets a profile by typing the parameter, without any key.
    """
    site.configure(key="")
    with override_settings(DEBUG=True):
        response = site.get(f"/page?{question}", under_asgi=under_asgi)

    assert is_profiled(response)
    assert "page  " in site.text


def test_a_developer_s_wrong_token_is_refused(site):
    """
    What looks like a token is taken for one, of a developer's too, who else would not know that it is wrong.
    """
    with override_settings(DEBUG=True):
        assert outcome(site.get(signed("/other").replace("/other", "/page"))) == "refused; reason=bad-signature"


@both
def test_pyinstrument_s_own_hook(site, under_asgi):
    """
    The other engine serves a signed request where it runs, and gives its hook back.
    """
    site.configure(engine="pyinstrument")

    assert is_profiled(site.get(signed("/async_page" if under_asgi else "/page"), under_asgi=under_asgi))
    ((_, event),) = site.profiles()
    assert event.attributes["otel_introspect.profile.engine"] == "pyinstrument"
    assert "page  " in site.text
    assert sys.getprofile() is None


def test_what_travels_is_sampled_whatever_the_engine(site):
    """
    A decision that came with the trace is about a span that may end anywhere, where a hook could not be taken off.
    """
    site.configure(engine="pyinstrument")
    trace_id = 0x1234567890ABCDEF1234567890ABCDEF
    token = tokens.sign_travel(KEY, trace_id, ttl=60)
    site.get("/page", Traceparent=f"00-{trace_id:032x}-00f067aa0ba902b7-01", Baggage=f"{BAGGAGE_KEY}={token}")

    ((_, event),) = site.profiles()
    assert event.attributes["otel_introspect.profile.engine"] == "sampler"


@both
def test_under_tail_a_fast_body_leaves_no_span(site, under_asgi):
    """
    A body that is older than tail's age, and neither slow nor broken, is looked at and leaves nothing.
    """
    site.configure(triggers=("tail",))
    site.get("/async_streaming" if under_asgi else "/streaming", under_asgi=under_asgi)

    assert [span.name for span in site.exporter.get_finished_spans() if "body" in span.name] == []
    assert site.profiles() == []


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        ("192.0.2.7", {}),
        ("127.0.0.1", {"X_Forwarded_For": "192.0.2.7"}),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.7"}),
        ("127.0.0.1", {"X_Real_IP": "192.0.2.7"}),
        ("", {}),
    ],
)
def test_who_is_elsewhere_is_no_developer(site, address, headers):
    """
    DEBUG admits nobody from another machine, nor through a proxy that says so.
    """
    with override_settings(DEBUG=True):
        assert outcome(site.get("/page?__introspect__", address=address, **headers)) == "refused; reason=unsigned"


# Whom the application admits.


@both
@pytest.mark.parametrize("view", ["page", "async_page"])
@pytest.mark.parametrize("allow", [f"{__name__}:is_staff", f"{__name__}.is_staff"])
@pytest.mark.parametrize("inside", [[], ["deadline_site.sync_only"]], ids=["plain", "sync-middleware"])
def test_whom_the_application_admits(site, view, under_asgi, allow, inside):
    """
    What ``PROFILER_ALLOW`` names is asked when there is a user, and the view is profiled if it says so.
    """
    with override_settings(MIDDLEWARE=[*inside, f"{__name__}.users"]):
        site.configure(allow=allow)
        plain = site.get(f"/{view}?__introspect__", under_asgi=under_asgi)
        staff = site.get(f"/{view}?__introspect__", under_asgi=under_asgi, Staff="yes")

    assert outcome(plain) == "refused; reason=not-allowed"
    assert is_profiled(staff)
    assert f"{view}  " in site.text


@both
@pytest.mark.parametrize("allow", ["is_truthy", "is_broken", "is_async", "is_missing"])
def test_only_true_admits(site, allow, under_asgi):
    """
    Anything but True admits nobody: another value, an exception, a coroutine, a name that is not there.
    """
    site.configure(allow=f"{__name__}:{allow}")
    responses = [site.get("/page?__introspect__", under_asgi=under_asgi) for _ in range(2)]

    assert {outcome(each) for each in responses} == {"refused; reason=not-allowed"}
    assert {each.status_code for each in responses} == {200}


def test_nobody_is_asked_about_a_page_that_is_not_there(site):
    """
    Without a view there is no user either.
    """
    site.configure(allow=f"{__name__}:is_staff")

    assert outcome(site.get("/nothing?__introspect__")) == "refused; reason=not-allowed"


# Travel.


@both
@pytest.mark.parametrize("view", ["outgoing", "async_outgoing"])
def test_the_decision_travels(site, view, under_asgi):
    """
    What a profiled request calls is told so, and nothing that another one calls.
    """
    profiled = site.get(signed(f"/{view}"), under_asgi=under_asgi)
    ((span, _),) = site.profiles()
    name, _, token = profiled.content.decode().partition("=")

    assert name == BAGGAGE_KEY
    site.introspection.request_trigger.check_travel(token, span.context.trace_id)
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert site.get(f"/{view}", under_asgi=under_asgi).content == b""
    assert site.get(f"/{view}?__introspect__", under_asgi=under_asgi).content == b""


@both
def test_what_the_application_has_admitted_travels(site, under_asgi):
    """
    So it does if the application has admitted the request, where there is a key to sign it with.
    """
    with override_settings(MIDDLEWARE=["deadline_site.sync_only", f"{__name__}.users"]):
        site.configure(allow=f"{__name__}:is_staff")
        admitted = site.get("/outgoing?__introspect__", under_asgi=under_asgi, Staff="yes")

    assert admitted.content.startswith(BAGGAGE_KEY.encode())
    assert site.get("/outgoing", under_asgi=under_asgi).content == b""


@both
def test_a_developers_request_without_a_key_does_not_travel(site, under_asgi):
    """
    Without a key nothing can be signed, and the request is profiled here only.
    """
    site.configure(key="")
    with override_settings(DEBUG=True):
        response = site.get("/outgoing?__introspect__", under_asgi=under_asgi)

    assert is_profiled(response)
    assert response.content == b""


@both
def test_who_is_called_by_a_profiled_request_is_profiled(site, under_asgi):
    """
    Signed baggage has a service profile its part of the same trace; any other baggage is ignored.
    """
    trace_id = 0x1234567890ABCDEF1234567890ABCDEF
    site.configure(triggers=("request",))  # on a busy machine a request may turn slow

    def ask(token):
        parent = f"00-{trace_id:032x}-00f067aa0ba902b7-01"
        response = site.get(
            "/page", under_asgi=under_asgi, Traceparent=parent, Baggage=f"{BAGGAGE_KEY}={token}", Other="1"
        )
        assert outcome(response) is None
        return len(site.profiles())

    assert ask(tokens.sign_travel(KEY, trace_id, ttl=60)) == 1
    assert ask("") == 0
    assert ask("1") == 0
    assert ask(tokens.sign_travel(KEY, trace_id, ttl=60)[:-2] + "AA") == 0
    assert ask(tokens.sign_travel(KEY, trace_id + 1, ttl=60)) == 0
    assert ask(tokens.sign_travel("another key than ours", trace_id, ttl=60)) == 0
    assert ask(tokens.sign_travel(KEY, trace_id, ttl=60, now=time.time() - 1000)) == 0
    assert ask(tokens.sign(KEY, "GET", b"/page", "")) == 0


def test_nothing_is_left_in_the_context(site):
    """
    After the request, the context is what it was.
    """
    from opentelemetry.context import get_current

    before = get_current()
    with contextlib.suppress(ValueError):
        Client().get(signed("/failing"))
    site.get(signed("/page"))

    assert get_current() == before
