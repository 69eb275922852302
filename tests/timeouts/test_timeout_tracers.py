"""Tracers and profilers that are there still are there after an interruption."""

from __future__ import annotations

import sys
import threading

import pytest
from interruptions import LIMIT, Expired, run_script, script, spin

from otel_introspect import timeout


class Flag:
    """Never set: it keeps a loop from being seen through."""

    stop = False


# fmt: off
def one_line():
    while 1: pass  # noqa: E701 - on one line, as the jump then goes to itself
# fmt: on


def attribute():
    while not Flag.stop:
        pass


class Tracer:
    """A trace function that remembers what it was told."""

    def __init__(self):
        self.events = []

    def __call__(self, frame, event, argument):
        self.events.append((frame.f_code.co_name, event))
        return self

    def seen(self, name):
        return {event for function, event in self.events if function == name}


def as_object(tracer):
    return tracer


def as_method(tracer):
    return tracer.__call__


def as_function(tracer):
    def trace(frame, event, argument):
        tracer(frame, event, argument)
        return trace

    return trace


def as_two_functions(tracer):
    """One for calls, another one for what happens in them."""

    def within(frame, event, argument):
        tracer(frame, event, argument)
        return within

    def at_call(frame, event, argument):
        tracer(frame, event, argument)
        return within

    return at_call


@pytest.fixture(name="tracer")
def _tracer():
    tracer, before = Tracer(), sys.gettrace()
    yield tracer
    sys.settrace(before)


def afterwards():
    total = 0
    for number in range(3):
        total += number
    return total


@pytest.mark.parametrize("kind", [as_object, as_method, as_function, as_two_functions], ids=lambda each: each.__name__)
@pytest.mark.parametrize("loop", [one_line, attribute], ids=lambda each: each.__name__)
def test_a_trace_function_still_traces(loop, kind, tracer, rescue):
    """
    After each of many interruptions of a loop the trace function that was there is told of what comes then.
    """

    def interrupted():
        try:
            with timeout(0.01, Expired):
                loop()
        except Expired:
            tracer.events.clear()
        marker = afterwards()
        return marker + 1

    kept = []
    for _ in range(20):
        function = kind(tracer)
        sys.settrace(function)
        interrupted()
        kept.append(sys.gettrace() == function)
        afterwards()
        sys.settrace(None)
        # The lines of the same frame after the exception, and those of new ones.
        assert "line" in tracer.seen("interrupted")
        assert tracer.seen("afterwards") == {"call", "line", "return"}
        assert [event for _, event in tracer.events if event == "opcode"] == []

    assert all(kept)


def test_no_trace_function_is_left_where_there_was_none(rescue):
    """
    What interrupts a loop is gone afterwards: no trace function of the thread nor of a frame.
    """
    before = sys.gettrace(), sys._getframe().f_trace, sys._getframe().f_trace_opcodes

    for _ in range(20):
        try:
            with timeout(0.002, Expired):
                while not Flag.stop:
                    pass
        except Expired:
            pass

        assert (sys.gettrace(), sys._getframe().f_trace, sys._getframe().f_trace_opcodes) == before


def test_a_profile_function_still_is_told(rescue):
    """
    A profile function that was there is told of what comes after an interruption.
    """
    calls = []

    def profile(frame, event, _argument):
        if event == "call":
            calls.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        with pytest.raises(Expired), timeout(LIMIT, Expired):
            attribute()
        calls.clear()
        afterwards()
        kept = sys.getprofile()
    finally:
        sys.setprofile(before)

    assert kept is profile
    assert "afterwards" in calls


def test_another_thread_s_tracer_is_left_alone(rescue):
    """
    A trace function of another thread is told of all that happens there while the main thread is interrupted.
    """
    tracer, over = Tracer(), threading.Event()
    turns = []

    def work():
        sys.settrace(tracer)
        while not over.is_set():
            turns.append(afterwards())
        sys.settrace(None)

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(10):
        with pytest.raises(Expired), timeout(0.01, Expired):
            attribute()
        spin(0.005)
    over.set()
    thread.join()

    assert [name for name, event in tracer.events if event == "call"].count("afterwards") == len(turns)


PROGRAM = script(
    """
    class Flag: stop = False

    def interrupted(number):
        try:
            with timeout(0.005 + number * 0.0001, Expired):
                while not Flag.stop:
                    pass
        except Expired:
            caught = True
        after_it = [caught]
        return after_it

    def one_line(number):
        try:
            with timeout(0.005 + number * 0.0001, Expired):
                while 1: pass
        except Expired:
            caught = True
        after_it = [caught]
        return after_it

    def in_callee():
        while not Flag.stop:
            pass

    def outer(number):
        try:
            with timeout(0.005 + number * 0.0001, Expired):
                in_callee()
        except Expired:
            caught = True
        after_it = [caught]
        return after_it

    def never_run():
        return "not covered"

    def last():
        return "covered"

    for number in range(20):
        interrupted(number)
    for number in range(20):
        one_line(number)
    for number in range(20):
        outer(number)
    last()
    """
)

NOT_COVERED = {'    return "not covered"'}


def cores():
    """The ways in which coverage can measure on this Python."""
    yield "ctrace"
    yield "pytrace"
    if sys.version_info >= (3, 12):
        yield "sysmon"


@pytest.mark.parametrize("core", list(cores()))
def test_coverage_is_complete(core, tmp_path):
    """
    A program whose loops are interrupted is measured to its end, line by line, by each of coverage's ways to measure.
    """
    program = tmp_path / "program.py"
    # What is not measured is behind this: only what comes after the first interruption is of interest.
    program.write_text(PROGRAM)
    measure = f"""
import json, os, subprocess, sys
os.chdir({str(tmp_path)!r})
coverage = [sys.executable, "-m", "coverage"]
done = [
    subprocess.run([*coverage, *command], capture_output=True, text=True, timeout=80, check=False)
    for command in (
        ["run", "--rcfile=", "--include=program.py", "--data-file=measured", "program.py"],
        ["json", "--rcfile=", "--data-file=measured", "-o", "measured.json"],
    )
]
assert all(each.returncode == 0 for each in done), [(each.stdout, each.stderr) for each in done]
print(json.dumps(json.load(open("measured.json"))["files"]["program.py"]["missing_lines"]))
"""
    (missing,), _ = run_script(measure, COVERAGE_CORE=core)
    lines = program.read_text().splitlines()

    # The preamble has a helper that this program does not call.
    interesting = {lines[number - 1] for number in missing if number > lines.index("class Flag: stop = False")}
    assert interesting == NOT_COVERED
