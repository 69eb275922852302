"""The thread: sleeping, parking, waking, stopping, forking. Real threads, generous bounds."""

from __future__ import annotations

import os
import threading
import time

import pytest

from otel_introspect import faults
from otel_introspect.engine.introspector import INTROSPECTOR_NAME, Introspector

PATIENCE = 20


def until(condition) -> None:
    """Wait for something that happens on another thread."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


class Duty:
    """Has as much to do as a test says."""

    def __init__(self) -> None:
        self.answer: int | None = None
        self.looks = 0
        self.error: BaseException | None = None

    def look(self) -> int | None:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture(name="duty")
def _duty():
    return Duty()


@pytest.fixture(name="introspector")
def _introspector(duty):
    introspector = Introspector(duty.look, 0.001, lambda: None)
    yield introspector
    introspector.stop()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == INTROSPECTOR_NAME]


def test_nothing_starts_before_it_is_woken(introspector, duty):
    """
    Making one starts no thread.
    """
    assert introspector.parked
    assert threads() == []
    assert duty.looks == 0


def test_it_parks_when_there_is_nothing_and_wakes_when_there_is(introspector, duty):
    """
    With nothing to do it lingers for a few rounds, then blocks; a wake brings it back on the same thread.
    """
    introspector.wake()
    until(lambda: introspector.parked and duty.looks > 3)
    (thread,) = threads()
    looks = duty.looks
    time.sleep(0.05)
    assert duty.looks == looks

    introspector.wake()
    until(lambda: duty.looks > looks)
    assert threads() == [thread]


def test_it_comes_again_when_the_duty_says(introspector, duty):
    """
    While there is something to come for it neither parks nor needs to be woken.
    """
    duty.answer = 1_000_000
    introspector.wake()
    until(lambda: duty.looks > 20)

    assert not introspector.parked


def test_something_that_starts_while_it_parks_is_seen(introspector, duty):
    """
    The last look before blocking comes after it has said that it is parked: who comes in between is not overlooked.
    """
    parked_when_looked = []

    class Racing(Duty):
        def look(self) -> int | None:
            parked_when_looked.append(introspector.parked)
            if introspector.parked and len(parked_when_looked) > 1:
                self.answer = 3_600_000_000_000
            return super().look()

    racing = Racing()
    introspector._look = racing.look
    introspector.wake()
    until(lambda: racing.answer is not None)
    until(lambda: not introspector.parked)

    assert True in parked_when_looked[1:]


def test_waking_from_many_threads_starts_one(introspector, duty):
    """
    However many requests come first at the same time, there is one thread.
    """
    barrier = threading.Barrier(20)

    def request():
        barrier.wait()
        introspector.wake()

    requests = [threading.Thread(target=request) for _ in range(20)]
    for each in requests:
        each.start()
    for each in requests:
        each.join()
    until(lambda: duty.looks > 0)

    assert len(threads()) == 1


def test_stop_gives_the_thread_back_and_wake_starts_another(introspector, duty):
    """
    After ``stop`` there is no thread, after another ``wake`` there is one again.
    """
    duty.answer = 3_600_000_000_000
    introspector.wake()
    until(lambda: duty.looks == 1)
    introspector.stop()
    until(lambda: not threads())
    introspector.stop()

    introspector.wake()
    until(lambda: duty.looks == 2)


def test_a_duty_that_raises_is_counted_and_tried_again_later(introspector, duty):
    """
    A fault of ours does not end the thread, is logged once, and does not keep a core busy.
    """
    duty.error = RuntimeError("broken")
    introspector.wake()
    until(lambda: faults.counts["failed", "looking after open spans"] == 1)
    time.sleep(0.05)

    assert duty.looks == 1
    assert len(threads()) == 1


def test_a_machine_without_threads_left_is_survived(introspector, monkeypatch):
    """
    If no thread can be started, that is counted and nobody is woken again and again.
    """

    def none_left(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    introspector.wake()

    assert not introspector.parked
    assert faults.counts["failed", "starting the introspector's thread"] == 1


def in_child(work) -> bool:
    """Whether *work* returns true in a forked child, within its time."""
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = work()
        finally:
            os._exit(0 if ok else 1)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_its_own(duty):
    """
    In a forked child there is no thread until something wakes it, and then there is one that works.
    """
    forked = []
    introspector = Introspector(duty.look, 0.001, lambda: forked.append(os.getpid()))
    duty.answer = 3_600_000_000_000
    introspector.wake()
    until(lambda: duty.looks == 1)

    def child() -> bool:
        assert forked == [os.getpid()]
        assert introspector.parked
        introspector.wake()
        until(lambda: duty.looks == 2)
        return True

    try:
        assert in_child(child)
        assert forked == []
    finally:
        introspector.stop()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_waits_for_what_is_being_written(duty):
    """
    A child is not forked while the thread is in the middle of something, whose locks it would inherit locked.
    """
    inside, writing = threading.Event(), threading.Lock()

    class Busy(Duty):
        def look(self) -> int | None:
            with writing:
                inside.set()
                time.sleep(0.002)
            return 0

    introspector = Introspector(Busy().look, 0.001, lambda: None)
    introspector.wake()
    try:
        assert inside.wait(PATIENCE)
        assert all(in_child(lambda: not writing.locked()) for _ in range(30))
    finally:
        introspector.stop()


def test_it_goes_with_its_owner(duty):
    """
    The hooks that a fork calls, which can't be taken back, keep no introspector alive.
    """
    import gc
    import weakref

    introspector = Introspector(duty.look, 0.001, lambda: None)
    reference = weakref.ref(introspector)
    del introspector
    gc.collect()

    assert reference() is None
    assert in_child(lambda: True)


def test_an_errand_is_done_on_the_thread(introspector, duty):
    """
    Who has something done waits until it is, on the introspector's thread, parked or not.
    """
    introspector.wake()
    until(lambda: introspector.parked)
    done = []

    for _ in range(20):
        assert introspector.do(lambda: done.append(threading.current_thread().name))
    assert done == [INTROSPECTOR_NAME] * 20


def test_an_errand_is_the_caller_s_where_there_is_no_thread(introspector):
    """
    Before the first span, and after the end, the caller does it.
    """
    done = []

    assert introspector.do(lambda: done.append(threading.get_ident()))
    introspector.wake()
    introspector.stop()
    assert introspector.do(lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()] * 2
    assert threads() == []


def test_an_errand_of_the_thread_s_own_is_done_at_once(duty):
    """
    The introspector does not wait for itself.
    """
    done = []
    introspector = Introspector(
        lambda: done.append(introspector.do(lambda: done.append("errand"))), 0.001, lambda: None
    )
    introspector.wake()
    until(lambda: len(done) >= 2)
    introspector.stop()

    assert done[:2] == ["errand", True]


class Busy:
    """Looks until it is told to stop."""

    def __init__(self):
        self.inside, self.release = threading.Event(), threading.Event()

    def look(self):
        self.inside.set()
        self.release.wait(PATIENCE)


def test_an_errand_is_the_caller_s_where_the_thread_is_at_something_else():
    """
    Who would have to wait for long does it; the introspector does not do it again, nor keep it.
    """
    busy, done = Busy(), []
    introspector = Introspector(busy.look, 0.001, lambda: None)
    introspector.wake()
    assert busy.inside.wait(PATIENCE)
    started = time.monotonic()
    assert introspector.do(lambda: done.append(threading.get_ident()))
    waited = time.monotonic() - started
    assert not introspector._errands
    busy.release.set()
    introspector.do(lambda: None)
    introspector.stop()

    assert done == [threading.get_ident()]
    assert 0.05 < waited < 5


def test_an_errand_that_does_not_end_is_given_up(introspector, monkeypatch):
    """
    Who has begun keeps it; the caller goes on after a while and is told that it was not done.
    """
    monkeypatch.setattr("otel_introspect.engine.introspector._CLAIM_SECONDS", 0.05)
    monkeypatch.setattr("otel_introspect.engine.introspector._ERRAND_SECONDS", 0.05)
    release, done = threading.Event(), []
    introspector.wake()

    assert not introspector.do(lambda: (release.wait(PATIENCE), done.append(1)))
    release.set()
    until(lambda: done)


def test_an_errand_that_raises_does_not_end_the_thread(introspector):
    """
    A fault in it is counted, and it counts as done.
    """
    introspector.wake()

    assert introspector.do(lambda: 1 / 0)
    assert faults.counts["failed", "running an errand"] == 1
    assert introspector.do(lambda: None)


def test_errands_from_many_threads_are_each_done_once(introspector):
    """
    However many come at a time, and whoever does them.
    """
    introspector.wake()
    done = []
    callers = [
        threading.Thread(target=lambda each=each: [introspector.do(lambda: done.append(each)) for _ in range(20)])
        for each in range(10)
    ]
    for each in callers:
        each.start()
    for each in callers:
        each.join()

    assert sorted(done) == sorted(list(range(10)) * 20)


def test_an_errand_in_a_forked_child_is_the_caller_s(introspector, duty):
    """
    In a child there is no thread at first: whoever wants something done does it, at once.
    """
    introspector.wake()
    until(lambda: duty.looks > 0)

    def child():
        done = []
        return introspector.do(lambda: done.append(1)) and done == [1] and not introspector._errands

    assert in_child(child)
