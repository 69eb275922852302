"""The alarm while it stands by: there for whoever summons it, unnoticed by everybody else who uses SIGALRM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from math import inf

import pytest

from otel_introspect import DeadlineExceeded, faults, timeout
from otel_introspect.engine.alarm import ALARM, Alarm

PATIENCE = 20

SCRIPT = """
import json, os, signal, subprocess, sys, threading, time
from otel_introspect import DeadlineExceeded, timeout
from otel_introspect.engine.alarm import ALARM
from otel_introspect.engine.sampler import Sampled, Sampler

def say(*what):
    print(json.dumps(what), flush=True)

def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass

def wait_for_ever():
    for _ in range(300):
        time.sleep(0.05)

def profile(seconds):
    sampler = Sampler()
    here = threading.get_ident()
    sampled = Sampled(1, lambda: here, 0.001, time.monotonic())
    sampler.start(sampled)
    spin(seconds)
    sampler.stop(sampled)
    return sampled
"""


def run(script):
    """Run *script* in a process of its own: what it said, and how it ended."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


@pytest.fixture(autouse=True)
def _given_back():
    yield
    ALARM.dismiss()
    ALARM.release()


@pytest.fixture(name="rings")
def _rings():
    """When the alarm has rung, by somebody who looks on once."""
    rings = []

    def onlooker(now, frame):
        if frame is not None:  # else it is asked only whether it wants anything
            rings.append(now)
        return inf, None

    ALARM.look_on(onlooker)
    yield rings
    ALARM.look_away(onlooker)


@pytest.fixture(name="foreign")
def _foreign():
    """Somebody else's handler."""
    before = signal.getsignal(signal.SIGALRM)
    calls = []

    def handler(signum, _frame):
        calls.append(signum)

    handler.calls = calls
    yield handler
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(PATIENCE)
    return found[0]


# Standing by.


def test_standing_by_sets_the_handler_and_no_timer():
    """
    The handler is there, nothing runs, and ``dismiss`` gives it back.
    """
    before = signal.getsignal(signal.SIGALRM)
    assert ALARM.stand_by()
    assert ALARM.stand_by()

    assert ALARM.is_standing_by
    assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    ALARM.dismiss()
    assert signal.getsignal(signal.SIGALRM) is before
    ALARM.dismiss()


def test_it_can_be_summoned_from_any_thread(rings):
    """
    Who stands by is called at once on the main thread, in whatever that does, and rests again.
    """
    assert not ALARM.summon()
    ALARM.stand_by()

    def summoned_here():
        assert in_thread(ALARM.summon)
        until(lambda: rings)

    summoned_here()

    assert len(rings) == 1
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert ALARM.is_standing_by


def test_somebody_else_s_handler_is_not_taken(foreign):
    """
    Where SIGALRM has a handler, nobody stands by, and nobody can be summoned.
    """
    signal.signal(signal.SIGALRM, foreign)

    assert not ALARM.stand_by()
    assert not ALARM.summon()
    assert signal.getsignal(signal.SIGALRM) is foreign


def test_somebody_else_s_timer_is_not_taken(foreign):
    """
    An alarm that the application has set already, with or without a handler, is its own.
    """
    signal.signal(signal.SIGALRM, foreign)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 50)

    assert not ALARM.stand_by()
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 40


def test_another_thread_can_t_have_it_stand_by():
    """
    Only the main thread can set a handler.
    """
    before = signal.getsignal(signal.SIGALRM)

    assert not in_thread(ALARM.stand_by)
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_handler_that_is_set_later_wins(foreign, rings):
    """
    While it stands by anybody may take SIGALRM, and is not disturbed any more.
    """
    ALARM.stand_by()
    signal.signal(signal.SIGALRM, foreign)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    assert not in_thread(ALARM.summon)
    until(lambda: foreign.calls)
    ALARM.dismiss()

    assert foreign.calls == [signal.SIGALRM]
    assert rings == []
    assert signal.getsignal(signal.SIGALRM) is foreign


