"""The alarm is shared with whoever else uses SIGALRM, and given back."""

# ruff: noqa: PT012 - what a limit interrupts is rarely a single statement

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from interruptions import FOREVER, LIMIT, PATIENCE, Expired, Inner, Outer, run_script, said, script, spin, until

from otel_introspect import timeout
from otel_introspect.timeouts import release


def alarm():
    """Whose handler is there, and how many seconds its timer has left."""
    return signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]


def test_release_gives_back_at_once():
    """
    After ``release()`` handler and timer are as they were, and the next block works again.
    """
    before = alarm()
    for _ in range(3):
        with pytest.raises(Expired), timeout(LIMIT, Expired):
            time.sleep(FOREVER)
        with timeout(FOREVER):
            pass
        release()

        assert alarm() == before
    release()


def test_handler_and_timer_are_given_back_without_being_asked():
    """
    A second or so after the last block nothing of ours is left, however long that block might have taken.
    """
    before = alarm()
    with timeout(FOREVER, Expired):
        pass
    until(lambda: alarm() == before, patience=2.5)

    with pytest.raises(Expired), timeout(LIMIT, Expired):
        time.sleep(FOREVER)


def test_handler_and_timer_are_given_back_after_an_interruption():
    """
    Also after a block that was interrupted nothing of ours is left.
    """
    before = alarm()
    with pytest.raises(Expired), timeout(LIMIT, Expired):
        time.sleep(FOREVER)

    until(lambda: alarm() == before, patience=2.5)


def test_a_stray_alarm_after_a_block_is_nothing():
    """
    SIGALRM from outside, with no block open and our handler still there, is not taken for a deadline.
    """
    with timeout(FOREVER, Expired):
        pass
    os.kill(os.getpid(), signal.SIGALRM)
    time.sleep(LIMIT)

    with pytest.raises(Expired), timeout(LIMIT, Expired):
        time.sleep(FOREVER)


def test_a_stray_alarm_within_a_block_is_nothing():
    """
    SIGALRM from outside neither fires a limit that is not due nor uses up its timer.
    """
    started = time.monotonic()
    with pytest.raises(Expired), timeout(6 * LIMIT, Expired):
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGALRM)
        strays = time.monotonic() - started
        time.sleep(FOREVER)

    assert strays < PATIENCE
    assert 6 * LIMIT * 0.9 <= time.monotonic() - started < PATIENCE


def test_a_stray_alarm_in_nested_blocks_is_nothing():
    """
    SIGALRM from outside leaves all open limits as they were.
    """
    with pytest.raises(Outer), timeout(6 * LIMIT, Outer):
        with pytest.raises(Inner), timeout(3 * LIMIT, Inner):
            os.kill(os.getpid(), signal.SIGALRM)
            time.sleep(FOREVER)
        os.kill(os.getpid(), signal.SIGALRM)
        time.sleep(FOREVER)


def test_a_foreign_handler_is_back_right_after_the_block(foreign):
    """
    Somebody else's handler is in force again as soon as the outermost block has ended, however it ended.
    """
    seen = []
    with timeout(FOREVER), timeout(FOREVER):
        pass
    seen.append(signal.getsignal(signal.SIGALRM))
    with pytest.raises(Expired), timeout(LIMIT, Expired):
        time.sleep(FOREVER)
    seen.append(signal.getsignal(signal.SIGALRM))
    with pytest.raises(KeyError), timeout(FOREVER):
        raise KeyError
    seen.append(signal.getsignal(signal.SIGALRM))
    os.kill(os.getpid(), signal.SIGALRM)

    assert seen == [foreign] * 3
    assert len(foreign.calls) == 1
    assert foreign.calls[0][0] == signal.SIGALRM
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_foreign_timer_has_the_time_that_it_had_left(foreign):
    """
    Somebody else's pending alarm is pending again after the block, due when it was due before.
    """
    signal.setitimer(signal.ITIMER_REAL, FOREVER)
    with pytest.raises(Expired), timeout(4 * LIMIT, Expired):
        time.sleep(FOREVER)
    left = signal.getitimer(signal.ITIMER_REAL)

    assert FOREVER - PATIENCE < left[0] <= FOREVER - 4 * LIMIT * 0.9
    assert left[1] == 0
    assert foreign.calls == []


def test_a_foreign_timer_that_is_due_after_the_block(foreign):
    """
    Somebody else's alarm that is due after the block calls its handler then, once.
    """
    signal.setitimer(signal.ITIMER_REAL, 4 * LIMIT)
    with pytest.raises(Expired), timeout(LIMIT, Expired):
        time.sleep(FOREVER)
    early = len(foreign.calls)
    until(lambda: foreign.calls)
    time.sleep(2 * LIMIT)

    assert early == 0
    assert len(foreign.calls) == 1


