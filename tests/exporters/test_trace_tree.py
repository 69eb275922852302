"""What a reader of the tree finds in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_introspect.exporters.span_view import EventView, SpanView
from otel_introspect.exporters.styled import ASCII, UNICODE, plain
from otel_introspect.exporters.trace_buffer import Trace
from otel_introspect.exporters.trace_tree import by_trace, render

STACK = """\
  File "/srv/venv/lib/python3.12/site-packages/django/core/handlers/base.py", line 197, in _get_response
    response = wrapped_callback(request)
  File "/srv/shop/views.py", line 42, in checkout
    reserve(article)"""
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def text_of(*spans, **trace):
    return "\n".join(plain(line) for line in render(Trace(spans[0].trace_id, spans, **trace)))


def test_children_are_below_their_parent_in_order_of_time(make_span):
    """
    Each span is below its parent, the earlier before the later, with its duration.
    """
    late = make_span("3", "1", name="late", start_ns=START + SECOND // 2, end_ns=START + SECOND)
    early = make_span("2", "1", name="early", end_ns=START + SECOND // 4)
    entry = make_span("1", name="GET /")

    lines = text_of(late, early, entry).split("\n")

    assert [line.strip("├─└ ").split("  ")[0] for line in lines[1:]] == ["GET /", "early", "late"]
    assert "250 ms (25%)" in lines[2]


def test_what_outlasts_its_parent_is_no_share_of_it(make_span):
    """
    A body that is streamed for longer than the request's own span lasted has no percentage.
    """
    body = make_span("2", "1", name="body", end_ns=START + 90 * SECOND)

    assert text_of(make_span("1"), body).endswith("body  90.00 s")


def test_a_slow_span_is_marked_and_shows_its_stack(make_span, make_snapshot):
    """
    A slow span says SLOW and has its snapshot with time, observer, lateness, task state and thread below it.
    """
    event = make_snapshot(
        **{
            "otel_introspect.observer": "thread",
            "otel_introspect.lateness_ms": 3,
            "otel_introspect.task.state": "awaiting",
            "thread.name": "MainThread",
            "code.function.name": "checkout",
            "code.file.path": "/srv/shop/views.py",
            "code.line.number": 42,
        }
    )

    text = text_of(make_span(attributes={"otel_introspect.slow": True}, events=(event,)))

    assert "1.00 s  SLOW" in text
    assert "stack after 500 ms in checkout (views.py:42) · seen by thread · 3 ms late · task awaiting" in text
    assert "thread MainThread" in text


def test_a_thread_without_a_name(make_span, make_snapshot):
    """
    Of a thread that has no name, as under gevent, nothing is said.
    """
    event = make_snapshot(**{"otel_introspect.observer": "thread", "thread.name": ""})

    heading = next(line for line in text_of(make_span(events=(event,))).split("\n") if "stack after" in line)

    assert heading.rstrip().endswith("seen by thread")


def test_application_frames_stand_out_in_plain_text(make_span, make_snapshot):
    """
    Only the application's frames have the sign before them and their path in full.
    """
    lines = [line.strip() for line in text_of(make_span(events=(make_snapshot(),))).split("\n")]

    assert '> File "/srv/shop/views.py", line 42, in checkout' in lines
    assert "reserve(article)" in lines
    assert 'File "…/django/core/handlers/base.py", line 197, in _get_response' in lines
    assert 'File "…/python3.12/threading.py", line 629, in wait' in lines
    assert "response = wrapped_callback(request)" not in lines
    assert "signaled = self._cond.wait(timeout)" in lines  # the innermost frame keeps its source


def test_an_identical_stack_is_not_repeated(make_span, make_snapshot):
    """
    A snapshot that shows the same stack as the one before says how often, and does not print it again.
    """
    first = make_snapshot(**{"otel_introspect.repeated": 1})
    second = make_snapshot(elapsed_ms=1000, **{"otel_introspect.repeated": 2})

    text = text_of(make_span(events=(second, first)))

    assert text.count("in checkout") == 1
    assert "stack after 1.00 s · same stack 2 times" in text


def test_a_repeated_stack_whose_predecessor_was_lost_is_printed(make_span, make_snapshot):
    """
    The stack is printed when the event that showed it first is not there.
    """
    event = make_snapshot(elapsed_ms=1000, **{"otel_introspect.repeated": 2})

    assert "in checkout" in text_of(make_span(events=(event,)))


def test_the_note_on_omitted_frames_is_kept(make_span, make_snapshot):
    """
    The first line of a stack that had to be cut says how many frames are missing.
    """
    event = make_snapshot('  [12 outer frames omitted]\n  File "/srv/shop/a.py", line 1, in f\n    g()')

    assert "[12 outer frames omitted]" in text_of(make_span(events=(event,)))


def test_omitted_frames_of_the_application_are_put_back(make_span, make_snapshot):
    """
    Where the whole stack is on the event as well, the application's frames that the text had to omit are shown.
    """
    frames = (
        "g (/srv/shop/a.py:1)",
        "get_response (/srv/venv/lib/python3.12/site-packages/django/base.py:197)",
        "checkout (/srv/shop/views (old).py:42)",
        "[3 outer frames omitted]",
    )
    event = make_snapshot(
        '  [5 outer frames omitted]\n  File "/srv/shop/a.py", line 1, in g\n    h()',
        **{"otel_introspect.stack.frames": frames},
    )

    lines = [line.strip() for line in text_of(make_span(events=(event,))).split("\n")]

    assert lines[-4:] == [
        "[5 outer frames omitted]",
        '> File "/srv/shop/views (old).py", line 42, in checkout',
        '> File "/srv/shop/a.py", line 1, in g',
        "h()",
    ]


def test_variables_are_shown_below_their_frame(make_span, make_snapshot):
    """
    The variables of a frame stand below its source, those of a function that calls itself with the right one of them.
    """
    stack = "\n".join(
        f'  File "/srv/shop/{file}.py", line {line}, in {name}\n    {source}'
        for file, line, name, source in [
            ("views", 42, "checkout", "reserve(article)"),
            ("stock", 7, "reserve", "reserve(part)"),
            ("stock", 7, "reserve", "reserve(part)"),
            ("stock", 5, "reserve", "sleep(1)"),
        ]
    )
    variables = (
        "in Stock.reserve (/srv/shop/stock.py:5)\n    part = 3",
        "in Stock.reserve (/srv/shop/stock.py:7)\n    part = 2\n    [5 more not shown]",
        "in gone (/srv/shop/stock.py:9)\n    part = 9",
        "nonsense \x1b[31m",
        "in checkout (/srv/shop/views.py:42)\n    article = 'x'\x1b[31m",
    )
    snapshot = make_snapshot(stack, **{"otel_introspect.stack.locals": variables})
    lines = [plain(line).strip("│ ") for line in render(by_trace([make_span(events=(snapshot,))])[0])]
    below = lines[next(index for index, line in enumerate(lines) if "views.py" in line) :]

    assert below == [
        '> File "/srv/shop/views.py", line 42, in checkout',
        "reserve(article)",
        r"article = 'x'\x1b[31m",
        '> File "/srv/shop/stock.py", line 7, in reserve',
        "reserve(part)",
        '> File "/srv/shop/stock.py", line 7, in reserve',
        "reserve(part)",
        "part = 2",
        "[5 more not shown]",
        '> File "/srv/shop/stock.py", line 5, in reserve',
        "sleep(1)",
        "part = 3",
    ]


def test_a_thread_that_waits_for_work_shows_its_innermost_frame(make_span):
    """
    Of another thread's stack with nothing of the application's in it only the innermost frame is shown.
    """
    library = '  File "/usr/lib/python3.12/threading.py", line {}, in wait\n    something()\n'
    text = "1 thread: exporter\n" + "".join(library.format(number) for number in range(9)) + "1 thread: other\n" + STACK
    event = EventView(
        "otel_introspect.threads", START, {"otel_introspect.threads.count": 2, "otel_introspect.threads.text": text}
    )

    lines = [line.strip() for line in text_of(make_span(events=(event,))).split("\n")]

    assert lines[3:8] == [
        "1 thread: exporter",
        'File "…/python3.12/threading.py", line 8, in wait',
        "something()",
        "1 thread: other",
        'File "…/django/core/handlers/base.py", line 197, in _get_response',
    ]


def test_other_threads_are_shown(make_span):
    """
    The text of the threads event is printed as stacks are, with its headings.
    """
    event = EventView(
        "otel_introspect.threads",
        START,
        {
            "otel_introspect.threads.count": 2,
            "otel_introspect.threads.text": '2 threads: a, b\n  File "/srv/shop/stock.py", line 7, in recount\n    x()',
        },
    )

    text = text_of(make_span(events=(event,)))

    assert "meanwhile 2 other threads" in text
    assert "2 threads: a, b" in text
    assert '> File "/srv/shop/stock.py", line 7, in recount' in text


def profile_event(text, **more):
    attributes = {
        "otel_introspect.profile.text": text,
        "otel_introspect.profile.duration_ms": 1220,
        "otel_introspect.profile.sample_count": 118,
        "otel_introspect.profile.trigger": "slow",
    }
    return EventView("otel_introspect.profile", START + SECOND, {**attributes, **more})


def test_a_profile_is_shown_as_a_tree(make_span):
    """
    A profile is printed line by line below a heading that says what it covers and where the whole of it is.
    """
    event = profile_event(
        "1.22 view  shop/views.py:3\n└─ 1.20 recount  shop/stock.py:7",
        **{"otel_introspect.profile.url": "file:///srv/profiles/0.html"},
    )
    text = text_of(make_span(events=(event,)))

    assert "profile of 1.22 s · slow · 118 samples · file:///srv/profiles/0.html" in text
    assert "1.22 view  shop/views.py:3\n" in text
    assert "└─ 1.20 recount  shop/stock.py:7" in text


def test_a_profile_is_drawn_in_ascii(make_span):
    """
    Where boxes can't be drawn, the tree of a profile has none.
    """
    span = make_span(events=(profile_event("1.2 a\n├─ 1.1 b\n│  └─ 1.0 c"),))
    text = "\n".join(plain(line) for line in render(Trace(span.trace_id, (span,)), ASCII))

    assert "|- 1.1 b" in text
    assert "|  `- 1.0 c" in text


def test_a_long_profile_is_cut(make_span):
    """
    Of a profile with very many lines the first ones are shown, and how many there are.
    """
    text = text_of(make_span(events=(profile_event("\n".join(f"line {n}" for n in range(100))),)))

    assert "line 59" in text
    assert "line 60" not in text
    assert "40 more lines" in text


def test_siblings_that_are_alike_share_a_line(make_span):
    """
    The same query, many times, is one line with the number, the time in all and the longest.
    """
    queries = [
        make_span(
            f"q{number}",
            "1",
            name="SELECT",
            end_ns=START + SECOND // 100,
            attributes={"db.statement": "SELECT  *\n FROM shop_order"},
        )
        for number in range(50)
    ]

    lines = text_of(make_span("1"), *queries).split("\n")

    assert lines[2:] == [f"└─ SELECT {UNICODE.times}50  500 ms (50%) together, longest 10 ms  SELECT * FROM shop_order"]


def test_a_span_with_something_to_say_is_never_merged_with_others(make_span):
    """
    A failed one among alike siblings has a line of its own.
    """
    queries = [make_span(f"q{number}", "1", name="SELECT") for number in range(5)]
    failed = make_span("q9", "1", name="SELECT", status="ERROR", status_description="database is locked")

    text = text_of(make_span("1"), *queries, failed)

    assert f"SELECT {UNICODE.times}5" in text
    assert "ERROR: database is locked" in text


def test_too_many_children_are_left_out_and_counted(make_span):
    """
    Of a thousand different children the longest are shown, the others counted.
    """
    children = [make_span(f"c{number}", "1", name=f"child {number}") for number in range(1000)]

    lines = text_of(make_span("1"), *children).split("\n")

    assert len(lines) < 40
    assert lines[-1] == "└─ … 975 more spans"


@pytest.mark.parametrize("depth", [50, 5000])
def test_a_deep_trace_is_cut_and_counted(make_span, depth):
    """
    However deep the nesting, the tree ends and says how much it leaves out.
    """
    spans = [make_span("0"), *(make_span(str(number), str(number - 1)) for number in range(1, depth))]

    lines = text_of(*spans).split("\n")

    assert lines[-1].endswith(f"… {depth - 31} more spans")


def test_spans_whose_parents_go_in_circles_are_each_shown_once(make_span):
    """
    Two spans that are each other's parents, and two with one id, end the tree all the same.
    """
    text = text_of(make_span("a", "b", name="A"), make_span("b", "a", name="B"), make_span("b", "a", name="C"))

    assert [text.count(name) for name in ("A", "B", "C")] == [1, 1, 1]


def test_an_exception_is_shown_with_its_traceback(make_span):
    """
    An exception event is shown as Python would, the application's frames standing out.
    """
    event = EventView(
        "exception",
        START,
        {
            "exception.type": "ValueError",
            "exception.message": "no such article",
            "exception.stacktrace": 'Traceback (most recent call last):\n  File "/srv/a.py", line 1, in f\n    g()\n'
            "    ^^^\nValueError: no such article",
        },
    )

    text = text_of(make_span(events=(event,)))

    assert "ValueError: no such article" in text
    assert '> File "/srv/a.py", line 1, in f' in text
    assert "^^^" not in text


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"http.response.status_code": 503, "http.request.method": "PUT", "url.path": "/a/b"}, ["503", "PUT", "/a/b"]),
        ({"http.status_code": 200, "http.method": "POST", "http.target": "/old"}, ["200", "POST", "/old"]),
        ({"db.query.text": "SELECT 1"}, ["SELECT 1"]),
    ],
)
def test_what_matters_of_the_attributes_is_shown(make_span, attributes, words):
    """
    Status, method, path and statement are shown, under the old names as well as the new.
    """
    assert all(word in text_of(make_span(attributes=attributes)) for word in words)


def test_late_and_partial_traces_say_so(make_span):
    """
    What comes after its trace, or without its entry span, is marked in the heading.
    """
    assert "continued" in text_of(make_span(), late=True)
    assert "entry span has not arrived" in text_of(make_span("2", "1"), partial=True)


def test_spans_are_grouped_by_trace(make_span):
    """
    Spans of two traces, mixed, come back as two.
    """
    spans = [make_span("1", trace_id="a"), make_span("2", trace_id="b"), make_span("3", "1", trace_id="a")]

    assert [(trace.trace_id, len(trace.spans)) for trace in by_trace(spans)] == [("a", 2), ("b", 1)]


# Plain text() seldom makes the characters that do harm.
HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("\x00\x07\x08\x1b\r\n\t\x7f\x85\x9b\u2028\u202e\u2066\ud800\udfff[]/\\"),
    ),
    max_size=40,
) | st.sampled_from(
    ["[/]", "[red]", "\x1b]0;title\x07", "\x1b[2J", 'File "x", line 1, in f', '  File "\udcff", line 9, in g\n    h()']
)
VALUES = st.one_of(
    HOSTILE, st.integers(), st.booleans(), st.floats(), st.lists(HOSTILE, max_size=3).map(tuple), st.none()
)
KEYS = st.one_of(
    HOSTILE,
    st.sampled_from(
        [
            "code.stacktrace",
            "otel_introspect.elapsed_ms",
            "otel_introspect.lateness_ms",
            "otel_introspect.repeated",
            "otel_introspect.threads.text",
            "otel_introspect.threads.count",
            "otel_introspect.profile.text",
            "otel_introspect.profile.duration_ms",
            "otel_introspect.profile.url",
            "otel_introspect.stack.frames",
            "otel_introspect.stack.locals",
            "exception.stacktrace",
            "code.function.name",
            "code.file.path",
            "http.route",
            "http.status_code",
            "db.statement",
        ]
    ),
)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=5)
EVENTS = st.builds(
    EventView,
    name=st.one_of(
        st.sampled_from(
            ["otel_introspect.stack_snapshot", "otel_introspect.threads", "otel_introspect.profile", "exception"]
        ),
        HOSTILE,
    ),
    time_ns=st.integers(-(2**70), 2**70),
    attributes=ATTRIBUTES,
)
SPANS = st.builds(
    SpanView,
    trace_id=HOSTILE,
    span_id=st.sampled_from(["1", "2", "3", "\x1b"]),
    parent_id=st.sampled_from(["", "1", "2", "3", "\x1b"]),
    entry=st.booleans(),
    name=HOSTILE,
    kind=HOSTILE,
    start_ns=st.integers(-(2**70), 2**70),
    end_ns=st.integers(-(2**70), 2**70),
    status=st.sampled_from(["UNSET", "OK", "ERROR"]),
    status_description=HOSTILE,
    attributes=ATTRIBUTES,
    events=st.lists(EVENTS, max_size=3).map(tuple),
    service=HOSTILE,
)


@given(spans=st.lists(SPANS, min_size=1, max_size=8))
def test_no_text_does_harm(spans):
    """
    Whatever is in a trace, its tree has printable characters only, and none of its lines is two.
    """
    lines = [plain(line) for line in render(Trace(spans[0].trace_id, tuple(spans)))]

    assert all(line.isprintable() for line in lines)


@given(spans=st.lists(SPANS, min_size=1, max_size=8))
def test_every_span_is_shown_or_counted(spans):
    """
    No span is lost, however odd its family is.
    """
    shown = [line for line in render(Trace("", tuple(spans))) if any(segment.style == "name" for segment in line)]

    assert len(shown) <= len(spans)
    assert shown


def test_a_number_too_long_to_print_costs_only_itself(make_span):
    """
    An integer of more digits than Python prints is replaced by words.
    """
    text = text_of(make_span(attributes={"http.route": 10**6000}, name="GET"))

    assert "<int that can't be shown>" in text


def test_a_tree_can_be_drawn_in_ascii(make_span, make_snapshot):
    """
    For a stream that knows ASCII only, the tree is drawn with nothing else.
    """
    spans = (make_span("1"), make_span("2", "1", events=(make_snapshot(),)))

    lines = render(Trace("1", spans), ASCII)

    assert all(plain(line).isascii() for line in lines)


def test_no_sdk_is_needed_for_a_tree_of_otlp_json():
    """
    Reading OTLP JSON and rendering it imports neither the SDK nor rich.
    """
    import subprocess
    import sys

    code = (
        "import sys, json\n"
        "from otel_introspect.exporters.span_view import from_otlp_json\n"
        "from otel_introspect.exporters.trace_tree import by_trace, render\n"
        f"spans = from_otlp_json(json.loads({json.dumps(json.dumps(REQUEST))}))\n"
        "assert render(by_trace(spans)[0])\n"
        "assert not {'opentelemetry.sdk', 'rich'} & set(sys.modules), sys.modules.keys()\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


REQUEST = {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "aa", "spanId": "bb", "name": "GET"}]}]}]}