def test_dismissed_from_another_thread_it_does_nothing(rings):
    """
    The handler stays then, which only the main thread could change, until that comes by.
    """
    before = signal.getsignal(signal.SIGALRM)
    ALARM.stand_by()
    in_thread(ALARM.dismiss)
    assert signal.getsignal(signal.SIGALRM) is not before
    in_thread(ALARM.summon)
    until(lambda: signal.getsignal(signal.SIGALRM) is before)

    assert len(rings) == 1


@pytest.mark.parametrize(
    "before",
    [
        "ALARM.stand_by()",
        "ALARM.stand_by(); threading.Thread(target=ALARM.dismiss).start()",
        "ALARM.stand_by(); assert profile(0.1).alarm_count > 10; time.sleep(0.2)",
        "ALARM.stand_by(); profile(0.01)\nwith timeout(5): pass",
        "with timeout(5): pass",
    ],
)
def test_an_alarm_without_a_handler_still_ends_the_process(before):
    """
    Who counts on what SIGALRM does by default, ``signal.alarm(2)``, is not kept from it by whoever stands by.
    """
    said, code = run(f"{before}\nsignal.alarm(2)\nsay(1)\nwait_for_ever()\nsay(2)")

    assert said == [[1]]
    assert code == -signal.SIGALRM


@pytest.mark.parametrize(
    "meanwhile",
    [
        "say(profile(0.2).alarm_count)",
        "threading.Thread(target=ALARM.summon).start(); time.sleep(0.2); say(0)",
        "with timeout(5): time.sleep(0.2)\nsay(0)",
        "try:\n    with timeout(0.2, DeadlineExceeded): wait_for_ever()\nexcept DeadlineExceeded: say(0)",
    ],
)
def test_an_alarm_that_is_pending_keeps_its_time(meanwhile):
    """
    What the application has set while it stands by is not lost to a profile or a limit that comes in between.
    """
    said, code = run(f"ALARM.stand_by()\nsignal.setitimer(signal.ITIMER_REAL, 1.5)\n{meanwhile}\nwait_for_ever()")

    assert said == [[0]]
    assert code == -signal.SIGALRM


def test_an_alarm_that_is_cancelled_in_time_ends_nothing():
    """
    An application that sets an alarm and takes it back goes on, whatever of ours comes in between.
    """
    said, code = run(
        """
        ALARM.stand_by()
        signal.alarm(1)
        with timeout(5): time.sleep(0.1)
        signal.alarm(0)
        profile(0.1)
        time.sleep(1.5)
        say("alive")
        """
    )

    assert (said, code) == ([["alive"]], 0)


def test_an_ignored_alarm_stays_ignored():
    """
    A process that ignores SIGALRM is not ended by its own timer while we stand by.
    """
    said, code = run(
        """
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        ALARM.stand_by()
        signal.alarm(1)
        time.sleep(1.5)
        ALARM.dismiss()
        say(signal.getsignal(signal.SIGALRM) == signal.SIG_IGN)
        """
    )

    assert (said, code) == ([[True]], 0)


def test_a_stray_alarm_right_after_a_profile_ends_nothing():
    """
    A ring that is on its way as sampling ends is ours, and does not do what SIGALRM does by default.
    """
    said, code = run(
        """
        ALARM.stand_by()
        for _ in range(20):
            profile(0.01)
            os.kill(os.getpid(), signal.SIGALRM)
        time.sleep(0.1)
        say("alive", signal.getitimer(signal.ITIMER_REAL)[0], ALARM.is_standing_by)
        """
    )

    assert (said, code) == ([["alive", 0.0, True]], 0)


def test_programs_that_are_started_are_unaffected():
    """
    A child process, and a program that takes this one's place, has neither handler nor timer.
    """
    said, code = run(
        """
        ALARM.stand_by()
        child = [sys.executable, "-c", "import signal, time; time.sleep(1.2); print(int(signal.getsignal(14)))"]
        profile(0.05)
        say(subprocess.run(child, capture_output=True, text=True).stdout)
        profile(0.05)
        os.execv(sys.executable, child)
        """
    )

    assert said == [["0\n"], 0]
    assert code == 0