def test_a_foreign_timer_that_is_due_within_the_block(foreign):
    """
    Somebody else's alarm that is due within the block calls its handler then, once, with the interrupted frame.
    """

    def interrupted_here():
        spin(4 * LIMIT)

    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    with timeout(FOREVER, Expired):
        interrupted_here()
        within = list(foreign.calls)
    spin(2 * LIMIT)

    assert [number for number, _ in within] == [signal.SIGALRM]
    assert within[0][1] in ("interrupted_here", "spin")
    assert foreign.calls == within
    assert alarm() == (foreign, 0)


def test_a_foreign_timer_within_the_block_leaves_the_limit(foreign):
    """
    After somebody else's alarm within the block the limit still is in force.
    """
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    with pytest.raises(Expired), timeout(3 * LIMIT, Expired):
        time.sleep(FOREVER)

    assert len(foreign.calls) == 1
    assert alarm() == (foreign, 0)


def test_a_foreign_handler_that_raises_within_the_block():
    """
    What somebody else's handler raises within the block leaves it as any exception does.
    """
    before = signal.getsignal(signal.SIGALRM)

    def handler(_signum, _frame):
        raise Outer

    signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        with pytest.raises(Outer), timeout(FOREVER, Expired):
            time.sleep(FOREVER)

        assert alarm() == (handler, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_foreign_handler_that_comes_after_a_block_stays(foreign):
    """
    Who takes SIGALRM while our timer still runs keeps it: we give back only what is still ours.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with timeout(FOREVER, Expired):
        pass
    signal.signal(signal.SIGALRM, foreign)
    signal.setitimer(signal.ITIMER_REAL, 3 * LIMIT)
    early = len(foreign.calls)
    until(lambda: foreign.calls)
    time.sleep(1.2)
    calls = len(foreign.calls)
    with pytest.raises(Expired), timeout(LIMIT, Expired):
        time.sleep(FOREVER)
    release()

    assert (early, calls) == (0, 1)
    assert alarm() == (foreign, 0)


def test_an_ignored_alarm_is_ignored_again():
    """
    A process that ignores SIGALRM ignores it again afterwards.
    """
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        with pytest.raises(Expired), timeout(LIMIT, Expired):
            time.sleep(FOREVER)
        release()

        assert alarm() == (signal.SIG_IGN, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_repeating_foreign_timer_is_left_alone(foreign, spans, our_log):
    """
    SIGALRM that somebody else's timer sends again and again isn't taken: this is said once, and the interruption comes
    as it does in a thread, after what blocks.
    """
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    for name in ("first", "second"):
        with spans.current(name), pytest.raises(Expired), timeout(LIMIT, Expired):
            time.sleep(4 * LIMIT)
            time.sleep(FOREVER)
    interval = signal.getitimer(signal.ITIMER_REAL)[1]
    calls = len(foreign.calls)
    until(lambda: len(foreign.calls) > calls)

    assert interval == pytest.approx(0.02, abs=0.005)
    assert calls > 1
    assert len(our_log()) == 1
    for name in ("first", "second"):
        event = spans.event(name)
        assert event["otel_introspect.timeout.enforced"] is True
        assert event["otel_introspect.timeout.mechanism"] == "async_exception"


def test_a_handler_that_python_does_not_know_is_left_alone():
    """
    Where the handler was not installed from Python it can't be put back, so it isn't taken: said once; see above.
    """
    taken = """
import signal
calls = []
signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
known = signal.getsignal
signal.getsignal = lambda number: None if number == signal.SIGALRM else known(number)
"""
    found, log = run_script(
        taken
        + script(
            """
            for _ in range(2):
                with tracer.start_as_current_span("work"):
                    try:
                        with timeout(0.05, Expired):
                            time.sleep(0.2)
                            time.sleep(20)
                    except Expired:
                        pass
            os.kill(os.getpid(), signal.SIGALRM)
            say(len(calls), [event["otel_introspect.timeout.mechanism"] for event in events()])
            """,
            tracing=True,
        )
    )

    assert found == [[1, ["async_exception", "async_exception"]]]
    assert len(said(log)) == 1


def test_a_pending_alarm_without_a_handler_is_kept():
    """
    A process that has set an alarm to end itself still is ended by it.
    """
    child = """
import signal, time
from otel_introspect import timeout
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    with timeout(0.05): time.sleep(20)
except RuntimeError:
    pass
time.sleep(20)
"""
    done = subprocess.run([sys.executable, "-c", child], timeout=PATIENCE, check=False)

    assert done.returncode == -signal.SIGALRM


def test_a_child_process_does_not_inherit_the_alarm():
    """
    A program that is started within a block, or right after it, is not ended by our alarm.
    """
    (codes,), _ = run_script(
        script(
            """
            import subprocess
            def child():
                return subprocess.run([sys.executable, "-c", "import time; time.sleep(1.3)"], timeout=15).returncode
            with timeout(10, Expired):
                within = child()
            say(within, child())
            """
        )
    )

    assert codes == [0, 0]
