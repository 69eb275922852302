"""The text of a profile within its room."""

from __future__ import annotations

import re
import sys
import sysconfig
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinstrument.renderers import ConsoleRenderer
from pyinstrument.session import Session

from otel_introspect.profiling.console_text import NOTHING, console_text, short_path

LIBRARY = sysconfig.get_paths()["purelib"]
LINE = re.compile(r"^(?P<indent>[│├└─ ]*)(?P<time>\d+(\.\d+)?(e\+\d+)?)( |$)")
# Exact in binary, so that they add up to the same in any order.
TICK = 1 / 128


def session_of(records, *, interval=0.001, start=None, sys_path=("/srv/app", LIBRARY)):
    outermost = records[0][0][:1] if records else []
    return Session(
        frame_records=list(records),
        start_time=0.0,
        duration=sum(seconds for _, seconds in records),
        min_interval=interval,
        max_interval=interval,
        sample_count=len(records),
        start_call_stack=list(start if start is not None else outermost or ["nowhere"]),
        target_description="GET /report",
        cpu_time=0.0,
        sys_path=list(sys_path),
        sys_prefixes=[sys.prefix, sys.base_prefix],
    )


def own(name, line=7, file="/srv/app/shop/views.py"):
    return f"{name}\0{file}\0{line}\1l{line + 3}"


def library(name, line=9, file=f"{LIBRARY}/django/db/models/query.py"):
    return f"{name}\0{file}\0{line}\1l{line + 1}"


def as_pyinstrument_prints(session):
    text = ConsoleRenderer(unicode=True).render(session)
    tree = text.split(f"{session.target_description}\n\n", 1)[1]
    return [line.rstrip() for line in tree.rstrip().splitlines()]


frames = st.one_of(
    st.builds(own, st.sampled_from("abcdef"), st.integers(1, 4), st.just("/srv/app/shop/views.py")),
    st.builds(library, st.sampled_from("uvwxyz"), st.integers(1, 4)),
    st.builds(
        lambda name, owner: f"{name}\0/srv/app/forms.py\0003\1c{owner}\1l5",
        st.sampled_from("gh"),
        st.sampled_from("AB"),
    ),
)
records = st.lists(
    st.tuples(st.lists(frames, min_size=1, max_size=9), st.integers(1, 400).map(lambda ticks: ticks * TICK)),
    min_size=1,
    max_size=25,
)

hostile_text = st.text(st.characters(exclude_categories=[]), max_size=30)
hostile_info = st.one_of(
    hostile_text,
    st.builds("{}\0{}\0{}".format, hostile_text, hostile_text, hostile_text),
    st.sampled_from(["[self]", "[await]", "[out-of-context]", "[root]", "", "\0\0", "f\0<string>\0001", "\1c\1h1"]),
)
hostile_records = st.lists(st.tuples(st.lists(hostile_info | frames, max_size=40), st.floats(0, 1e12)), max_size=20)


def tree_of(text):
    """The lines as (depth, seconds), without those that only count what is hidden."""
    found = []
    for line in text.splitlines():
        match = LINE.match(line)
        if match:
            found.append((len(match["indent"]), float(match["time"])))
    return found


@settings(max_examples=150, deadline=None)
@given(records)
def test_with_room_enough_it_is_what_pyinstrument_prints(records):
    """
    A profile that fits is pyinstrument's own tree, line by line, and nothing is said to be hidden.
    """
    session = session_of(records)

    text, truncated = console_text(session, 1_000_000)

    assert not truncated
    # Frames that took the same time may come in any order.
    assert sorted(text.splitlines()) == sorted(as_pyinstrument_prints(session))


@settings(max_examples=150, deadline=None)
@given(hostile_records, st.integers(64, 3000))
def test_any_profile_fits_into_any_room(records, room):
    """
    Whatever is in a profile, its text is printable UTF-8 of whole lines within its room.
    """
    text, _ = console_text(session_of(records, start=["nowhere"]), room)

    encoded = text.encode("utf-8")
    assert 0 < len(encoded) <= room
    assert all(line.isprintable() for line in text.split("\n"))
    assert text == NOTHING or tree_of(text)


@settings(max_examples=150, deadline=None)
@given(records, st.integers(64, 1500))
def test_what_is_hidden_is_in_the_time_of_what_is_shown_around_it(records, room):
    """
    However small the room, callees never add up to more than their caller, and the first line has the whole time.
    """
    session = session_of(records)
    total = sum(seconds for _, seconds in records)

    lines = tree_of(console_text(session, room)[0])

    rounding = 0.001 * (len(lines) + 1)
    if len(lines) > 1:
        assert lines[0][1] == pytest.approx(total, abs=0.001)
    for at, (depth, seconds) in enumerate(lines):
        below = []
        for inner_depth, inner in lines[at + 1 :]:
            if inner_depth <= depth:
                break
            below.append((inner_depth, inner))
        nearest = min((each for each, _ in below), default=0)
        # What pyinstrument hides within a group shares an indentation with what it calls.
        if "frames hidden" not in console_text(session, room)[0]:
            assert sum(inner for each, inner in below if each == nearest) <= seconds + rounding
        assert all(inner <= seconds + rounding for _, inner in below)


def test_a_profile_without_samples_says_so():
    """
    No samples, no tree: a sentence instead.
    """
    assert console_text(session_of([], start=[]), 2000) == ("No samples were recorded.", False)


def test_a_session_that_does_not_say_where_it_began_is_shown():
    """
    Without a stack at its start nothing is trimmed, and nothing fails.
    """
    session = session_of([([own("view")], 1.0)], start=[])

    assert console_text(session, 2000)[0] == "1.000 view  shop/views.py:7"