def test_a_forked_child_has_neither_handler_nor_timer():
    """
    A fork gives the child back what was there before us, from whichever thread; the parent still stands by.
    """
    said, code = run(
        """
        def fork(can_profile):
            child = os.fork()
            if child == 0:
                ok = signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
                ok = ok and signal.getitimer(signal.ITIMER_REAL) == (0, 0) and not ALARM.is_standing_by
                ok = ok and ALARM.stand_by() and (not can_profile or profile(0.1).alarm_count > 5)
                os._exit(0 if ok else 1)
            say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        import warnings
        warnings.simplefilter("ignore")
        ALARM.stand_by()
        fork(True)
        # 3.13 sees POSIX signals late in a child that another thread than the main one has forked.
        thread = threading.Thread(target=fork, args=(sys.version_info < (3, 13),))
        thread.start()
        thread.join()
        say(ALARM.is_standing_by, profile(0.1).alarm_count > 5)
        """
    )

    assert said == [[0], [0], [True, True]]
    assert code == 0


def test_limits_and_standing_by_go_together():
    """
    A limit within a process that stands by fires on time, and afterwards it still stands by, without a timer.
    """
    ALARM.stand_by()
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded), timeout(0.05, DeadlineExceeded):
        time.sleep(PATIENCE)

    assert 0.049 < time.monotonic() - started < 2
    until(lambda: signal.getitimer(signal.ITIMER_REAL) == (0, 0))
    assert ALARM.is_standing_by


def test_an_application_s_handler_is_borrowed_and_given_back(foreign):
    """
    Where somebody has taken SIGALRM while we stood by, a limit borrows it as ever, and nobody stands by after that.
    """
    ALARM.stand_by()
    signal.signal(signal.SIGALRM, foreign)
    with pytest.raises(DeadlineExceeded), timeout(0.05, DeadlineExceeded):
        time.sleep(PATIENCE)

    assert signal.getsignal(signal.SIGALRM) is foreign
    assert not ALARM.is_standing_by
    assert foreign.calls == []


# The rhythm.


class Pacer:
    """An onlooker who wants to be called again and again."""

    def __init__(self, pause) -> None:
        self.pause = pause
        self.rings = []

    def __call__(self, now, _frame):
        self.rings.append(now)
        return now + self.pause, None


@pytest.fixture(name="pace")
def _pace():
    pacers = []

    def pace(pause):
        pacers.append(Pacer(pause))
        ALARM.look_on(pacers[-1])
        ALARM.keeps_rhythm = True
        now = time.monotonic()
        assert ALARM.ring_by(now + pause, now, polite=True, gentle=True) is None
        until(lambda: pacers[-1].rings)  # a first ring that CPython overlooks comes again half a second later
        return pacers[-1]

    yield pace
    ALARM.keeps_rhythm = False
    for each in pacers:
        ALARM.look_away(each)
    ALARM.release()


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_rhythm_is_set_once(pace, monkeypatch):
    """
    Who wants to be called again and again is, by a timer that repeats, without a system call for each ring.
    """
    calls = []
    real = signal.setitimer
    monkeypatch.setattr(signal, "setitimer", lambda *given: (calls.append(given), real(*given))[1])
    pacer = pace(0.002)
    spin(0.2)

    assert len(pacer.rings) >= 20
    assert len(calls) <= 10
    assert real(signal.ITIMER_REAL, 0)[1] == pytest.approx(0.002, abs=0.001)


def test_a_rhythm_that_changes_is_set_anew(pace):
    """
    As the interval doubles, so does the timer's.
    """
    pacer = pace(0.002)
    spin(0.05)
    pacer.pause = 0.008
    spin(0.05)

    until(lambda: signal.getitimer(signal.ITIMER_REAL)[1] == pytest.approx(0.008, abs=0.001))


