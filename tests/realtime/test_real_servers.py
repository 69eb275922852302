"""What a slow request shows under each server, sharing what is the same under all of them."""

from __future__ import annotations

import re

import pytest
from services import SERVER

pytestmark = pytest.mark.realtime

ALL = ["sync", "preload", "gthread", "gevent", "uvicorn", "uvicorn-instrumented", "runserver", "runserver-reloading"]
SERVERS = re.compile(r"gunicorn/|uvicorn/|socketserver|core/servers|manage\.py|arbiter|otel_introspect/")
STRING, INTEGER = "string", "int"
TYPES = {
    "code.stacktrace": STRING,
    "code.function.name": STRING,
    "code.file.path": STRING,
    "code.line.number": INTEGER,
    "thread.id": INTEGER,
    "thread.name": STRING,
    "otel_introspect.elapsed_ms": INTEGER,
    "otel_introspect.threshold_ms": INTEGER,
    "otel_introspect.snapshot.index": INTEGER,
    "otel_introspect.observer": STRING,
    "otel_introspect.lateness_ms": INTEGER,
    "otel_introspect.repeated": INTEGER,
}
OPTIONAL_TYPES = {"otel_introspect.task.state": STRING, "otel_introspect.stack.frames": "string[]"}


@pytest.fixture(params=ALL, name="service")
def _service(request, services):
    return services(request.param)


def bare(name):
    """The function's own name: a qualified one only from Python 3.11 on."""
    return name.rpartition(".")[2]


def test_a_slow_view_says_where_it_slept(service):
    """
    A slow request's span carries snapshots at one and two times the threshold, each naming the function that slept.
    """
    span = service.ask("/slow")

    assert span.slow is True
    assert span.attributes["otel_introspect.snapshots"] == len(span.snapshots) == 2
    assert [each.attributes["otel_introspect.snapshot.index"] for each in span.snapshots] == [0, 1]
    for each in span.snapshots:
        assert bare(each.attributes["code.function.name"]) == "sleeping_helper"
        assert each.attributes["code.file.path"].endswith("/project/views.py")
        assert "time.sleep(seconds)  # the line that sleeps" in "".join(each.stack.splitlines()[-3:])
        assert "in slow\n" in each.stack


def test_the_stack_and_the_profile_begin_with_the_request(service):
    """
    No frame of the server that runs it is on a slow request's stacks, nor in its profile.
    """
    span = service.ask("/slow")

    texts = [each.stack for each in span.snapshots]
    texts += [each.attributes["otel_introspect.profile.text"] for each in span.events if each.name.endswith(".profile")]
    assert len(texts) == 3
    for text in texts:
        assert not SERVERS.search(text)


def test_a_fast_view_has_no_evidence(service):
    """
    A fast request's span carries nothing of ours.
    """
    span = service.ask("/fast")

    assert span.kind == SERVER
    assert span.evidence == []


def test_names_and_types_are_those_of_the_contract(service):
    """
    Each attribute has the name and the type that the design gives it, and there is no other.
    """
    span = service.ask("/slow?of=types")

    assert span.types["otel_introspect.slow"] == "bool"
    assert span.types["otel_introspect.snapshots"] == INTEGER
    for event in span.snapshots:
        assert {key: kind for key, kind in event.types.items() if key not in OPTIONAL_TYPES} == TYPES
        assert (
            OPTIONAL_TYPES.items() >= {key: kind for key, kind in event.types.items() if key in OPTIONAL_TYPES}.items()
        )


def test_a_slow_request_without_a_remote_parent_is_watched_too(service):
    """
    A root span is an entry span as much as one that continues somebody else's trace.
    """
    service.get("/items/7/?seconds=0.5", remote_parent=False)

    (span,) = service.all_spans(lambda span: "items" in span.name and span.kind == SERVER, count=1)[:1]
    assert span.parent_id == ""
    assert len(span.snapshots) == 1


def test_200_frames_deep_the_innermost_are_shown(service):
    """
    Of a very deep stack the innermost frames are in the text, which stays within 2,000 bytes of UTF-8.
    """
    span = service.ask("/deep")

    for each in span.snapshots:
        assert len(each.stack.encode()) <= 2000
        assert bare(each.attributes["code.function.name"]) == "descend"
        assert "time.sleep(seconds)" in "".join(each.stack.splitlines()[-3:])
        assert "outer frames omitted" in each.stack.splitlines()[0]
    frames = span.snapshots[0].attributes["otel_introspect.stack.frames"]
    assert any(frame.startswith("descend (") for frame in frames[:2])


