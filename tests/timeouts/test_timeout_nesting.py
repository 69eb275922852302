"""Blocks inside blocks, beyond what interruptingcow's users know."""

# ruff: noqa: PT012 - what a limit interrupts is rarely a single statement

from __future__ import annotations

import itertools
import signal
import time

import pytest
from interruptions import FOREVER, LIMIT, Expired, Inner, Outer, spin

from otel_introspect import Quota, timeout


class Middle(Exception):  # noqa: N818 - as the others
    """What the limit between two others raises."""


EXCEPTIONS = (Outer, Middle, Inner)


@pytest.mark.parametrize("limits", list(itertools.permutations([1, 7, 13])), ids=str)
def test_three_levels_in_every_order(limits):
    """
    Of three nested limits the one that is due first fires first; what is left of those around it is kept.
    """
    outer, middle, inner = (LIMIT * each for each in limits)
    fired = []

    def catch(expected, work):
        try:
            work()
        except expected as error:
            fired.append(type(error))

    def level(seconds, exception, work):
        def body():
            with timeout(seconds, exception):
                work()
                time.sleep(FOREVER)

        return lambda: catch(exception, body)

    level(outer, Outer, level(middle, Middle, level(inner, Inner, lambda: time.sleep(FOREVER))))()

    # Whoever is due later than a level around it never gets to fire.
    due = sorted(zip(limits, EXCEPTIONS, strict=True), key=lambda each: each[0])
    expected, outermost = [], len(EXCEPTIONS)
    for _, exception in due:
        if EXCEPTIONS.index(exception) < outermost:
            outermost = EXCEPTIONS.index(exception)
            expected.append(exception)
    assert fired == expected


def test_several_that_become_due_while_nothing_can_be_delivered():
    """
    If all are overdue when the alarm comes through, the outermost wins, and it fires once.
    """

    def deaf():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        try:
            time.sleep(6 * LIMIT)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        time.sleep(FOREVER)

    with (
        pytest.raises(Outer),
        timeout(3 * LIMIT, Outer),
        timeout(2 * LIMIT, Middle),
        timeout(LIMIT, Inner),
    ):
        deaf()

    time.sleep(LIMIT)


def test_blocks_one_after_the_other_within_one():
    """
    Inner blocks that fire one after the other do not use up the outer one's interruption.
    """
    fired = []
    with pytest.raises(Outer), timeout(8 * LIMIT, Outer):
        while True:
            try:
                with timeout(LIMIT, Inner):
                    time.sleep(FOREVER)
            except Inner:
                fired.append(True)

    assert 1 <= len(fired) <= 8


def test_inner_blocks_in_time_do_not_put_the_outer_one_off():
    """
    However many short blocks are opened inside, the outer one is on time.
    """
    started = time.monotonic()
    with pytest.raises(Outer), timeout(4 * LIMIT, Outer):
        while time.monotonic() < started + FOREVER:
            with timeout(2 * LIMIT, Inner):
                pass

    assert time.monotonic() - started < FOREVER / 2


@pytest.mark.parametrize("shortest", [0, 25, 49])
def test_fifty_levels(shortest):
    """
    Whichever of fifty levels is due first fires, and all are closed.
    """

    class Level(Exception):  # noqa: N818 - as the others
        """Which of them fired."""

    def nest(level):
        if level == 50:
            spin(FOREVER)
        with timeout(LIMIT if level == shortest else FOREVER, Level(level)):
            nest(level + 1)

    with pytest.raises(Level) as raised:
        nest(0)
    assert raised.value.args == (shortest,)
    time.sleep(2 * LIMIT)


def test_recursion_under_one_decorator_keeps_the_first_call_s_deadline():
    """
    A decorated function that calls itself for ever is over when its outermost call is.
    """

    @timeout(2 * LIMIT, Expired)
    def recurse(depth):
        time.sleep(LIMIT / 10)
        return recurse(depth + 1) if depth < 500 else depth

    with pytest.raises(Expired):
        recurse(0)


def test_one_object_open_twice_at_different_times():
    """
    The same object entered again while it is open has its whole time again, and the first entry keeps its own.
    """
    limit = timeout(4 * LIMIT, Expired)
    started = time.monotonic()
    with pytest.raises(Expired), limit:
        time.sleep(2 * LIMIT)
        with limit:
            pass
        time.sleep(FOREVER)

    assert time.monotonic() - started < FOREVER / 2


def test_the_inner_one_s_exception_class_may_be_the_outer_one_s():
    """
    The outer limit that fires through an inner one of the same exception is not taken for it.
    """
    outer, inner = timeout(LIMIT, Expired), timeout(FOREVER, Expired)
    with pytest.raises(Expired), outer, inner:
        time.sleep(FOREVER)

    assert (outer.expired, inner.expired) == (True, False)


def test_a_quota_inside_does_not_put_the_outer_one_off():
    """
    A block with a quota that is opened inside leaves the outer one on time.
    """
    started = time.monotonic()
    with pytest.raises(Outer), timeout(2 * LIMIT, Outer), timeout(Quota(FOREVER), Inner):
        time.sleep(FOREVER)

    assert time.monotonic() - started < 0.75


@pytest.mark.parametrize("opened", ["again and again", "once"])
@pytest.mark.parametrize("made", [lambda: FOREVER, lambda: 2 * LIMIT, lambda: Quota(FOREVER), lambda: None])
def test_whatever_is_opened_inside_leaves_the_outer_one_on_time(made, opened):
    """
    The outer one is less than half a second late, however often and whatever kind of block is opened inside it.
    """
    started = time.monotonic()
    with pytest.raises(Outer), timeout(3 * LIMIT, Outer):
        while time.monotonic() < started + FOREVER:
            with timeout(made(), Inner):
                if opened == "once":
                    time.sleep(LIMIT)
                    break
        time.sleep(FOREVER)

    assert time.monotonic() - started < 3 * LIMIT + 0.5


def test_a_block_that_could_not_be_entered_is_forgotten():
    """
    A block whose beginning fails, as where the stack is too deep for it, fires in nobody later on.
    """

    def nest():
        with timeout(40 * LIMIT, Expired):
            nest()

    for extra in range(30):

        def deeper(level):
            return deeper(level - 1) if level else nest()

        # Who keeps the exception keeps all frames, as an error tracker does.
        with pytest.raises(RecursionError) as kept:
            deeper(extra)
        del kept
    kept = []
    for extra in range(30):
        try:
            deeper(extra)
        except RecursionError as error:
            kept.append(error)
    time.sleep(44 * LIMIT)
    with pytest.raises(Inner), timeout(LIMIT, Inner):
        time.sleep(FOREVER)

    assert len(kept) == 30


def test_blocks_need_not_end_in_order():
    """
    A block that is closed before one inside it takes nothing from that one.
    """
    outer, inner = timeout(FOREVER, Outer), timeout(LIMIT, Inner)
    outer.__enter__()
    try:
        with pytest.raises(Inner), inner:
            outer.__exit__(None, None, None)
            time.sleep(FOREVER)
    finally:
        time.sleep(2 * LIMIT)
