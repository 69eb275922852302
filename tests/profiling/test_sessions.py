"""Recordings as sessions that pyinstrument's own renderers show."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinstrument.renderers import ConsoleRenderer, HTMLRenderer, JSONRenderer, SpeedscopeRenderer
from pyinstrument.session import Session

from otel_introspect.engine.alarm import ALARM
from otel_introspect.engine.ownership import OUR_DIRECTORY
from otel_introspect.engine.recording import AWAITING, MAX_FRAMES, Recording
from otel_introspect.engine.sampler import Sampled, Sampler
from otel_introspect.engine.stacks import MAX_DEPTH, trimmed
from otel_introspect.profiling.sessions import Facts, prepare, summed_session, whole_session

NEVER = 1e9
FACTS = Facts(start_time=1_700_000_000.0, duration=1.0, interval=0.001, description="GET /report", cpu_time=0.5)

FILES = {
    "app": "/srv/shop/views.py",
    "lib": "/usr/lib/python3/site-packages/django/core/handlers/base.py",
    "server": "/usr/lib/python3/site-packages/gunicorn/workers/sync.py",
    "thread": "<frozen runpy>",
    "ours": f"{OUR_DIRECTORY}sinks/reporter.py",
    "doorway": f"{OUR_DIRECTORY}instrumentation/django/middleware.py",
    "guard": f"{OUR_DIRECTORY}instrumentation/django/span_guard.py",
}


def function(name, file):
    """The code object of a function of that name in that file."""
    return next(
        each
        for each in compile(f"def {name}():\n    pass\n", file, "exec").co_consts
        if hasattr(each, "co_name") and each.co_name == name
    )


CODES = {f"{kind}{number}": function(f"{kind}{number}", file) for kind, file in FILES.items() for number in range(2)}


def stack(*names):
    """A raw stack, named outermost first."""
    return [part for name in reversed(names) for part in (CODES[name], 0)]


def recorded(*samples):
    """A recording of samples that are each a time, a state and the names of a stack."""
    recording = Recording(0.0)
    for at, state, *names in samples:
        recording.add(at, NEVER, [stack(*names)], state)
    return recording


def shown(session):
    """The stacks of a session by their functions' names, with their time."""
    found = defaultdict(float)
    for frames, seconds in session.frame_records:
        found[tuple(each.split("\0")[0] for each in frames)] += seconds
    return dict(found)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(sorted(CODES)), min_size=1, max_size=12))
def test_stacks_are_trimmed_as_those_of_snapshots(names):
    """
    A profile begins where a snapshot of the same stack does, and leaves out the same frames.
    """
    raw = stack(*names)
    capture = trimmed(list(zip(raw[::2], raw[1::2], strict=True)))
    recording = Recording(0.0)
    recording.add(1.0, NEVER, [raw])
    expected = tuple(code.co_name for code, _ in reversed(capture.positions))

    assert shown(whole_session(recording, FACTS)) == {expected: 1.0}
    assert len(expected) <= MAX_DEPTH


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from(sorted(CODES)), max_size=8), max_size=12))
def test_both_sessions_have_the_same_times(stacks):
    """
    In order or summed up, each stack has the same time, and all of them together the recording's.
    """
    recording = recorded(*((at + 1.0, 0, *names) for at, names in enumerate(stacks)))
    whole, summed = whole_session(recording, FACTS), summed_session(recording, FACTS)

    assert shown(whole) == pytest.approx(shown(summed))
    assert sum(shown(whole).values()) == pytest.approx(len(stacks))
    assert whole.sample_count == len(stacks)
    assert len(summed.frame_records) <= len(whole.frame_records)


def test_the_order_is_kept():
    """
    A whole session tells what came when, as a timeline shows it.
    """
    recording = recorded((1, 0, "app0"), (2, 0, "app1"), (3, 0, "app0"))

    assert [frames[0].split("\0")[0] for frames, _ in whole_session(recording, FACTS).frame_records] == [
        "app0",
        "app1",
        "app0",
    ]


def gap_await_and_cut():
    """A recording with all that stands for no call."""
    recording = Recording(0.0)
    recording.add(0.01, 0.06, [stack("server0", "app0", "lib0")])
    recording.add(1.01, 0.06, [stack("server0", "app0", "lib1")])
    recording.add(2.01, NEVER, [stack("server0", "app0")], AWAITING)
    recording.add(3.01, NEVER, [stack(*["server0"] * 3, *["app1"] * MAX_FRAMES)[: 2 * MAX_FRAMES]])
    return recording


def test_what_stands_for_no_call_is_shown():
    """
    Waiting, gaps and frames that were left out have names of their own, at their place.
    """
    found = shown(whole_session(gap_await_and_cut(), FACTS))

    assert found["app0", "[no sample: something kept the GIL]"] == pytest.approx(1.0)
    assert found["app0", "[await]"] == pytest.approx(1.0)
    assert found[("[outer frames omitted]", *["app1"] * MAX_FRAMES)] == pytest.approx(1.0)


def test_a_stack_of_nothing_but_the_server_is_shown_whole():
    """
    Waiting and gaps do not make up for a call: where there is none of the application's, the server's are shown.
    """
    recording = Recording(0.0)
    recording.add(1.0, NEVER, [stack("server0", "server1")], AWAITING)

    assert list(shown(whole_session(recording, FACTS))) == [("server0", "server1", "[await]")]


def test_a_recording_that_saw_nothing_is_a_session():
    """
    Even without a sample the renderers have something to show.
    """
    session = whole_session(Recording(0.0), FACTS)

    assert session.sample_count == 0
    assert "GET /report" in ConsoleRenderer().render(session)
    json.loads(JSONRenderer().render(session))