def test_nothing_exceeds_its_bounds(service):
    """
    No string of ours has more than 2,000 bytes, and all that is ours on one span no more than 16 KiB.
    """
    span = service.ask("/deep?seconds=2.6")

    assert len(span.snapshots) >= 4
    strings = [span.attributes[key] for key in span.attributes if key.startswith("otel_introspect")]
    total = 0
    for event in span.snapshots:
        for key, value in event.attributes.items():
            parts = value if isinstance(value, list) else [value]
            strings += parts
            total += len(key) + sum(len(each.encode()) if isinstance(each, str) else 8 for each in parts)
    assert max(len(each.encode()) for each in strings if isinstance(each, str)) <= 2000
    assert total <= 16 * 1024


def test_a_view_that_raises_after_being_slow(service):
    """
    The evidence is on the span of a request that ends in an exception, and the exception is OpenTelemetry's to record.
    """
    if service.name.startswith("uvicorn-instrumented"):
        pytest.skip("the entry span is the server's there, the application's own events are on Django's")
    span = service.ask("/raising")

    assert len(span.snapshots) == 2
    assert [each.name for each in span.events if each.name == "exception"] == ["exception"]
    assert all(not key.startswith("exception.") for each in span.snapshots for key in each.attributes)


def test_own_events_and_attributes_stay(service):
    """
    What the application puts on the span is all there, in its order, with its values.
    """
    if service.name.startswith("uvicorn-instrumented"):
        pytest.skip("the entry span is the server's there, the application's own events are on Django's")
    span = service.ask("/decorated")

    assert span.attributes["shop.basket"] == 3
    assert span.attributes["shop.tags"] == ["a", "b"]
    own = [(each.name, each.attributes) for each in span.events if not each.name.startswith("otel_introspect")]
    assert own == [("reserved", {"shop.item": "kettle"}), ("paid", {"shop.amount": 9.5})]
    assert len(span.snapshots) == 2


def test_a_full_span_keeps_the_applications_events(service):
    """
    A span whose events the application has used up keeps them all; ours are left out.
    """
    if service.name.startswith("uvicorn-instrumented"):
        pytest.skip("the entry span is the server's there, the application's own events are on Django's")
    span = service.ask("/crowded")

    assert [each.name for each in span.events] == [f"event {n}" for n in range(128)]
    assert sum(key.startswith("own.") for key in span.attributes) >= 120


def test_class_based_views(service):
    """
    The method of a class-based view is named with its class where Python knows that.
    """
    span = service.ask("/ByClass")

    assert len(span.snapshots) == 2
    assert bare(span.snapshots[0].attributes["code.function.name"]) == "think"


def test_snapshot_in_a_view(service):
    """
    A view that asks for a snapshot gets one, however fast it is, and is not called slow for it.
    """
    if service.name.startswith("uvicorn-instrumented"):
        pytest.skip("the entry span is the server's there, the application's own events are on Django's")
    span = service.ask("/with_snapshot")

    (event,) = span.snapshots
    assert bare(event.attributes["code.function.name"]) == "take_it"
    assert span.slow is False
    assert span.attributes["otel_introspect.snapshots"] == 1


@pytest.mark.parametrize("path", ["/exempted", "/ExemptedClass", "/body/exempted_body"])
def test_exempt_views_have_no_evidence(service, path):
    """
    A view that is exempt may take as long as it likes.
    """
    answer = service.get(path)

    assert answer.status == 200
    assert service.entry(answer.trace_id).evidence == []
    assert len(service.spans(answer.trace_id, count=2, seconds=0.3)) == len(
        [each for each in service.spans(answer.trace_id) if not each.evidence]
    )


def test_a_view_that_calls_its_own_site(service):
    """
    A request within a request: the outer one's evidence is on the outer one's span, and none is lost.
    """
    answer = service.get("/nested?inner=0&after=0.8")

    assert answer.body == "inner"
    span = service.entry(answer.trace_id)
    assert len(span.snapshots) == 2
    assert all(bare(each.attributes["code.function.name"]) == "after_inner" for each in span.snapshots)


def test_a_slow_request_within_a_request(service):
    """
    What is slow in the inner request is seen in the outer one's evidence.
    """
    span = service.entry(service.get("/nested?inner=0.8&after=0").trace_id)

    assert len(span.snapshots) == 2
    assert all(bare(each.attributes["code.function.name"]) == "sleeping_helper" for each in span.snapshots)
    assert any(frame.startswith("nested (") for frame in span.snapshots[0].attributes["otel_introspect.stack.frames"])