def test_a_slow_rhythm_is_none(pace):
    """
    What comes seldom is asked for each time: a timer that repeats seldom would be late for what comes in between.
    """
    pacer = pace(0.05)
    spin(0.3)

    assert 2 <= len(pacer.rings) <= 8
    assert signal.getitimer(signal.ITIMER_REAL)[1] == pytest.approx(0.5, abs=0.01)


def test_falling_silent_stops_the_timer_until_it_is_summoned(pace):
    """
    Where nobody answers, nobody is interrupted any more; a summons brings the rhythm back.
    """
    ALARM.stand_by()
    pacer = pace(0.002)
    spin(0.05)
    for _ in range(100):  # a ring that comes while it falls silent is an answer
        ALARM.fall_silent()
        if signal.getitimer(signal.ITIMER_REAL) == (0, 0):
            break
    silent = len(pacer.rings)
    spin(0.05)

    assert len(pacer.rings) <= silent + 1  # which came meanwhile
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    in_thread(ALARM.summon)
    spin(0.1)
    assert len(pacer.rings) > silent + 5


def test_falling_silent_leaves_a_limit_its_ring(pace):
    """
    While a limit is open the timer goes on for that.
    """
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded), timeout(0.3, DeadlineExceeded):  # noqa: PT012 - all of it is limited
        pace(0.002)
        spin(0.02)
        in_thread(ALARM.fall_silent)
        time.sleep(PATIENCE)

    assert 0.29 < time.monotonic() - started < 2


def test_falling_silent_leaves_somebody_else_s_alarm(pace, foreign):
    """
    Who has taken handler or timer meanwhile keeps it: falling silent is our own timer's only.
    """
    pace(0.002)
    spin(0.02)
    signal.setitimer(signal.ITIMER_REAL, 50)
    in_thread(ALARM.fall_silent)
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert left > 40
    assert interval == 0

    signal.signal(signal.SIGALRM, foreign)
    signal.setitimer(signal.ITIMER_REAL, 50, 50)
    in_thread(ALARM.fall_silent)
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 40


def test_falling_silent_where_nothing_is_ours_does_nothing():
    """
    Without a handler of ours no timer is touched.
    """
    ALARM.fall_silent()

    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_somebody_who_raises_costs_nobody_else_a_ring(pace):
    """
    A fault of one who looks on is counted, and all others are asked.
    """

    def broken(_now, _frame):
        raise RuntimeError("broken")

    ALARM.look_on(broken)
    try:
        pacer = pace(0.002)
        spin(0.1)
    finally:
        ALARM.look_away(broken)
        ALARM.look_away(broken)

    assert len(pacer.rings) >= 10
    assert faults.counts["failed", "answering the alarm"] >= 10


def test_system_calls_go_on_while_somebody_only_looks(pace):
    """
    Onlookers cut no system call short, as those may that interrupt.
    """
    import ctypes

    read, write = os.pipe()
    try:
        pacer = pace(0.002)
        timer = threading.Timer(0.1, os.write, (write, b"."))
        timer.start()
        returned = ctypes.CDLL(None).read(read, ctypes.create_string_buffer(1), 1)
        timer.join()
    finally:
        os.close(read)
        os.close(write)

    assert returned == 1
    assert pacer.rings


def test_what_is_due_is_not_rung_sooner_for_being_put_off():
    """
    Who waits in C in turns looks for POSIX signals only after a whole one: rings that repeat leave time for that.
    """
    alarm = Alarm()
    due = time.monotonic() - 0.05
    alarm.listen(lambda _now, _frame: (inf, None), lambda: due)
    assert alarm.stand_by()
    try:
        signal.setitimer(signal.ITIMER_REAL, 5, 0.5)
        assert alarm.put_off(time.monotonic() + 1)
        left, _ = signal.getitimer(signal.ITIMER_REAL)
    finally:
        alarm.release()

    assert left > 2
