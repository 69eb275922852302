"""The text of a slow request."""

from __future__ import annotations

import pytest

from otel_introspect import semconv
from otel_introspect.exporters.report import MAX_BYTES, fields_of, headline, instant, key_of, safe_name, text_of
from otel_introspect.exporters.span_view import EventView


def repr_of(value):
    return type(value).__name__  # a number of 5,000 digits has no text


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"http.request.method": "GET", "url.full": "https://s/a?b=1"}, "GET https://s/a?b=1"),
        (
            {"http.request.method": "GET", "url.scheme": "https", "server.address": "s", "url.path": "/a"},
            "GET https://s/a",
        ),
        (
            {
                "http.request.method": "PUT",
                "url.scheme": "http",
                "server.address": "s",
                "server.port": 8000,
                "url.path": "/a",
                "url.query": "b=1",
            },
            "PUT http://s:8000/a?b=1",
        ),
        ({"http.method": "GET", "http.url": "http://me:secret@s:1/a"}, "GET http://s:1/a"),
        (
            {"http.method": "GET", "http.host": "s:1", "http.scheme": "http", "http.target": "/a?b"},
            "GET http://s:1/a?b",
        ),
        ({"http.method": "POST", "http.target": "/a"}, "POST /a"),
        ({"http.url": "http://[::1/"}, "http://[::1/"),
        ({"url.full": "https://s/reset?user=7&token=hunter2&b=1"}, "https://s/reset?user=7&token=<redacted>"),
        ({"url.full": "https://s/\r\nX: y"}, "https://s/\\r\\nX: y"),
    ],
)
def test_both_conventions(make_span, attributes, expected):
    """
    Method and URL are found under the old names and the new ones, whole or in parts, without a password.
    """
    span = make_span(attributes=attributes)

    assert f"  Request   {expected}\n" in text_of(span)


def test_evidence_in_log_records(make_span):
    """
    Where the span has no events the report says so, and what it has.
    """
    text = text_of(make_span(attributes={semconv.SLOW: True, "http.method": "GET", "http.url": "http://s/"}))

    assert "OTEL_PYTHON_INTROSPECT_EVENTS=log" in text
    assert "  Request   GET http://s/\n" in text
    assert "Trace     4bf92f3577b34da6a3ce929d0e0e4736" in text


def test_all_evidence(make_span, make_snapshot):
    """
    Stacks, what they held, other threads and the profile each have their section.
    """
    text = text_of(
        make_span(
            events=(
                make_snapshot(
                    **{
                        "otel_introspect.stack.locals": ("reserve: article = 'cup'", "two\nlines"),
                        "otel_introspect.task.state": "awaiting",
                    }
                ),
                EventView(
                    semconv.THREADS_EVENT, 0, {semconv.THREADS_TEXT: "pool-1:\n  idle", semconv.THREADS_COUNT: 4}
                ),
                EventView(
                    semconv.PROFILE_EVENT,
                    0,
                    {
                        semconv.PROFILE_TEXT: "1.0 view\n└─ 0.9 sleep",
                        semconv.PROFILE_TRIGGER: "slow",
                        semconv.PROFILE_SAMPLE_COUNT: 90,
                        semconv.PROFILE_DURATION_MS: 1000,
                        semconv.PROFILE_URL: "file:///p.html",
                    },
                ),
                EventView(
                    semconv.TIMEOUT_EVENT,
                    0,
                    {semconv.TIMEOUT_ENFORCED: False, semconv.TIMEOUT_REASON: "nothing could interrupt the work"},
                ),
            )
        )
    )

    for part in (
        "Stack after 500 ms (observer: ?, awaiting)\n----",
        "  Locals:\n    reserve: article = 'cup'\n    two\n    lines\n",
        "Other threads (4)\n-----------------\npool-1:\n  idle\n",
        "Profile (90 samples in 1000 ms, trigger: slow)\n",
        "└─ 0.9 sleep\n  Whole     file:///p.html\n",
        "not interrupted after None ms",
        "  Why       nothing could interrupt the work",
    ):
        assert part in text


def test_a_stack_that_was_cut(make_span, make_snapshot):
    """
    The application's frames that had no room are put back from the list of all frames.
    """
    snapshot = make_snapshot(
        '  [1 outer frame left out]\n  File "/srv/b.py", line 2, in inner',
        **{semconv.STACK_FRAMES: ("inner (/srv/b.py:2)", "outer (/srv/a.py:1)")},
    )

    assert 'File "/srv/a.py", line 1, in outer\n  File "/srv/b.py", line 2, in inner' in text_of(
        make_span(events=(snapshot,))
    )


def test_nothing_known(make_span):
    """
    A span with nothing on it has a report.
    """
    span = make_span(trace_id="", name="")

    assert "took 1.000 s" in text_of(span)
    assert key_of(span) == ("", "", "")


@pytest.mark.parametrize("value", [7, ("a", "b"), True, 10**5000, "\udcff\x1b[31m", None], ids=repr_of)
def test_values_of_any_type(make_span, make_snapshot, value):
    """
    Whatever type an attribute has, the report is text that can be encoded and has no control characters.
    """
    names = ("http.route", "http.method", "url.full", "code.function.name", "thread.name", "error.type")
    event = make_snapshot(stack=value, **dict.fromkeys(("code.function.name", semconv.STACK_FRAMES), value))
    span = make_span(attributes=dict.fromkeys(names, value), events=(event,))
    text = text_of(span)

    assert text.replace("\n", "").isprintable()
    assert text.encode()
    assert headline(span).isprintable()
    assert all(isinstance(each, (str, int)) for each in fields_of(span).values())


def test_it_is_bounded(make_span, make_snapshot):
    """
    However much a span carries, the text has its bound.
    """
    text = text_of(make_span(events=tuple(make_snapshot("é" * 20_000 + str(n)) for n in range(100))))

    assert len(text.encode()) < MAX_BYTES + 100


def test_the_same_data_flat(make_span, make_snapshot):
    """
    What counts and searches gets plain values under plain names.
    """
    snapshot = make_snapshot(**{"code.function.name": "reserve", "code.file.path": "/srv/stock.py"})
    span = make_span(
        "a1",
        attributes={"http.route": "o/", "http.method": "GET", "http.url": "http://s/o/"},
        events=(snapshot,),
        service="shop",
    )

    assert fields_of(span, "http://j/{trace_id}") == {
        "trace_id": span.trace_id,
        "span_id": "a1",
        "route": "o/",
        "function": "reserve",
        "file": "/srv/stock.py",
        "method": "GET",
        "url": "http://s/o/",
        "service": "shop",
        "elapsed_ms": 1000,
        "link": f"http://j/{span.trace_id}",
    }


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [(0, "1970-01-01T00:00:00.000Z"), (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999Z"), (10**30, f"{10**21}s")],
)
def test_times(nanoseconds, expected):
    """
    Times are UTC, in ISO 8601; one that no calendar has is still a time.
    """
    assert instant(nanoseconds) == expected


def test_names_of_files(make_span):
    """
    A file's name has the time and the ids, and nothing that came with them.
    """
    assert safe_name(make_span("b7")) == "20231114T221320.000Z-4bf92f3577b34da6a3ce929d0e0e4736-b7"
    assert safe_name(make_span("../x", trace_id="/etc")) == "20231114T221320.000Z-unknown-unknown"
