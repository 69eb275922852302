"""Which request a thread of a pool works for."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from otel_introspect.engine import handover
from otel_introspect.engine.handover import (
    Within,
    belongs_to,
    handed_over,
    is_waiting,
    origin_here,
    threads_of,
    work_on,
)

PATIENCE = 10


@pytest.fixture(autouse=True)
def _nobody_works():
    token = handover.current.set(None)
    yield
    handover.current.reset(token)
    assert handover.working == {}


def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(PATIENCE)
    return found[0]


def test_nobody_s_work():
    """
    Where no request is known, there is none.
    """
    assert origin_here() is None
    assert threads_of("request") == []


def test_the_origin_is_the_context_s_or_that_of_the_work():
    """
    On a thread at work that counts, and elsewhere what was noted in the context.
    """
    handover.current.set("here")
    assert origin_here() == "here"
    assert handed_over(origin_here, "there")() == "there"
    assert origin_here() == "here"


def test_what_is_handed_over_is_known_while_it_runs():
    """
    Arguments and result are as they were, and the thread tells for whom it works until the work is done.
    """

    def work(one, *, other):
        return one, other, threads_of("request") == [threading.get_ident()]

    assert in_thread(lambda: handed_over(work, "request")(1, other=2)) == (1, 2, True)
    assert handover.working == {}


def test_an_exception_ends_it_and_passes():
    """
    What the work raises is the caller's, and the thread works for nobody then.
    """

    def work():
        raise KeyError("its own")

    with pytest.raises(KeyError, match="its own"):
        handed_over(work, "request")()
    assert handover.working == {}


def test_work_within_work_gives_back_the_outer_one():
    """
    A thread that does something for one request within something for another one is the latter's again afterwards.
    """

    def outer():
        inner = handed_over(origin_here, "inner")()
        return inner, origin_here()

    assert handed_over(outer, "outer")() == ("inner", "outer")


def test_a_part_belongs_to_all_that_it_is_within():
    """
    A part of a request with a key of its own belongs to that, to the part around it and to the request only.
    """
    part = Within("inner", Within("part", "request"))

    assert [belongs_to(part, key) for key in ("inner", "part", "request", "another")] == [True, True, True, False]
    assert not belongs_to("request", "part")
    assert not belongs_to(Within("part", None), "request")
    assert not belongs_to(None, "request")


def test_the_work_s_own_frames_are_shown():
    """
    Of a thread at work the frames of the work are shown, innermost first, and none of what runs the thread.
    """

    def inner():
        return [frame.f_code.co_name for frame in work_on(sys._getframe())]

    def outer():
        return inner()

    assert in_thread(handed_over(outer, "request")) == ["inner", "outer"]


def test_nothing_is_shown_of_a_thread_that_is_not_at_work():
    """
    A thread that waits for its next task, or that has ended, shows nothing.
    """
    assert in_thread(lambda: work_on(sys._getframe())) == []
    assert work_on(None) == []


def frames_while(wait):
    """The innermost frame of a thread that is in *wait*, a moment after it has begun."""
    started = threading.Event()

    def run():
        started.set()
        wait()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(PATIENCE)
    for _ in range(200):
        frame = sys._current_frames().get(thread.ident)
        if frame is None or is_waiting(frame):
            break
        threading.Event().wait(0.01)
    return thread, frame


def test_waiting_for_another_thread_is_told():
    """
    Futures, events, queues and threads are waited for; work is not waiting.
    """
    import queue

    future, event, things = Future(), threading.Event(), queue.Queue()
    waits = (future.result, event.wait, things.get)
    threads = []
    for wait in waits:
        thread, frame = frames_while(wait)
        threads.append(thread)

        assert frame is not None
        assert is_waiting(frame)
    future.set_result(1)
    event.set()
    things.put(1)
    for thread in threads:
        thread.join(PATIENCE)

    assert not is_waiting(sys._getframe())


def test_a_forked_child_works_for_whom_the_thread_that_forked_does():
    """
    Other threads are not there any more; the one that forked is at the same work.
    """
    release, started = threading.Event(), threading.Event()

    def other():
        started.set()
        release.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(handed_over(other, "other"))
        assert started.wait(PATIENCE)

        def fork():
            child = os.fork()
            if child == 0:
                handover.after_fork()
                fine = handover.working == {threading.get_ident(): "mine"} and threads_of("other") == []
                os._exit(0 if fine else 1)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        code = handed_over(fork, "mine")()
        release.set()

    assert code == 0
