"""Requests that ask real servers to be profiled, by URLs that the command line has signed."""

from __future__ import annotations

import http.client
import os
import re
import secrets
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from services import BIN

from otel_introspect.triggers import tokens
from otel_introspect.triggers.travel import BAGGAGE_KEY

pytestmark = pytest.mark.realtime

KEY = "a key of the tests, and of nobody else's"
EVENT = "otel_introspect.profile"
VARIABLE = "OTEL_PYTHON_INTROSPECT_PROFILER_KEY"
SERVERS = ["sync", "gthread", "gevent", "uvicorn", "uvicorn-instrumented"]


@dataclass(frozen=True)
class Fetched:
    status: int
    body: str
    outcome: str
    timing: str
    trace_id: str


@pytest.fixture(name="serve")
def _serve(services, tmp_path_factory):
    def serve(kind, **environ):
        # No slow request's own profile beside ours: 30 s is longer than any of them takes.
        return services(kind, **{VARIABLE: KEY, "OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD": 30_000, **environ})

    return serve


def sign(service, path, *options):
    """What ``otel-introspect sign`` prints: a path with its query, and a token for the header."""
    run = subprocess.run(
        [BIN / "otel-introspect", "sign", f"http://127.0.0.1:{service.port}{path}", *options],
        env={**os.environ, VARIABLE: KEY},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    url, curl = run.stdout.splitlines()
    return url.partition(f":{service.port}")[2], re.search(r"X-Introspect: (\S+)'", curl)[1]


def fetch(service, path, *, method="GET", **headers):
    trace_id = secrets.token_hex(16)
    sent = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01", "Connection": "close"}
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    try:
        connection.request(method, path, headers={**sent, **headers})
        response = connection.getresponse()
        return Fetched(
            response.status,
            response.read().decode(),
            response.headers.get("X-Introspect", ""),
            response.headers.get("Server-Timing", ""),
            trace_id,
        )
    finally:
        connection.close()


def profiles(service, trace_id):
    service.entry(trace_id)
    spans = service.spans(trace_id, count=1)
    return [event.attributes for span in spans for event in span.events if event.name == EVENT]


@pytest.mark.parametrize("kind", SERVERS)
def test_a_signed_url(serve, kind):
    """
    The page is as always, its header names a profile, and that is on the span with the view's own function in it.
    """
    service = serve(kind)
    url, token = sign(service, "/busy?seconds=0.3")
    answers = [fetch(service, url), fetch(service, "/busy?seconds=0.3", **{"X-Introspect": token})]

    for answer in answers:
        assert (answer.status, answer.body) == (200, "busy")
        (event,) = profiles(service, answer.trace_id)
        identity = event["otel_introspect.profile.id"]
        assert answer.outcome == f"profiled; trace_id={answer.trace_id}; profile_id={identity}"
        assert identity in answer.timing
        assert re.search(r"\bbusy  ", event["otel_introspect.profile.text"])
        assert event["otel_introspect.profile.trigger"] == "request"


@pytest.mark.parametrize("kind", ["sync", "uvicorn"])
def test_it_counts_once(serve, kind):
    """
    The same URL again is refused, whichever worker answers, and the page is as always.
    """
    service = serve(kind)
    url, _ = sign(service, "/fast")
    first, *others = [fetch(service, url) for _ in range(8)]

    assert first.outcome.startswith("profiled; ")
    assert {each.outcome for each in others} == {"refused; reason=replayed"}
    assert {each.body for each in [first, *others]} == {"fast"}
    assert not [each for other in others for each in profiles(service, other.trace_id)]


@pytest.mark.parametrize("kind", ["sync", "uvicorn"])
def test_what_is_not_signed(serve, kind):
    """
    Nobody else can have a request profiled, and who asks for nothing hears nothing.
    """
    service = serve(kind)
    outcomes = [fetch(service, path).outcome for path in ("/fast?__introspect__", "/fast?__geordi__=1", "/fast")]

    assert outcomes == ["refused; reason=unsigned", "refused; reason=malformed", ""]


def test_samples_in_the_main_thread(serve):
    """
    A request that is busy for 50 ms in the main thread yields at least 40 samples, at one a millisecond.
    """
    service = serve("single")
    fetch(service, sign(service, "/busy?seconds=0.02")[0])  # what is loaded at the first profile
    counts = []
    # Again if another process has had the processor; fewer times than are refused as too many.
    while len(counts) < 8 and max(counts, default=0) < 40:
        answer = fetch(service, sign(service, "/busy?seconds=0.05")[0])
        for event in profiles(service, answer.trace_id) or [{}]:  # none if its text was not ready in time
            assert event.get("otel_introspect.profile.interval_ms", 1) == 1
            counts.append(event.get("otel_introspect.profile.sample_count", 0))

    assert counts[-1] >= 40, counts


@pytest.mark.parametrize(("kind", "spans"), [("gthread", 2), ("uvicorn", 2), ("uvicorn-instrumented", 1)])
def test_a_streamed_body(serve, kind, spans):
    """
    The body is profiled, too: on a span of its own, or with the view where the server's span goes on that long.
    """
    service = serve(kind)
    answer = fetch(service, sign(service, "/body/sync_body?seconds=0.3")[0])
    assert answer.outcome.startswith("profiled; ")
    found = service.all_spans(
        lambda span: span.trace_id == answer.trace_id and any(event.name == EVENT for event in span.events),
        count=spans,
    )

    assert len(found) == spans
    texts = [event.words for span in found for event in span.events if event.name == EVENT]
    assert any("sync_chunks  " in text for text in texts), texts


@pytest.mark.parametrize("kind", ["sync", "gevent"])
def test_one_at_a_time(serve, kind):
    """
    A second one in the same process is refused while the first is being taken; in another process it is not.
    """
    service = serve(kind)
    urls = [sign(service, "/slow?seconds=0.6")[0] for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        outcomes = {each.outcome.partition("; trace_id")[0] for each in pool.map(lambda url: fetch(service, url), urls)}

    assert "profiled" in outcomes
    assert outcomes <= {"profiled", "refused; reason=busy"}
    if kind == "gevent":
        assert "refused; reason=busy" in outcomes


# One service that calls another. What A calls is told by its own instrumentation, or by inject().


@pytest.fixture(name="pair")
def _pair(serve):
    """Two services: what the second one is asked by the first comes with the first one's context."""
    return serve("gthread", DJANGO_SETTINGS_MODULE="profile_settings"), serve("single")


def calling(second):
    return f"/calling?url={quote(f'http://127.0.0.1:{second.port}/busy?seconds=0.15', safe='')}"


def test_one_signature_profiles_both(pair):
    """
    One signed request has both services profiled, each on its own span of the one trace.
    """
    first, second = pair
    answer = fetch(first, sign(first, calling(second))[0])

    assert answer.body == "busy"
    assert answer.outcome.startswith("profiled; ")
    (own,) = profiles(first, answer.trace_id)
    (others,) = profiles(second, answer.trace_id)
    assert re.search(r"\bcalling  ", own["otel_introspect.profile.text"])
    assert re.search(r"\bbusy  ", others["otel_introspect.profile.text"])
    assert others["otel_introspect.profile.trigger"] == "request"


def test_an_unsigned_request_profiles_neither(pair):
    """
    Without a signature nothing travels.
    """
    first, second = pair
    answer = fetch(first, calling(second))

    assert profiles(first, answer.trace_id) == []
    assert profiles(second, answer.trace_id) == []


def test_baggage_that_is_not_ours(pair):
    """
    Baggage that is forged, expired, signed with another key or for another trace has no effect.
    """
    _, second = pair
    trace_id = secrets.token_hex(16)
    number = int(trace_id, 16)
    good = tokens.sign_travel(KEY, number, ttl=60)
    bad = [
        "1",
        good[:-3] + "AAA",
        tokens.sign_travel("another key altogether", number, ttl=60),
        tokens.sign_travel(KEY, number + 1, ttl=60),
        tokens.sign_travel(KEY, number, ttl=60, now=time.time() - 1000),
    ]
    for token in [*bad, good]:
        headers = {
            "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01",
            "baggage": f"{BAGGAGE_KEY}={token}",
        }
        assert fetch(second, "/busy?seconds=0.02", **headers).outcome == ""
    spans = second.spans(trace_id, count=len(bad) + 1)

    assert len(spans) == len(bad) + 1
    assert [len([event for event in span.events if event.name == EVENT]) for span in spans] == [0] * len(bad) + [1]
