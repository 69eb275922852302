"""What interruptingcow's users rely on: changing the import is all that they have to do."""

# ruff: noqa: PT012 - what a limit interrupts is rarely a single statement

from __future__ import annotations

import os
import re
import time

import pytest
from interruptions import FOREVER, LIMIT, PATIENCE, Expired, Inner, Outer, in_thread, spin

from otel_introspect import Quota, timeout


def raises_within(limit, work, *arguments):
    """Catch the interruption inside of the block, as its users do."""
    with limit, pytest.raises(RuntimeError):
        work(*arguments)


def test_sleep():
    """
    A sleep ends early, with a ``RuntimeError`` where no exception was named.
    """
    started = time.monotonic()
    raises_within(timeout(LIMIT), time.sleep, FOREVER)

    assert time.monotonic() - started < PATIENCE


def test_a_regular_expression():
    """
    A regular expression that backtracks for ever ends early.
    """
    raises_within(timeout(LIMIT), re.match, r"(a+)+$", "a" * 47 + "!")


def test_a_busy_loop(rescue):
    """
    An endless loop ends.
    """
    with pytest.raises(RuntimeError), timeout(LIMIT):
        while True:
            pass


def test_reading_from_a_pipe():
    """
    A read that nobody answers ends early.
    """
    reading, writing = os.pipe()
    try:
        with pytest.raises(RuntimeError), timeout(LIMIT):
            os.read(reading, 1024)
    finally:
        os.close(reading)
        os.close(writing)


def test_in_time():
    """
    A block that ends in time is forgotten.
    """
    with timeout(LIMIT):
        pass
    time.sleep(3 * LIMIT)


def test_nested_and_in_time():
    """
    Two blocks that end in time are forgotten.
    """
    with timeout(LIMIT), timeout(LIMIT):
        pass
    time.sleep(3 * LIMIT)


def test_the_inner_is_shorter():
    """
    The inner one's exception comes first, then the outer one has the time that is left.
    """
    started = time.monotonic()
    with pytest.raises(Outer), timeout(4 * LIMIT, Outer):
        with pytest.raises(Inner), timeout(LIMIT, Inner):
            time.sleep(FOREVER)
        between = time.monotonic() - started
        time.sleep(FOREVER)

    assert between >= LIMIT * 0.9
    assert 4 * LIMIT * 0.9 <= time.monotonic() - started < PATIENCE


def test_the_inner_is_longer():
    """
    The outer one fires at its deadline, through the inner one.
    """
    with pytest.raises(Outer), timeout(LIMIT, Outer), timeout(FOREVER, Inner):
        time.sleep(FOREVER)
    time.sleep(2 * LIMIT)


def test_the_inner_is_done():
    """
    After the inner block the outer one still fires.
    """
    with pytest.raises(Outer), timeout(2 * LIMIT, Outer):
        with timeout(LIMIT, Inner):
            pass
        time.sleep(FOREVER)


def test_the_inner_is_done_and_the_outer_in_time():
    """
    Nothing comes after two blocks, of which the inner one fired.
    """
    with timeout(FOREVER, Outer), pytest.raises(Inner), timeout(LIMIT, Inner):
        time.sleep(FOREVER)
    time.sleep(3 * LIMIT)


def test_both_are_due():
    """
    Of two that are due at the same time the outermost wins.
    """
    for _ in range(5):
        with pytest.raises(Outer), timeout(LIMIT, Outer), timeout(LIMIT, Inner):
            time.sleep(FOREVER)


@pytest.mark.parametrize("seconds", [0, -1])
def test_values(seconds):
    """
    Limits and quotas of nothing or less are refused.
    """
    with pytest.raises(ValueError, match=r"\S"), timeout(seconds):
        pass
    with pytest.raises(ValueError, match=r"\S"):
        Quota(seconds)


