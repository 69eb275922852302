"""The block: when it interrupts, with what, and what it can be asked."""

# ruff: noqa: PT012 - what a limit interrupts is rarely a single statement

from __future__ import annotations

import math
import os
import signal
import time

import pytest
from interruptions import FOREVER, LIMIT, PATIENCE, Expired, Inner, run_script, script, spin

from otel_introspect import DeadlineExceeded, timeout


def outlive(limit):
    """Stay in a block for ever."""
    with limit:
        time.sleep(FOREVER)


def test_what_takes_too_long_is_interrupted():
    """
    Where no exception is named, a limit raises ``DeadlineExceeded``.
    """
    with pytest.raises(DeadlineExceeded):
        outlive(timeout(LIMIT))


@pytest.mark.parametrize("base", [TimeoutError, RuntimeError])
def test_deadline_exceeded_is_caught_by_what_code_catches_already(base):
    """
    ``DeadlineExceeded`` is what Python calls a timeout, and what interruptingcow raises.
    """
    with pytest.raises(base):
        outlive(timeout(LIMIT))


def test_what_is_in_time_is_left_alone():
    """
    A block that ends before its deadline is not touched, and nothing comes after it either.
    """
    with timeout(LIMIT, Expired):
        done = "in time"
    time.sleep(3 * LIMIT)

    assert done == "in time"


@pytest.mark.parametrize("work", [time.sleep, spin], ids=["sleeping", "busy"])
def test_nothing_comes_after_an_interrupted_block(work):
    """
    A limit interrupts once, and then it is over.
    """
    with pytest.raises(Expired):
        outlive(timeout(LIMIT, Expired))

    work(1.0)


def test_an_exception_of_the_work_s_own_passes():
    """
    What the block raises itself is not replaced, and nothing comes after it.
    """
    error = KeyError("its own")
    with pytest.raises(KeyError) as raised, timeout(LIMIT, Expired):
        raise error
    time.sleep(3 * LIMIT)

    assert raised.value is error


def test_a_block_may_be_left_in_any_way():
    """
    ``return``, ``break`` and ``continue`` end the limit as well.
    """

    def leave():
        for round_ in range(3):
            with timeout(LIMIT, Expired):
                if round_ == 0:
                    continue
                break
        with timeout(LIMIT, Expired):
            return "left"

    assert leave() == "left"
    time.sleep(3 * LIMIT)


def test_a_keyboard_interrupt_is_left_alone():
    """
    Control-C within a block is Control-C, and ends the limit.
    """
    with pytest.raises(KeyboardInterrupt), timeout(2 * LIMIT, Expired):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(FOREVER)
    time.sleep(4 * LIMIT)


class Coded(Exception):  # noqa: N818 - its name is what it is
    """Its ``args`` are not the arguments that it is made from."""

    def __init__(self, code, *, detail):
        super().__init__(f"code {code}")
        self.code = code
        self.detail = detail


class Cut(BaseException):
    """Not an ``Exception``."""


@pytest.mark.parametrize("exception", [Expired, Cut, TimeoutError], ids=lambda each: each.__name__)
def test_a_class_is_raised(exception):
    """
    The exception may be a class, also one that ``except Exception`` does not catch.
    """
    with pytest.raises(exception) as raised:
        outlive(timeout(LIMIT, exception))

    assert type(raised.value) is exception


def test_an_instance_is_copied():
    """
    The exception may be an instance: what is raised has its type and arguments, but is another object.
    """
    given = Expired("too slow", 3)
    with pytest.raises(Expired) as raised:
        outlive(timeout(LIMIT, given))

    assert type(raised.value) is Expired
    assert raised.value.args == ("too slow", 3)
    assert raised.value is not given


def test_an_instance_is_copied_whatever_its_class_takes():
    """
    Copying an instance does not call its class with arguments that it does not take.
    """
    given = Coded(503, detail="slow")
    with pytest.raises(Coded) as raised:
        outlive(timeout(LIMIT, given))

    assert raised.value is not given
    assert raised.value.args == ("code 503",)
    assert (raised.value.code, raised.value.detail) == (503, "slow")


def test_an_instance_does_not_grow():
    """
    However often a limit fires, the instance that it was given keeps no traceback, and each that is raised has its own.
    """
    given = Expired("again")
    limit = timeout(LIMIT, given)
    depths = []
    for _ in range(3):
        with pytest.raises(Expired) as raised:
            outlive(limit)
        depths.append(len(raised.traceback))

    assert given.__traceback__ is None
    assert given.__context__ is None
    assert len(set(depths)) == 1


def test_a_factory_is_called_when_the_limit_fires():
    """
    The exception may be a callable without arguments, which is asked for a new one each time, and only then.
    """
    made = []

    def make():
        made.append(Expired(len(made)))
        return made[-1]

    limit = timeout(LIMIT, make)
    with limit:
        pass
    assert made == []
    for _ in range(2):
        with pytest.raises(Expired) as raised:
            outlive(limit)
        assert raised.value is made[-1]

    assert [each.args for each in made] == [(0,), (1,)]