@pytest.mark.parametrize("make", [whole_session, summed_session])
def test_pyinstrument_s_own_renderers_show_it(make):
    """
    Text, HTML, JSON and speedscope come out of it, with functions, files and what stands for no call.
    """
    session = make(gap_await_and_cut(), FACTS)
    text = ConsoleRenderer(show_all=True, unicode=True).render(session)
    page = HTMLRenderer().render(session)

    for name in ("app0", "lib0", "[await]", "no sample", "outer frames omitted"):
        assert name in text
    assert "views.py" in text
    assert "app0" in page
    assert json.loads(JSONRenderer().render(session))["root_frame"]
    assert json.loads(SpeedscopeRenderer().render(session))["shared"]["frames"]


def test_it_can_be_written_and_read():
    """
    A session that was written as JSON reads as the same.
    """
    session = whole_session(gap_await_and_cut(), FACTS)
    again = Session.from_json(json.loads(json.dumps(session.to_json())))

    assert shown(again) == pytest.approx(shown(session))
    assert again.target_description == "GET /report"
    assert (again.start_time, again.duration, again.cpu_time) == (FACTS.start_time, 1.0, 0.5)
    assert again.min_interval == 0.001


def test_waiting_is_no_time_of_a_call():
    """
    pyinstrument counts awaiting as such, by the name that it has itself.
    """
    recording = recorded((1, 0, "app0"), (3, AWAITING, "app0"))
    root = whole_session(recording, FACTS).root_frame()

    assert root.function == "app0"
    assert root.time == pytest.approx(3)
    assert [each.is_synthetic for each in root.children if each.function == "[await]"] == [True]


def test_lines_and_names():
    """
    A frame says its line, and its name without the functions around it.
    """

    class Report:
        def total(self):
            return sys._getframe()

    frame = Report().total()
    recording = Recording(0.0)
    recording.add(1.0, NEVER, [[frame.f_code, frame.f_lasti]])
    ((frames, _),) = whole_session(recording, FACTS).frame_records
    name, file, rest = frames[0].split("\0")

    assert name == ("Report.total" if sys.version_info >= (3, 11) else "total")
    assert file == __file__
    assert rest == f"{frame.f_code.co_firstlineno}\x01l{frame.f_lineno}"


def test_it_begins_where_the_work_was_begun():
    """
    What is around the profiled block, trimmed as the samples are, is the stack that the tree begins in.
    """
    around = [(CODES[name], 0) for name in ("ours0", "app0", "doorway0", "server0")]
    session = whole_session(recorded((1, 0, "app0", "app1")), FACTS._replace(began_in=around))

    assert [each.split("\0")[0] for each in session.start_call_stack] == ["app0"]
    outside = [(CODES[name], 0) for name in ("ours0", "app0", "server0")]
    session = whole_session(recorded((1, 0, "app0", "app1")), FACTS._replace(began_in=outside))
    assert [each.split("\0")[0] for each in session.start_call_stack] == ["app0"]


def test_a_sample_that_comes_late_does_no_harm(monkeypatch):
    """
    Somebody may put down a last sample, of a call that is new, while the session is being made.
    """
    recording = recorded((1, 0, "app0"))
    tree = recording.tree

    def interrupted():
        recording.add(2, NEVER, [stack("app1", "lib0")])
        return tree()

    monkeypatch.setattr(recording, "tree", interrupted)

    assert shown(whole_session(recording, FACTS))["app0",] == 1.0
    assert shown(summed_session(recording, FACTS))["app0",] == 1.0


def test_prepare_loads_pyinstrument():
    """
    Before the first profile, where there is time for it.
    """
    prepare()

    assert "pyinstrument.session" in sys.modules


# A workload that is known.


def most(end):
    while time.perf_counter() < end:
        pass


def some(end):
    while time.perf_counter() < end:
        pass


def little(end):
    while time.perf_counter() < end:
        pass


def workload(rounds):
    for _ in range(rounds):
        for work, share in ((most, 0.6), (some, 0.3), (little, 0.1)):
            work(time.perf_counter() + 0.053 * share)  # in step with no interval


def sampled_workload(interval):
    sampler, over, here = Sampler(), threading.Event(), threading.get_ident()

    def tick():
        while not over.is_set():
            over.wait(sampler.tick() or 0.001)

    sampled = Sampled("request", lambda: here, interval, time.monotonic())
    sampler.start(sampled)
    thread = threading.Thread(target=tick)
    thread.start()
    try:
        workload(57)
    finally:
        sampler.stop(sampled)
        over.set()
        thread.join()
        sampler.close()
        if threading.current_thread() is threading.main_thread():
            ALARM.release()
    return sampled


@pytest.mark.realtime
@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("interval", [0.001, 0.01])
def test_a_known_workload_is_told_within_five_points(where, interval):
    """
    Three functions that take 60, 30 and 10 % of three seconds are seen at that, by the alarm and by a thread.
    """
    if where == "main":
        sampled = sampled_workload(interval)
    else:
        found = []
        thread = threading.Thread(target=lambda: found.append(sampled_workload(interval)))
        thread.start()
        thread.join(60)
        (sampled,) = found
    times = defaultdict(float)
    for frames, seconds in shown(whole_session(sampled.recording, FACTS)).items():
        times[next((each for each in frames if each in ("most", "some", "little")), "")] += seconds
    total = sum(times.values())

    assert total == pytest.approx(3.0, rel=0.2)
    assert times["most"] / total == pytest.approx(0.6, abs=0.05)
    assert times["some"] / total == pytest.approx(0.3, abs=0.05)
    assert times["little"] / total == pytest.approx(0.1, abs=0.05)