def test_the_whole_time_comes_first():
    """
    The first line is the outermost frame with the time of all, not a banner.
    """
    session = session_of([([own("view"), own("report")], 1.5), ([own("view"), own("total")], 0.5)])

    assert console_text(session, 2000)[0].splitlines() == [
        "2.000 view  shop/views.py:7",
        "├─ 1.500 report  shop/views.py:7",
        "└─ 0.500 total  shop/views.py:7",
    ]


def test_the_smallest_frames_are_hidden_first():
    """
    Where there is no room for all callees, the largest are shown and the rest is counted.
    """
    session = session_of([([own("view"), own(f"part_{n:02}")], 1 + n / 100) for n in range(60)])

    text, truncated = console_text(session, 1000)

    assert truncated
    *shown, last = text.splitlines()
    names = re.findall(r"part_\d\d", text)
    assert names == [f"part_{n:02}" for n in range(59, 59 - len(names), -1)]
    assert len(names) > 15
    assert last == f"[{60 - len(names)} smaller frames hidden]"
    assert len(shown) == len(names) + 1
    assert len(text.encode()) > 900, "room is used"


def deep(leaves, libraries=60, applications=0):
    """Stacks as under a framework: many library frames, some of the application between them, then *leaves*."""
    outer = [library(f"outer_{n}", n + 1) for n in range(libraries)]
    for n in range(applications):
        outer.insert((n + 1) * libraries // (applications + 1), own(f"middleware_{n}", n + 1))
    return session_of([([*outer, own("view"), *leaf], seconds) for leaf, seconds in leaves])


@pytest.mark.parametrize("room", [120, 300, 1000, 2000])
def test_innermost_frames_of_the_application_outlive_library_frames(room):
    """
    Below sixty frames of a framework, the application's innermost ones are still shown, in any room but the smallest.
    """
    session = deep([([own("report"), own("slow_query"), library("execute")], 1.9), ([own("render")], 0.1)])

    text, _ = console_text(session, room)

    assert "slow_query" in text


def test_outer_frames_of_the_application_go_before_inner_ones():
    """
    Forty middlewares of the application's own do not push out the view and what it calls.
    """
    session = deep([([own("report"), own("slow_query")], 1.9), ([own("render")], 0.1)], 60, 40)

    text, truncated = console_text(session, 600)

    assert truncated
    assert "report" in text
    assert "slow_query" in text
    assert "middleware_0 " not in text
    assert re.fullmatch(r"\[\d+ frames hidden\]", text.splitlines()[-1])


def test_a_function_that_is_called_on_several_hidden_ways_is_one_line():
    """
    Where library frames between two of the application are hidden, the inner one's times are added up.
    """
    ways = [[library("each"), *(library(f"way_{n}_{m}") for m in range(8))] for n in range(3)]
    session = session_of([([own("view"), *way, own("callback")], 1.0) for way in ways])

    text, _ = console_text(session, 300)

    assert text.splitlines() == [
        "3.000 view  shop/views.py:7",
        "└─ 3.000 callback  shop/views.py:7",
        "[25 frames hidden]",
    ]


def test_in_the_smallest_room_is_the_place_that_took_most():
    """
    64 bytes hold one line, of the innermost frame that took half of the time, and the number of the others.
    """
    text, truncated = console_text(deep([([own("report"), own("slow_query")], 1.9), ([own("render")], 0.1)]), 64)

    assert truncated
    assert text.splitlines() == ["1.900 slow_query  shop/views.py:7", "[63 frames hidden]"]


def test_a_name_that_is_longer_than_the_room_is_shortened():
    """
    Only a single name that leaves room for nothing else is cut, visibly.
    """
    text, _ = console_text(session_of([([own("f" * 500)], 1.0)]), 64)

    assert re.fullmatch(r"1\.000 f{20,}\.\.\.\n\[0 frames hidden\]", text)


def test_line_numbers_of_one_function_are_one_frame():
    """
    A function that was seen at several lines is one frame with the time of all.
    """
    session = session_of([([f"view\0/srv/app/v.py\0001\1l{line}"], 1.0) for line in range(5)])

    assert console_text(session, 2000)[0] == "5.000 view  v.py:1"


def test_very_deep_recursion_is_shown():
    """
    A stack deeper than Python's own limit does no harm.
    """
    text, truncated = console_text(session_of([([own(f"f{n}") for n in range(5000)], 1.0)]), 2000)

    assert truncated
    assert "f4999" in text


@pytest.mark.parametrize(
    "path",
    [
        "/srv/app/shop/views.py",
        "/srv/other/x.py",
        f"{LIBRARY}/django/x.py",
        "/",
        "<frozen runpy>",
        "relative/x.py",
        "/srv/app",
    ],
)
def test_paths_are_as_short_as_pyinstrument_makes_them(path):
    """
    A file is shown relative to the entry of sys.path that leaves least of it.
    """
    session = session_of([], sys_path=["/srv/app", LIBRARY, "/", "/srv/app/shop/deeper"])

    assert short_path(path, tuple(session.sys_path)) == session.shorten_path(path)


@pytest.mark.realtime
def test_a_large_profile_takes_no_longer_than_a_request_may_wait():
    """
    Three thousand different stacks of sixty frames are text within a tenth of a second, on a slow machine too.
    """
    stacks = [
        [library(f"outer_{n}", n + 1) for n in range(30)]
        + [own(f"f{d}_{(n >> (d % 12)) & 1}", d + 1) for d in range(30)]
        for n in range(3000)
    ]
    session = session_of([(stack, 0.01) for stack in stacks])

    began = time.perf_counter()
    console_text(session, 2000)

    assert time.perf_counter() - began < 0.1