@pytest.mark.parametrize(
    "wrong", [42, "slow", None, int, object(), [Expired], (Expired, Inner)], ids=lambda given: type(given).__name__
)
def test_what_can_not_be_raised_is_refused_at_once(wrong):
    """
    An exception that is none is a ``TypeError`` when the limit is made, not when it fires.
    """
    with pytest.raises(TypeError, match="exception"):
        timeout(1, wrong)


@pytest.mark.parametrize("seconds", [0, -1, 0.0, -0.001, math.nan, -math.inf])
def test_no_time_at_all_is_refused(seconds):
    """
    A limit of nothing or less, or of no number, is a ``ValueError``.
    """
    with pytest.raises(ValueError, match=r"\S"):
        outlive(timeout(seconds))


@pytest.mark.parametrize("seconds", ["soon", [1], object()], ids=lambda given: type(given).__name__)
def test_what_is_no_time_is_refused(seconds):
    """
    What can't be a number of seconds is refused when the limit is made.
    """
    with pytest.raises((TypeError, ValueError), match=r"\S"):
        timeout(seconds)


@pytest.mark.parametrize("seconds", [1e-12, 1e-9, 1e-7, 1e-6])
def test_a_limit_below_the_clock_s_resolution_fires(seconds):
    """
    So little time that a timer would take it for none is up at once.
    """
    started = time.monotonic()
    with pytest.raises(Expired):
        outlive(timeout(seconds, Expired))

    assert time.monotonic() - started < PATIENCE


@pytest.mark.parametrize("seconds", [1e6, 1e12, 1e300, math.inf, 10**30])
def test_a_limit_beyond_what_a_timer_can_hold_does_not_matter(seconds):
    """
    More time than any timer can hold is as good as no limit; one inside it is in force.
    """
    with timeout(seconds, Expired):
        with pytest.raises(Inner):
            outlive(timeout(LIMIT, Inner))
        done = True

    assert done


def test_none_is_no_limit():
    """
    ``None`` for the seconds is no limit, so that a caller may pass on what it was given.
    """
    with timeout(None, Expired) as limit:
        spin(2 * LIMIT)

        assert limit.remaining() is None
        assert limit.expired is False


def test_a_block_within_none_is_limited():
    """
    A block without a limit hides none inside it, nor the one around it.
    """
    with timeout(None, Expired), pytest.raises(Inner):
        outlive(timeout(LIMIT, Inner))
    with pytest.raises(Inner), timeout(LIMIT, Inner):
        outlive(timeout(None, Expired))


def test_what_is_left():
    """
    ``remaining()`` is a float that goes down from the limit.
    """
    with timeout(FOREVER) as limit:
        first = limit.remaining()
        spin(0.02)
        second = limit.remaining()

    assert type(first) is float
    assert FOREVER - PATIENCE < second < first <= FOREVER


def test_nothing_is_left_of_a_limit_that_has_fired():
    """
    A limit that has interrupted its block says so.
    """
    limit = timeout(LIMIT, Expired)
    with limit:
        before = limit.expired
        with pytest.raises(Expired):
            time.sleep(FOREVER)

        assert before is False
        assert limit.expired is True
        assert limit.remaining() <= 0


def test_expired_stays_readable_after_the_block():
    """
    Who catches the exception outside can ask whose it was.
    """
    outer, inner = timeout(FOREVER, Expired), timeout(LIMIT, Expired)
    with outer, pytest.raises(Expired):
        outlive(inner)

    assert inner.expired is True
    assert outer.expired is False


def test_a_cancelled_limit_does_not_fire():
    """
    After ``cancel()`` the block may take as long as it likes.
    """
    with timeout(LIMIT, Expired) as limit:
        limit.cancel()
        time.sleep(3 * LIMIT)

        assert limit.expired is False


def test_cancelling_one_leaves_the_others():
    """
    ``cancel()`` ends that limit only: neither the one around it nor the one inside it.
    """
    with pytest.raises(Expired), timeout(3 * LIMIT, Expired):
        with timeout(LIMIT, Inner) as middle:
            middle.cancel()
            with pytest.raises(Inner):
                outlive(timeout(LIMIT, Inner))
        time.sleep(FOREVER)


def test_cancelling_twice_or_too_late_is_nothing():
    """
    ``cancel()`` may be called again, and after the block.
    """
    with timeout(LIMIT, Expired) as limit:
        limit.cancel()
        limit.cancel()
    limit.cancel()


def test_the_exception_is_raised_where_the_work_is():
    """
    The traceback leads to what took so long, and the work's own ``finally`` runs.
    """
    cleaned = []

    def too_slow():
        try:
            time.sleep(FOREVER)
        finally:
            cleaned.append(True)

    with pytest.raises(Expired) as raised, timeout(LIMIT, Expired):
        too_slow()

    assert "too_slow" in [entry.name for entry in raised.traceback]
    assert cleaned == [True]


def test_importing_starts_nothing():
    """
    Importing and making limits takes no handler, no timer and no thread; only a block does.
    """
    (found,), _ = run_script(
        script("""
        import otel_introspect.timeouts
        timeout(5); Quota(5); timeout(5, Expired)(print)
        say(signal.getsignal(signal.SIGALRM) == signal.SIG_DFL, signal.getitimer(signal.ITIMER_REAL)[0],
            threading.active_count(), "opentelemetry.sdk" in sys.modules)
        """)
    )

    assert found == [True, 0, 1, False]