def test_a_decorator():
    """
    A decorated function is limited each time it is called, has its arguments, and returns what it returns.
    """

    @timeout(2 * LIMIT, Expired)
    def add(one, *, other, pause=0.0):
        time.sleep(pause)
        return one + other

    for _ in range(3):
        assert add(1, other=2) == 3
        with pytest.raises(Expired):
            add(1, other=2, pause=FOREVER)


def test_nested_decorators():
    """
    Decorated functions that call each other nest like blocks.
    """

    @timeout(LIMIT, Inner)
    def inner():
        time.sleep(FOREVER)

    @timeout(3 * LIMIT, Outer)
    def outer():
        with pytest.raises(Inner):
            inner()
        time.sleep(FOREVER)

    with pytest.raises(Outer):
        outer()


def test_an_instance_as_exception():
    """
    An instance is raised with its arguments.
    """
    with pytest.raises(RuntimeError, match="late"), timeout(LIMIT, RuntimeError("late")):
        time.sleep(FOREVER)


def test_recursion(rescue):
    """
    A decorated function may call itself, and stays limited.
    """

    @timeout(LIMIT, Expired)
    def recurse(depth):
        if depth:
            recurse(depth - 1)
        while True:
            pass

    with pytest.raises(Expired):
        recurse(5)
    time.sleep(2 * LIMIT)


def test_reuse():
    """
    One limit may be used again and again, each time with its whole time.
    """
    limit = timeout(2 * LIMIT, Expired)
    for _ in range(3):
        with limit:
            time.sleep(LIMIT / 2)
        with pytest.raises(Expired), limit:
            time.sleep(FOREVER)


def test_a_thread():
    """
    What was an error in a thread is a limit there.
    """

    def work():
        with timeout(LIMIT, Expired):
            spin(FOREVER)

    with pytest.raises(Expired):
        in_thread(work)


def test_a_quota_that_suffices():
    """
    A quota that is not used up limits nothing.
    """
    quota = Quota(FOREVER)
    with timeout(quota, Expired):
        time.sleep(0.01)

    assert FOREVER - PATIENCE < quota.remaining() < FOREVER


def test_a_quota_shared_by_a_loop():
    """
    Blocks one after the other use up one quota together; once it is gone none of their bodies is begun.
    """
    quota = Quota(4 * LIMIT)
    begun, refused = 0, 0
    for _ in range(30):
        try:
            with timeout(quota, Expired):
                begun += 1
                time.sleep(LIMIT)
        except Expired:
            refused += 1

    assert 2 <= begun <= 5
    assert refused >= 25
    assert quota.remaining() == 0


def test_a_quota_inside_of_itself():
    """
    A quota in use counts once, however deep.
    """
    quota = Quota(FOREVER)
    started = time.monotonic()
    with timeout(quota), timeout(quota), timeout(quota):
        time.sleep(0.1)
        took = time.monotonic() - started

    assert FOREVER - quota.remaining() < took + 0.1


def test_a_quota_and_a_shorter_limit_around_it():
    """
    A limit around a quota fires at its own deadline, and the quota has lost only what was used.
    """
    quota = Quota(FOREVER)
    with pytest.raises(Outer), timeout(LIMIT, Outer), timeout(quota, Inner):
        time.sleep(FOREVER)

    assert quota.running() is False
    assert quota.remaining() > FOREVER - PATIENCE


def test_a_quota_inside_of_a_longer_limit():
    """
    A quota inside a longer limit fires when it is used up, then the limit has what is left.
    """
    quota = Quota(LIMIT)
    with pytest.raises(Outer), timeout(4 * LIMIT, Outer):
        with pytest.raises(Inner), timeout(quota, Inner):
            time.sleep(FOREVER)
        time.sleep(FOREVER)


def test_a_quota_as_decorator():
    """
    All calls of a function may share one quota.
    """
    quota = Quota(3 * LIMIT)

    @timeout(quota, Expired)
    def work():
        time.sleep(LIMIT)
        return "done"

    assert work() == "done"
    with pytest.raises(Expired):
        for _ in range(5):
            work()
    with pytest.raises(Expired):
        work()
