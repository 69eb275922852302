"""The table of open spans."""

from __future__ import annotations

import threading
import weakref

import pytest

from otel_introspect import faults
from otel_introspect.engine.live_table import LiveTable
from otel_introspect.engine.places import ThreadPlace


class Span:
    start_time = 5


@pytest.fixture(name="span")
def _span():
    return Span()


@pytest.fixture(name="table")
def _table(span):
    table = LiveTable()
    table.add(1, weakref.ref(span), 77)
    return table


def test_a_discarded_span_is_gone(table):
    """
    A span that has ended is in the table no more, and taking it out twice does nothing.
    """
    assert 1 in table

    table.discard(1)
    table.discard(1)

    assert 1 not in table
    assert not table


def test_a_slow_span_moves(table):
    """
    A span that turns slow is found under its key all the time, and keeps its place.
    """
    watch = table.turn_slow(1, 5)

    assert watch is table.slow[1]
    assert 1 in table
    assert not table.open
    assert watch.place.thread_id == 77


def test_a_span_turns_slow_once(table):
    """
    A span that somebody put back by mistake is dropped from the open ones, and stays slow.
    """
    watch = table.turn_slow(1, 5)
    table.open[1] = (watch.reference, 77)

    assert table.turn_slow(1, 5) is None
    assert table.slow[1] is watch
    assert not table.open


def test_discarding_closes_what_is_slow(table):
    """
    Once a slow span is taken out, nobody writes to it any more.
    """
    watch = table.turn_slow(1, 5)

    table.discard(1)

    assert watch.closed


def test_discard_waits_for_a_writer(table):
    """
    Taking out a span while somebody writes to it waits until that is done.
    """
    watch = table.turn_slow(1, 5)
    ended = []
    with watch.lock:
        thread = threading.Thread(target=lambda: (table.discard(1), ended.append(True)))
        thread.start()
        thread.join(0.05)
        waited = not ended
    thread.join()

    assert waited
    assert ended


def test_a_span_that_ends_while_it_turns_slow_is_closed(span):
    """
    The end that comes between the two dictionary operations of turning slow wins.
    """
    table = LiveTable()

    class EndsMeanwhile(dict):
        def setdefault(self, key, watch):
            table.open.pop(key)  # what a request's thread does first when it ends a span
            return super().setdefault(key, watch)

    table.add(1, weakref.ref(span), 77)
    object.__setattr__(table, "slow", EndsMeanwhile())

    assert table.turn_slow(1, 5) is None
    assert 1 not in table


def test_a_forgotten_span_is_not_kept_alive(table, span):
    """
    The table holds no span that the application has let go of without ending it.
    """
    reference = weakref.ref(span)
    table.turn_slow(1, 5)
    del span

    assert reference() is not None  # the fixture's own
    assert all(not isinstance(entry, Span) for entry in (*table.open.values(), *table.slow.values()))


def test_relocating_changes_where_a_span_is_looked_for(table):
    """
    An adapter moves a span to a task and back, before and after it has turned slow.
    """
    place = ThreadPlace(3)

    assert table.relocate(1, place) == 77
    assert table.open[1][1] is place
    watch = table.turn_slow(1, 5)
    assert table.relocate(1, 77) is place
    assert isinstance(watch.place, ThreadPlace)
    assert table.relocate("unknown", 1) is None


def test_a_forked_child_keeps_the_spans_of_the_thread_that_forked(span):
    """
    In a child there is one thread only: what others had open is none of its business.
    """
    table = LiveTable()
    for key, thread_id in ((1, 77), (2, 88), (3, 77), (4, 88)):
        table.add(key, weakref.ref(span), thread_id)
    table.turn_slow(3, 5)
    table.turn_slow(4, 5)

    table.keep_only(77)

    assert set(table.open) == {1}
    assert set(table.slow) == {3}


def test_clear_closes_all(table):
    """
    Switching off leaves no span behind and nobody writing.
    """
    watch = table.turn_slow(1, 5)
    table.add(2, lambda: None, 1)

    table.clear()

    assert not table
    assert watch.closed


def test_where_a_span_runs(table):
    """
    The table knows it of open spans and of slow ones, as they are moved, and of no others.
    """
    assert table.place_of(1) == 77
    table.relocate(1, 78)
    assert table.place_of(1) == 78
    watch = table.turn_slow(1, 5)
    assert table.place_of(1) is watch.place
    table.relocate(1, 79)
    assert table.place_of(1).thread_id == 79
    table.discard(1)
    assert table.place_of(1) is None


def test_what_is_to_be_done_before_closing_is(table):
    """
    It is done once, by whoever closes, while the span can still be written to, and without the lock.
    """
    watch = table.turn_slow(1, 5)
    seen = []

    def write():
        free = []
        thread = threading.Thread(
            target=lambda: free.append(watch.lock.acquire(timeout=10) and not watch.lock.release())
        )
        thread.start()
        thread.join()
        seen.append((watch.closed, free))

    watch.before_close(write)
    watch.put_off(lambda: seen.append("put off"))
    table.discard(1)
    watch.close()

    assert seen == [(False, [True]), "put off"]


def test_what_raises_before_closing_costs_only_itself(table):
    """
    A fault is counted; what else is to be done is, and the watch is closed.
    """
    watch = table.turn_slow(1, 5)
    seen = []
    watch.before_close(lambda: seen.append(1))
    watch.before_close(lambda: 1 / 0)
    watch.before_close(lambda: seen.append(2))
    watch.close()

    assert sorted(seen) == [1, 2]
    assert watch.closed
    assert faults.counts["failed", "writing evidence"] == 1


def test_what_comes_while_closing_is_done_too(table):
    """
    Between the last thing that is done and the closing there is no moment in which another one is lost.
    """
    watch = table.turn_slow(1, 5)
    seen = []
    watch.before_close(lambda: watch.before_close(lambda: seen.append(watch.closed)))
    watch.close()

    assert seen == [False]


def test_what_comes_after_closing_is_not_done(table):
    """
    Nobody writes to a span that is closed.
    """
    watch = table.turn_slow(1, 5)
    watch.close()
    watch.before_close(lambda: pytest.fail("it was done"))
    watch.close()


def test_two_who_close_do_it_once(table):
    """
    A span that is ended on two threads at once has each thing done once, and no fault of ours.
    """
    watch = table.turn_slow(1, 5)
    seen = []
    for each in range(200):
        watch.before_close(lambda each=each: seen.append(each))
    threads = [threading.Thread(target=watch.close) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert sorted(seen) == list(range(200))
    assert not faults.counts
