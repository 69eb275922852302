"""Thousands of interruptions: none is late, none escapes, and no lock stays locked."""

from __future__ import annotations

import queue
import threading
import time

import pytest
from interruptions import Expired, Inner, spin

from otel_introspect import timeout


class Flag:
    """Never set: it keeps a loop from being seen through."""

    stop = False


class Trial:
    """What became of one interruption."""

    def __init__(self):
        self.started = False
        self.caught = False
        self.cleaned = 0


LOCK = threading.Lock()
GUARD = threading.Lock()


def inline_attribute(limit, trial):
    with limit:
        try:
            trial.started = True
            while not Flag.stop:
                pass
        except Expired:
            trial.caught = True


def inline_for_if(limit, trial):
    with limit:
        try:
            trial.started = True
            for number in range(10**9):
                if number < 0:
                    break
        except Expired:
            trial.caught = True


# On one line, as the jump then goes to itself.
# fmt: off
def one_line(limit, trial):
    with limit:
        try:
            trial.started = True
            while 1: pass  # noqa: E701 - as above
        except Expired:
            trial.caught = True
# fmt: on


def callee():
    while not Flag.stop:
        pass


def in_a_callee(limit, trial):
    with limit:
        try:
            trial.started = True
            callee()
        except Expired:
            trial.caught = True


def locked_callee():
    with LOCK:
        while not Flag.stop:
            pass


def in_a_callee_with_a_lock(limit, trial):
    with limit:
        try:
            trial.started = True
            locked_callee()
        except Expired:
            trial.caught = True


def nested_finally(limit, trial):
    with limit:
        try:
            trial.started = True
            while not Flag.stop:
                try:
                    trial.cleaned += 1
                    while not Flag.stop:
                        pass
                finally:
                    trial.cleaned -= 1
        except Expired:
            trial.caught = True


def endless(trial):
    trial.cleaned += 1
    try:
        while not Flag.stop:
            yield
    finally:
        trial.cleaned -= 1


def consumed_generator(limit, trial):
    with limit:
        try:
            trial.started = True
            for _ in endless(trial):
                pass
        except Expired:
            trial.caught = True


def endless_inside(trial):
    trial.cleaned += 1
    try:
        while not Flag.stop:
            pass
        yield
    finally:
        trial.cleaned -= 1


def generator_that_never_yields(limit, trial):
    with limit:
        try:
            trial.started = True
            for _ in endless_inside(trial):
                pass
        except Expired:
            trial.caught = True


def within_a_lock(limit, trial):
    with limit:
        try:
            trial.started = True
            with LOCK:
                while not Flag.stop:
                    pass
        except Expired:
            trial.caught = True


SHAPES = [
    inline_attribute,
    inline_for_if,
    one_line,
    in_a_callee,
    in_a_callee_with_a_lock,
    nested_finally,
    consumed_generator,
    generator_that_never_yields,
    within_a_lock,
]


def try_out(shape, rounds, limit_of=lambda number: 0.001 + number % 20 * 0.00001):
    """How many of so many interruptions were caught, escaped, left something undone, or left the lock locked."""
    caught = escaped = undone = locked = 0
    for number in range(rounds):
        trial = Trial()
        try:
            shape(timeout(limit_of(number), Expired), trial)
        except Expired:
            escaped += trial.started
        caught += trial.caught
        undone += trial.cleaned
        if LOCK.locked():
            locked += 1
            LOCK.release()
    return caught, escaped, undone, locked


@pytest.mark.parametrize("shape", SHAPES, ids=lambda each: each.__name__)
def test_no_interruption_escapes_the_try_around_its_loop(shape, rescue):
    """
    Wherever in a loop it hits, an interruption is caught by the ``try`` around the loop, and cleaning up is done.
    """
    caught, escaped, undone, locked = try_out(shape, 200)

    assert (escaped, undone, locked) == (0, 0, 0)
    assert caught >= 150


@pytest.mark.realtime
def test_no_queue_s_lock_stays_locked():
    """
    In 3,000 blocks that are interrupted while they use a queue the queue never is left locked.
    """
    leaked = hits = 0
    for number in range(3000):
        items = queue.Queue()
        try:
            with timeout(0.00005 + number % 50 * 0.000002, Expired):
                for _ in range(5000):
                    items.put(1)
                    items.get()
        except Expired:
            hits += 1
        leaked += items.mutex.locked()

    assert leaked == 0
    assert hits > 1000


@pytest.mark.realtime
def test_a_loop_that_spends_its_time_in_locks_is_interrupted_on_time():
    """
    Code that is hardly ever outside of what must not be interrupted is interrupted soon all the same.
    """
    late = []
    items = queue.Queue()

    def use_queue(end):
        while time.monotonic() < end:
            for _ in range(1000):
                items.put(1)
                items.get()

    for _ in range(100):
        started = time.monotonic()
        try:
            with timeout(0.01, Expired):
                use_queue(started + 3)
        except Expired:
            pass
        late.append(time.monotonic() - started - 0.01)

    assert max(late) < 0.5


def block(number, seconds, work):
    """True if the block was interrupted by its own limit, None if it was not, False if by another one's."""
    try:
        with timeout(seconds, Expired(number)):
            spin(work)
    except Expired as error:
        return error.args == (number,)
    return None


@pytest.mark.realtime
def test_nothing_fires_late():
    """
    In 20,000 blocks that end about when they are due no limit fires behind its block.
    """
    late = 0
    fired = {True: 0, False: 0, None: 0}
    for number in range(20_000):
        try:
            fired[block(number, 0.0001, 0.00005 + number % 100 * 0.000001)] += 1
            spin(0.00002)
        except Expired:
            late += 1

    assert late == 0
    assert fired[False] == 0
    assert fired[True] > 500
    assert fired[None] > 500


@pytest.mark.realtime
def test_nothing_fires_late_from_nested_blocks():
    """
    Nor does one of two nested blocks that end about when both are due.
    """

    def inner_block(seconds, work):
        try:
            with timeout(seconds, Inner):
                spin(work)
        except Inner:
            pass

    def nested(number, inner, outer):
        try:
            with timeout(outer, Expired(number)):
                inner_block(inner, 0.00005 + number % 70 * 0.000001)
                spin(0.00002)
        except Expired as error:
            return error.args == (number,)
        return None

    late = wrong = 0
    for number in range(1, 8001):
        try:
            wrong += nested(number, 0.00009, 0.00008 + number % 40 * 0.000001) is False
            spin(0.00002)
        except (Expired, Inner):
            late += 1

    assert (late, wrong) == (0, 0)


@pytest.mark.realtime
def test_no_sleep_is_slept_through():
    """
    However soon after its beginning a block is due, it does not miss it: a sleep that begins right then ends early.
    """
    slept_through = 0
    for number in range(10_000):
        started = time.monotonic()
        try:
            with timeout(0.000001 + number % 60 * 0.000001, Expired):
                time.sleep(2)
        except Expired:
            pass
        slept_through += time.monotonic() - started > 1

    assert slept_through == 0


def test_no_wait_is_slept_through_that_is_entered_again_and_again():
    """
    A loop that waits for one short time after the other is interrupted on time.
    """
    late = 0
    for number in range(100):
        started = time.monotonic()
        try:
            with timeout(0.005 + number * 0.00001, Expired):
                while time.monotonic() < started + 5:
                    GUARD.acquire(timeout=0.0001)
                    if GUARD.locked():
                        GUARD.release()
        except Expired:
            pass
        late += time.monotonic() - started > 0.5

    assert late == 0
