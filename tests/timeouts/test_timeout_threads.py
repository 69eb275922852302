"""In other threads, where an exception is left for the thread to find; and which thread is the main one."""

# ruff: noqa: PT012 - what a limit interrupts is rarely a single statement

from __future__ import annotations

import contextlib
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from interruptions import FOREVER, LIMIT, PATIENCE, Expired, Inner, Outer, in_thread, spin

from otel_introspect import DeadlineExceeded, timeout


def test_a_busy_thread_is_interrupted():
    """
    A thread that runs Python code for too long gets the limit's exception.
    """

    def work():
        with timeout(LIMIT):
            spin(FOREVER)

    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        in_thread(work)

    assert time.monotonic() - started < PATIENCE


def test_a_thread_that_waits_is_interrupted_when_it_comes_back():
    """
    A wait is not cut short in a thread: the exception comes when the wait is over, if the block still is open.
    """

    def work():
        with timeout(LIMIT, Expired):
            time.sleep(4 * LIMIT)
            spin(FOREVER)

    with pytest.raises(Expired):
        in_thread(work)


def test_a_thread_in_time_is_left_alone():
    """
    A block that ends in time in a thread is not touched, and nothing comes after it either.
    """

    def work():
        with timeout(LIMIT, Expired):
            pass
        spin(3 * LIMIT)
        return "in time"

    assert in_thread(work) == "in time"


@pytest.mark.parametrize(
    ("exception", "arguments"),
    [(Expired, ()), (Expired("given", 1), ("given", 1)), (lambda: Expired("made"), ("made",))],
    ids=["class", "instance", "factory"],
)
def test_classes_instances_and_factories(exception, arguments):
    """
    Whatever names the exception elsewhere names it in a thread, with its arguments.
    """

    def work():
        with timeout(LIMIT, exception):
            spin(FOREVER)

    with pytest.raises(Expired) as raised:
        in_thread(work)
    assert raised.value.args == arguments
    assert raised.value is not exception


def test_nested_limits_in_a_thread():
    """
    Limits nest in a thread as they do elsewhere.
    """

    def inner_first():
        with pytest.raises(Inner), timeout(LIMIT, Inner):
            spin(FOREVER)
        spin(FOREVER)

    def inner_done():
        with timeout(LIMIT, Inner):
            pass
        spin(FOREVER)

    def inner_longer():
        with timeout(FOREVER, Inner):
            spin(FOREVER)

    def both_due():
        with timeout(LIMIT, Inner):
            time.sleep(4 * LIMIT)
            spin(FOREVER)

    for seconds, work in [(4, inner_first), (4, inner_done), (1, inner_longer), (1, both_due)]:

        def limited(seconds=seconds, work=work):
            with timeout(seconds * LIMIT, Outer):
                work()

        with pytest.raises(Outer):
            in_thread(limited)


def test_each_thread_has_its_own():
    """
    Of many threads with limits each gets its own exception, and those that are in time get none.
    """

    def work(number):
        try:
            with timeout(LIMIT if number % 2 else FOREVER, Expired(number)):
                spin(FOREVER if number % 2 else 0.02)
        except Expired as error:
            return error.args
        return ()

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(work, range(12)))

    assert results == [(number,) if number % 2 else () for number in range(12)]


def test_a_thread_s_limit_does_not_hit_the_main_thread():
    """
    Limits of a thread and of the main thread are apart.
    """
    heard = []

    def work():
        try:
            with timeout(LIMIT, Inner):
                spin(FOREVER)
        except Inner:
            heard.append("thread")

    thread = threading.Thread(target=work)
    with pytest.raises(Outer), timeout(6 * LIMIT, Outer):
        thread.start()
        spin(FOREVER)
    thread.join()

    assert heard == ["thread"]


def test_nothing_lands_after_a_block_in_a_thread():
    """
    A limit that is up just as a thread's block ends either fires in the block or not at all.
    """

    def block(number):
        try:
            with timeout(0.001, Expired(number)):
                spin(0.0005 + number % 50 * 0.00002)
        except Expired as error:
            return error.args == (number,)
        return None

    def work():
        late, fired = 0, []
        for number in range(1500):
            try:
                fired.append(block(number))
                spin(0.0002)
            except Expired:
                late += 1
        return late, fired

    late, fired = in_thread(work)

    assert late == 0
    assert False not in fired


def test_nothing_lands_after_a_block_that_waited_in_c_code():
    """
    An exception that was left for a thread while it was in C code is taken back if the block ends first.
    """

    def work():
        late = 0
        for _ in range(20):
            try:
                with contextlib.suppress(Expired), timeout(0.01, Expired):
                    time.sleep(0.015)
                spin(0.005)
            except Expired:
                late += 1
        return late

    assert in_thread(work) == 0


def test_what_a_thread_swallows_comes_again():
    """
    A thread that swallows the exception and carries on gets another one half a second later.
    """
    swallowed = []

    def work():
        with timeout(LIMIT, Expired):
            while True:
                try:
                    spin(FOREVER)
                except Expired:
                    swallowed.append(True)
                    if len(swallowed) == 2:
                        raise

    with pytest.raises(Expired):
        in_thread(work)
    assert len(swallowed) == 2


def test_a_renamed_main_thread_is_the_main_thread(monkeypatch):
    """
    The main thread is told by what it is: whatever its name, a regular expression is interrupted there.
    """
    monkeypatch.setattr(threading.current_thread(), "name", "worker-1")

    with pytest.raises(Expired), timeout(LIMIT, Expired):
        re.match(r"^(a+)+$", "a" * 32 + "!")


def test_a_thread_that_is_called_main_thread_is_not():
    """
    A thread with the main thread's name is limited as any other thread.
    """

    def work():
        with timeout(LIMIT, Expired):
            spin(FOREVER)

    with pytest.raises(Expired):
        in_thread(work, name="MainThread")


def test_a_limit_made_in_one_thread_and_used_in_another():
    """
    What counts is the thread that enters the block.
    """
    limit = in_thread(lambda: timeout(LIMIT, Expired))

    with pytest.raises(Expired), limit:
        time.sleep(FOREVER)

    def work():
        with limit:
            spin(FOREVER)

    with pytest.raises(Expired):
        in_thread(work)


def test_one_limit_in_many_threads_at_once():
    """
    One decorated function may run in many threads, each call with its own time.
    """

    @timeout(4 * LIMIT, Expired)
    def work(number):
        spin(FOREVER if number % 2 else 0.01)
        return number

    def call(number):
        try:
            return work(number)
        except Expired:
            return Expired

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(call, range(8)))

    assert results == [Expired if number % 2 else number for number in range(8)]
