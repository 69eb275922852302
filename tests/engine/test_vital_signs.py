"""Vital signs: what the flight recorder is told once a second, of whom, and that it costs nobody anything."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
from recorders import begin, in_child, recorder_in, spans_in

from otel_introspect import faults
from otel_introspect.engine.live_table import LiveTable
from otel_introspect.engine.native import get_ident
from otel_introspect.engine.places import here
from otel_introspect.engine.recorder_reading import read_record
from otel_introspect.engine.vital_signs import PERIOD, VitalSigns

SECOND_MS = 1000


class FakeSpan(SimpleNamespace):
    """What the engine knows of a span."""

    __hash__ = object.__hash__


class Fixture:
    """A live table with a recorder and a clock that moves when a test says so."""

    def __init__(self, folder, clock):
        self.clock = clock
        self.table = LiveTable()
        self.recorder = recorder_in(folder)
        self.described = []
        self.signs = VitalSigns(self.table, self.recorder, self.describe, clock)
        self.spans = {}

    def describe(self, span):
        self.described.append(span)
        if span.name == "raises":
            raise ValueError("no description")
        return {"name": span.name, "attributes": {"http.route": "/<id>"}}

    def start(self, key, *, name="GET /", place=None):
        self.recorder.open()
        span = self.spans[key] = FakeSpan(start_time=self.clock.wall(), name=name)
        self.table.add(key, lambda: self.spans.get(key), get_ident() if place is None else place)
        begin(self.recorder, key, name="at the start")
        return span

    def end(self, key):
        del self.spans[key]
        self.table.discard(key)
        self.recorder.end(key)

    def look(self, milliseconds=0):
        self.clock.advance(milliseconds)
        return self.signs.look()

    def span(self, key):
        return spans_in(self.recorder)[key]

    def beat(self):
        return read_record(self.recorder.path).beat


@pytest.fixture(name="vital")
def _vital(tmp_path, clock):
    fixture = Fixture(tmp_path / "flight", clock)

    yield fixture

    fixture.recorder.close()


def test_nothing_to_look_at(vital):
    """
    A process without open spans is not looked at again, and has no file.
    """
    assert vital.look() is None
    assert vital.look(10 * SECOND_MS) is None
    assert vital.recorder.path is None


def test_a_young_span(vital):
    """
    It is written down that the thread lives; of a span that is not a second old, nothing more.
    """
    vital.start(1)
    assert vital.look() == PERIOD

    assert vital.beat() is not None
    assert vital.span(1).name == "at the start"
    assert vital.span(1).stack is None
    assert vital.described == []


def test_a_span_that_is_a_second_old(vital):
    """
    Its name now, its attributes and where it is are written down, by the observer ``thread``.
    """
    vital.start(1, name="GET /<id>")
    vital.look()
    vital.look(SECOND_MS)
    span = vital.span(1)

    assert (span.name, span.attributes["http.route"]) == ("GET /<id>", "/<id>")
    assert (span.stack.observer, span.stack.thread_id, span.stack.task_state) == ("thread", get_ident(), None)
    assert span.stack.taken == vital.clock.wall()
    assert "test_a_span_that_is_a_second_old" in [frame.function for frame in span.stack.frames]


def test_a_slow_span(vital):
    """
    A span that has turned slow is looked at as well.
    """
    vital.start(1, name="slow")
    vital.look()
    vital.table.turn_slow(1, vital.clock.monotonic())
    vital.look(SECOND_MS)

    assert vital.span(1).name == "slow"
    assert vital.span(1).stack is not None


def test_once_a_second(vital):
    """
    However often it is called, it looks once a second, and says when it wants to be called again.
    """
    vital.start(1)
    vital.look()
    vital.look(SECOND_MS)
    before = len(vital.described)

    assert [vital.look(300) for _ in range(3)] == [700_000_000, 400_000_000, 100_000_000]
    assert len(vital.described) == before
    assert vital.look(100) == PERIOD
    assert len(vital.described) == before + 1


def test_the_last_span_ends(vital):
    """
    Then the process is idle, which is no sign of death; and its next span is looked after at once.
    """
    vital.start(1)
    vital.look()
    vital.end(1)
    assert vital.look(10) is None
    assert vital.beat() is None

    vital.start(2)
    assert vital.look(10) == PERIOD
    assert vital.beat() is not None


def test_many_spans(vital):
    """
    No more are looked at than the file has slots.
    """
    for key in range(1, 400):
        vital.start(key)
    vital.look()
    vital.look(SECOND_MS)

    assert 200 < len(vital.described) <= 256


def test_one_that_fails(vital):
    """
    A span that can't be described costs nothing but its own description.
    """
    vital.start(1, name="raises")
    vital.start(2, name="fine")
    vital.look()
    vital.look(SECOND_MS)

    assert vital.span(2).name == "fine"
    assert vital.beat() is not None
    assert faults.counts == {("failed", "writing down where a request is"): 1}


def test_a_recorder_that_fails(vital, monkeypatch):
    """
    Whatever the recorder raises is our own fault, and the introspector goes on.
    """

    def fails(**_):
        raise OSError("no")

    vital.start(1)
    monkeypatch.setattr(vital.recorder, "beat", fails)

    assert vital.look() == PERIOD
    assert faults.counts == {("failed", "writing down vital signs"): 1}


def test_a_forgotten_span(vital):
    """
    A span that nobody holds any more is let be.
    """
    vital.start(1)
    vital.start(2)
    vital.spans.clear()
    vital.look()
    vital.look(SECOND_MS)

    assert vital.described == []


def test_other_threads(vital):
    """
    A span on another thread is shown where that thread is.
    """
    ready, go_on = threading.Event(), threading.Event()

    def the_other_one():
        vital.start(1)
        ready.set()
        go_on.wait(60)

    thread = threading.Thread(target=the_other_one)
    thread.start()
    ready.wait(60)
    vital.look()
    vital.look(SECOND_MS)
    go_on.set()
    thread.join()

    assert "the_other_one" in [frame.function.rpartition(".")[2] for frame in vital.span(1).stack.frames]


def test_a_task(vital):
    """
    A task that is parked is shown where it awaits, and not the one that runs.
    """

    async def parked(started, go_on):
        vital.start(1, place=here())
        started.set()
        await go_on.wait()

    async def main():
        started, go_on = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(parked(started, go_on))
        await started.wait()
        vital.look()
        vital.look(SECOND_MS)
        go_on.set()
        await task

    asyncio.run(main())
    functions = [frame.function.rpartition(".")[2] for frame in vital.span(1).stack.frames]

    assert vital.span(1).stack.task_state == "awaiting"
    assert "parked" in functions
    assert "main" not in functions


def test_a_forked_child(vital):
    """
    It makes a file of its own at the first look, without waiting until the parent's next one would be due.
    """
    vital.start(1)
    vital.look()

    def work():
        vital.signs.after_fork()
        vital.look()
        beat = vital.beat() is not None
        begin(vital.recorder, 2)
        return beat, list(spans_in(vital.recorder))

    assert in_child(work) == "(True, [2])"
    assert set(spans_in(vital.recorder)) == {1}
