"""The sampler: who is seen where, how often, and what everybody else does not notice. Real threads, generous bounds."""

from __future__ import annotations

import cProfile
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from otel_introspect import DeadlineExceeded, faults, timeout
from otel_introspect.engine import handover
from otel_introspect.engine.alarm import ALARM
from otel_introspect.engine.places import Stack, ThreadPlace
from otel_introspect.engine.recording import AWAITING, GAP, MAX_FRAMES
from otel_introspect.engine.sampler import MAX_THREADS, UNEVEN, Sampled, Sampler
from otel_introspect.engine.stacks import outwards

PATIENCE = 10


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def known_paths(recording):
    known = [()]
    for parent, frame in recording.tree():
        known.append((*known[parent], frame.line if frame.code is None else frame.code.co_name))
    return known


def seconds_in(sampled, *names):
    """How long all of *names* were on the stack together."""
    recording = sampled.recording
    totals, known = recording.totals(), known_paths(recording)
    return sum(seconds for node, seconds in totals.items() if set(names) <= set(known[node]))


def seen(sampled):
    """Seconds by innermost name."""
    recording = sampled.recording
    totals, known = recording.totals(), known_paths(recording)
    found = defaultdict(float)
    for node, seconds in totals.items():
        found[(known[node] or ("",))[-1]] += seconds
    return found


class Ticking:
    """A sampler and a thread that ticks as the introspector does."""

    def __init__(self) -> None:
        self.sampler = Sampler()
        self.ticks = 0
        self._over = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticking")
        self._thread.start()

    def _run(self):
        while not self._over.is_set():
            wait = self.sampler.tick()
            self.ticks += 1
            self._wake.wait(wait)
            self._wake.clear()

    def start(self, where=None, interval=0.001, key="request"):
        here = threading.get_ident()
        sampled = Sampled(key, where or (lambda: here), interval, time.monotonic())
        self.sampler.start(sampled)
        self._wake.set()
        return sampled

    def stop(self, sampled):
        self.sampler.stop(sampled)
        return sampled

    def during(self, work, *arguments, **given):
        """What was seen while *work* was done here."""
        sampled = self.start(**given)
        try:
            work(*arguments)
        finally:
            self.stop(sampled)
        return sampled

    def close(self):
        self._over.set()
        self._wake.set()
        self._thread.join(PATIENCE)
        self.sampler.close()


@pytest.fixture(autouse=True)
def _alarm_given_back():
    yield
    ALARM.dismiss()
    ALARM.release()
    handover.working.clear()


@pytest.fixture(name="ticking")
def _ticking():
    ticking = Ticking()
    yield ticking
    ticking.close()


def in_thread(work):
    """Do *work* in a thread of its own, and wait for it."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - the test is to see it
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(3 * PATIENCE)
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


# The main thread, by the alarm.


def test_a_busy_loop_in_the_main_thread_is_seen_each_millisecond(ticking):
    """
    The alarm takes nearly all the samples that are due, which no thread could.
    """
    shares = []
    for _ in range(4):  # a machine that lets the process wait for 30 ms makes the alarm fall silent for a while
        sampled, before = ticking.start(), time.thread_time()
        spin(0.3)
        shares.append(sampled.alarm_count / (1000 * (time.thread_time() - before)))
        ticking.stop(sampled)

        assert seconds_in(sampled, "spin") + sampled.recording.gaps >= 0.9 * 0.3

    assert max(shares) >= 0.8


def test_sleep_in_the_main_thread_is_seen(ticking):
    """
    What lets go of the GIL and waits is seen, for as long as it takes.
    """

    def rest():
        time.sleep(0.2)

    sampled = ticking.during(rest)

    assert seconds_in(sampled, "rest") >= 0.9 * 0.2
    assert 0.19 <= sampled.recording.ended - sampled.recording.started < PATIENCE


def test_a_regular_expression_in_the_main_thread_is_seen(ticking):
    """
    The regular expression that never lets go of the GIL looks for POSIX signals, and so is seen by the alarm.
    """

    def catastrophe():
        end = time.perf_counter() + 0.2
        while time.perf_counter() < end:
            re.match(r"(a+)+$", "a" * 18 + "b")

    sampled = ticking.during(catastrophe)

    assert seconds_in(sampled, "catastrophe") >= 0.7 * 0.2
    assert sampled.alarm_count >= 20


def test_callers_are_told_apart_however_alike_they_are(ticking):
    """
    A query that two callers send by way of the same functions is each one's for as long as it took.
    """

    def execute():
        a = b = c = d = e = f = g = h = i = j = 1  # noqa: F841 - frames of different sizes are made where the last ones were
        time.sleep(0.004)

    def wrap():
        k = l = m = n = o = p = q = r = s = t = u = v = w = x = y = z = 1  # noqa: E741, F841 - as above
        execute()

    def connection():
        wrap()

    def first():
        connection()

    def second():
        connection()

    def both():
        for _ in range(20):
            first()
            second()

    for interval in (0.001, 0.005):
        sampled = ticking.during(both, interval=interval)
        one, other = seconds_in(sampled, "first"), seconds_in(sampled, "second")

        assert 0.3 < one / (one + other) < 0.7


def test_sampling_by_the_alarm_leaves_nothing_behind(ticking):
    """
    Soon after the last sampled request has ended there is no timer and no handler of ours.
    """
    before = signal.getsignal(signal.SIGALRM)
    ticking.during(spin, 0.02)
    until(lambda: signal.getsignal(signal.SIGALRM) is before)

    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert not ALARM.keeps_rhythm


def test_stopping_from_another_thread(ticking):
    """
    Who stops it need not be who has started it; nothing comes after that, and the timer does not go on.
    """
    sampled = ticking.start()
    spin(0.02)
    in_thread(lambda: ticking.stop(sampled))
    number = sampled.recording.sample_count
    spin(0.05)
    sampled.recording.fold()

    assert sampled.recording.sample_count <= number + 110
    assert sampled.recording.latest < time.monotonic() - 0.03
    until(lambda: signal.getitimer(signal.ITIMER_REAL) == (0, 0))


def test_one_that_was_begun_on_another_thread_summons_the_alarm(ticking):
    """
    Where the handler stands by, a profile of the main thread that another one begins is the alarm's to sample.
    """
    assert ALARM.stand_by()
    here = threading.get_ident()
    sampled = in_thread(lambda: ticking.start(lambda: here))
    until(lambda: sampled.alarm_count >= 20)
    ticking.stop(sampled)


def test_without_a_handler_that_stands_by_the_introspector_samples(ticking):
    """
    Only the main thread could set the handler; so another thread looks, as often as it comes to.
    """
    here = threading.get_ident()
    sampled = in_thread(lambda: ticking.start(lambda: here, 0.005))
    time.sleep(0.2)
    ticking.stop(sampled)

    assert sampled.alarm_count == 0
    assert sampled.recording.sample_count >= 10


# Where the alarm is silent.


class Silent:
    """A call in C that waits without the GIL, goes on where a POSIX signal cuts it short, and so looks for none."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._buffer = ctypes.create_string_buffer(1)
        self._timers = []

    def wait(self, seconds):
        """What ``read`` returns after so many seconds: 1, unless it was cut short."""
        timer = threading.Timer(seconds, os.write, (self._write, b"."))
        self._timers.append(timer)
        timer.start()
        try:
            return ctypes.CDLL(None).read(self._read, self._buffer, 1)
        finally:
            timer.join()

    def close(self):
        for timer in self._timers:  # a limit may have come while one was waited for
            timer.cancel()
            timer.join()
        os.close(self._read)
        os.close(self._write)


@pytest.fixture(name="silent")
def _silent():
    silent = Silent()
    yield silent
    silent.close()


@pytest.mark.parametrize("interval", [0.001, 0.01])
def test_a_call_in_c_that_does_not_look_for_signals_is_seen_by_the_introspector(ticking, silent, interval):
    """
    A library in C that waits without the GIL is no gap and is not cut short; after it the alarm goes on.
    """
    returned = []

    def stuck():
        returned.append(silent.wait(0.4))

    def work():
        stuck()
        started = time.thread_time()
        spin(0.5)
        return time.thread_time() - started

    sampled = ticking.start(interval=interval)
    busy = work()
    ticking.stop(sampled)

    assert returned == [1]
    assert seconds_in(sampled, "stuck") + sampled.recording.gaps >= 0.9 * 0.4
    assert sampled.recording.gaps < 0.2
    assert sampled.alarm_count >= 0.2 * busy / interval


def test_a_deadline_is_on_time_within_a_call_in_c(ticking, silent):
    """
    Where sampling lets a system call go on, a limit cuts it short all the same.
    """
    sampled = ticking.start()
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded), timeout(0.3, DeadlineExceeded):
        silent.wait(2)
    took = time.monotonic() - started
    ticking.stop(sampled)

    assert took > 0.29
    assert seconds_in(sampled, "wait") > 0.2


def test_a_profile_that_ends_within_a_call_in_c_ends_no_process(ticking, silent):
    """
    A ring that the main thread could not answer in time is not taken for somebody else's alarm, which would end it.
    """
    assert ALARM.stand_by()
    ALARM._quiet_since -= 10
    sampled = ticking.start(interval=0.01)
    spin(0.05)
    timer = threading.Timer(0.3, ticking.stop, (sampled,))
    timer.start()
    silent.wait(0.6)
    spin(0.1)
    timer.join()

    assert ALARM.is_standing_by
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert seconds_in(sampled, "wait") >= 0.1


# Somebody else's SIGALRM.


@pytest.mark.parametrize("owned", ["handler", "timer", "repeating"])
def test_somebody_else_s_alarm_is_left_alone(ticking, owned):
    """
    Where SIGALRM belongs to somebody else, in whatever way, it stays theirs, and the introspector samples.
    """
    before = signal.getsignal(signal.SIGALRM)
    calls = []

    def handler(*_):
        calls.append(1)

    try:
        signal.signal(signal.SIGALRM, handler)
        if owned == "timer":
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        elif owned == "repeating":
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        sampled = ticking.start(interval=0.005)
        interval = signal.getitimer(signal.ITIMER_REAL)[1]
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            time.sleep(0.001)
        ticking.stop(sampled)

        assert signal.getsignal(signal.SIGALRM) is handler
        assert interval == pytest.approx(0.02 if owned == "repeating" else 0, abs=0.005)
        assert {"handler": not calls, "timer": len(calls) == 1, "repeating": len(calls) > 3}[owned]
        assert sampled.alarm_count == 0
        assert sampled.recording.sample_count >= 10
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_handler_that_is_set_while_we_sample_stays(ticking):
    """
    Who takes SIGALRM in the middle of a profile has it: their handler, their timer, rung once.
    """
    before = signal.getsignal(signal.SIGALRM)
    calls = []

    def handler(*_):
        calls.append(time.monotonic())

    try:
        sampled = ticking.start()
        spin(0.02)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        set_at = time.monotonic()
        spin(0.2)
        left = signal.getitimer(signal.ITIMER_REAL)
        spin(0.3)
        ticking.stop(sampled)
        spin(0.1)

        assert 0 < left[0] <= 0.1
        assert left[1] == 0
        assert len(calls) == 1
        assert calls[0] - set_at >= 0.29
        assert signal.getsignal(signal.SIGALRM) is handler
        assert seconds_in(sampled, "spin") >= 0.4
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_limits_and_samples_share_the_alarm(ticking):
    """
    A limit is on time while each millisecond is sampled, sampling goes on after it, and then nothing is left.
    """
    before = signal.getsignal(signal.SIGALRM)
    sampled = ticking.start()
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded), timeout(0.05, DeadlineExceeded):
            spin(PATIENCE)
        assert 0.049 < time.monotonic() - started < 1
    with timeout(PATIENCE):
        spin(0.1)
    spin(0.1)
    ticking.stop(sampled)

    assert sampled.alarm_count >= 50
    until(lambda: signal.getsignal(signal.SIGALRM) is before)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_profile_that_begins_within_a_limit_leaves_it_in_force(ticking):
    """
    Sampling that begins and ends within a block does not move its limit.
    """
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded), timeout(0.3, DeadlineExceeded):  # noqa: PT012 - all of it is limited
        sampled = ticking.during(spin, 0.1)
        time.sleep(PATIENCE)

    assert 0.29 < time.monotonic() - started < 2
    assert sampled.alarm_count >= 20


# Other threads, by the introspector.


def test_another_thread_is_seen(ticking):
    """
    What runs in a thread of its own is sampled by the introspector, busy or not.
    """

    def busy():
        spin(0.15)

    def idle():
        time.sleep(0.15)

    def work():
        sampled = ticking.start(interval=0.005)
        busy()
        idle()
        return ticking.stop(sampled)

    sampled = in_thread(work)

    assert sampled.alarm_count == 0
    assert seconds_in(sampled, "busy") >= 0.1
    assert seconds_in(sampled, "idle") >= 0.1


@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_call_that_keeps_the_gil_is_a_gap(ticking, where):
    """
    While nobody can look, nobody's time is made up: the caller has a gap, and the neighbours have their own time only.
    """
    took = []

    def keep():
        started = time.monotonic()
        sum(range(15_000_000))
        took.append(time.monotonic() - started)

    def neighbour():
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            time.sleep(0.002)

    def work():
        sampled = ticking.start(interval=0.005)
        neighbour()
        keep()
        neighbour()
        return ticking.stop(sampled)

    sampled = work() if where == "main" else in_thread(work)

    found = seen(sampled)
    assert found[GAP] >= took[0] - 0.01
    assert found[GAP] < took[0] + 0.15
    assert seconds_in(sampled, "neighbour", GAP) == 0
    assert seconds_in(sampled, "keep") <= 0.15
    assert sampled.recording.gaps == pytest.approx(found[GAP])


def test_a_c_function_that_keeps_the_gil_is_a_gap(ticking):
    """
    A library in C that sleeps with the GIL is seen no more than one that computes.
    """

    def keep():
        ctypes.PyDLL(None).usleep(300_000)

    sampled = in_thread(lambda: ticking.during(keep, interval=0.005))

    assert seen(sampled)[GAP] >= 0.28


# By a clock of the test's own.


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture(name="clock")
def _clock():
    return Clock()


class Counted:
    """A place that counts how often it was looked at."""

    thread_id = -1

    def __init__(self, state=None):
        self.looks = 0
        self.state = state

    def stack(self, frames):
        self.looks += 1
        return Stack(outwards(sys._getframe()), self.thread_id, self.state)


def test_nothing_to_sample_is_nothing_to_come_for(clock):
    """
    A sampler that has nothing to sample does not tick, and has no timer.
    """
    sampler = Sampler(clock=clock)
    sampled = Sampled(1, Counted, 0.01, clock.now)

    assert sampler.tick() is None
    sampler.start(sampled)
    assert sampler.tick() is not None
    sampler.stop(sampled)
    assert sampler.tick() is None
    assert len(sampler) == 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    sampler.close()


def test_ticks_come_when_something_is_due(clock):
    """
    A tick says when to come again; what comes earlier finds nothing to do.
    """
    sampler, place = Sampler(clock=clock), Counted()
    sampler.start(Sampled(1, lambda: place, 0.01 / UNEVEN, clock.now))

    assert sampler.tick() == pytest.approx(0.01)
    assert place.looks == 0
    clock.now += 0.01
    assert sampler.tick() == pytest.approx(0.01)
    assert place.looks == 1
    clock.now += 0.004
    assert sampler.tick() == pytest.approx(0.006)
    assert place.looks == 1
    sampler.close()


def test_a_tick_that_is_late_does_not_catch_up(clock):
    """
    Ticks that were missed are not made good in a burst.
    """
    sampler, place = Sampler(clock=clock), Counted()
    sampler.start(Sampled(1, lambda: place, 0.01 / UNEVEN, clock.now))
    clock.now += 1
    waits = [sampler.tick() for _ in range(5)]

    assert place.looks == 1
    assert min(waits) >= 0.0049
    sampler.close()


def test_of_many_only_some_are_looked_at_in_one_tick(clock):
    """
    However many are sampled, one tick looks at 25; over some ticks each one has its turn as often as any other.
    """
    sampler = Sampler(clock=clock)
    places = [Counted() for _ in range(2 * MAX_THREADS + 10)]
    for each in places:
        sampler.start(Sampled(id(each), lambda each=each: each, 0.01, clock.now))
    looks = []
    for _ in range(60):
        clock.now += 0.02
        before = sum(each.looks for each in places)
        sampler.tick()
        looks.append(sum(each.looks for each in places) - before)

    assert max(looks) == MAX_THREADS
    counts = [each.looks for each in places]
    assert min(counts) >= 0.6 * sum(counts) / len(counts)
    assert max(counts) <= 1.5 * sum(counts) / len(counts)
    sampler.close()


def test_the_interval_doubles_with_age(clock):
    """
    The older a request, the rarer its samples: a thousand for each doubling of its age.
    """
    sampled = Sampled(1, lambda: None, 0.001, clock.now)
    pauses = []
    for age in (0, 1.9, 2.1, 3.9, 4.1, 600):
        sampled.adapt(clock.now + age, 1)
        pauses.append(round(sampled.pause / UNEVEN * 1000))

    assert pauses == [1, 1, 2, 2, 4, 512]
    sampled.adapt(clock.now, 8)
    assert sampled.pause == pytest.approx(0.008 * UNEVEN)


def test_ten_minutes_are_few_samples_more_than_thirty_seconds(clock):
    """
    By that, what a request costs grows with the logarithm of its time.
    """
    sampler, place = Sampler(clock=clock), Counted()
    sampler.start(Sampled(1, lambda: place, 0.01, clock.now))
    looks = []
    for seconds in (30, 600):
        end = clock.now + seconds
        while clock.now < end:
            clock.now += sampler.tick() or 0.001
        looks.append(place.looks)

    assert looks[0] > 1_500
    assert looks[1] < 5 * looks[0]
    sampler.close()


def test_a_place_that_raises_costs_one_sample(clock):
    """
    A fault in one place is counted, and neither ends its own sampling nor touches anybody else's.
    """

    class Broken(Counted):
        def stack(self, frames):
            super().stack(frames)
            raise RuntimeError("broken")

    def nowhere():
        raise RuntimeError("broken")

    sampler, broken, fine = Sampler(clock=clock), Broken(), Counted()
    for key, where in enumerate((nowhere, lambda: broken, lambda: fine)):
        sampler.start(Sampled(key, where, 0.01 / UNEVEN, clock.now))
    for _ in range(3):
        clock.now += 0.01
        assert sampler.tick() == pytest.approx(0.01)

    assert (broken.looks, fine.looks) == (3, 3)
    assert faults.counts["failed", "taking a sample"] >= 6
    sampler.close()


def test_a_place_that_raises_does_not_silence_the_alarm(ticking):
    """
    In the main thread, too, it costs nobody else a sample.
    """

    class Broken(Counted):
        thread_id = threading.get_ident()

        def stack(self, frames):
            super().stack(frames)
            raise RuntimeError("broken")

    broken, sampled = Broken(), ticking.start()
    beside = ticking.start(lambda: broken)
    spin(0.2)
    ticking.stop(beside)
    ticking.stop(sampled)

    assert sampled.alarm_count >= 20
    assert broken.looks >= 20
    assert faults.counts["failed", "taking a sample"] >= 20


def test_a_place_that_is_not_known_now_costs_nothing(clock):
    """
    Who can't say where it is now is asked again the next time.
    """
    sampler = Sampler(clock=clock)
    sampled = Sampled(1, lambda: None, 0.01, clock.now)
    sampler.start(sampled)
    clock.now += 0.05

    assert sampler.tick() > 0
    assert sampled.recording.sample_count == 0
    sampler.close()


def test_awaiting_says_so(clock):
    """
    A place that shows a chain of awaits has that time as awaiting.
    """
    sampler, place = Sampler(clock=clock), Counted("awaiting")
    sampled = Sampled(1, lambda: place, 0.01, clock.now)
    sampler.start(sampled)
    clock.now += 0.01
    sampler.tick()
    sampler.stop(sampled)

    assert list(seen(sampled)) == [AWAITING]
    sampler.close()


# Work that is handed on.


def test_work_in_a_pool_is_seen_below_who_waits_for_it(ticking):
    """
    A request that waits for work which it has handed to a pool is seen at that work, whoever else uses the pool.
    """

    def own_work():
        spin(0.5)

    def other_work():
        spin(0.5)

    with ThreadPoolExecutor(2) as pool:

        def request():
            pool.submit(handover.handed_over(other_work, "another"))
            pool.submit(handover.handed_over(own_work, "request")).result()

        sampled = ticking.during(request, interval=0.005)

    assert seconds_in(sampled, "request", "result", "own_work") >= 0.1
    assert seconds_in(sampled, "other_work") == 0


def test_nested_work_is_seen_at_the_innermost(ticking):
    """
    A thread that itself waits for another one has no share in the time.
    """

    def inner():
        time.sleep(0.3)

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:

        def outer():
            second.submit(handover.handed_over(inner, "request")).result()

        def request():
            first.submit(handover.handed_over(outer, "request")).result()

        sampled = ticking.during(request, interval=0.005)

    assert seconds_in(sampled, "request", "inner") >= 0.2
    assert seconds_in(sampled, "outer") < 0.1


def test_work_that_has_been_changed_for_another_s_is_not_shown(clock, monkeypatch):
    """
    A thread that goes on to another request's work just as it is looked at shows nothing of it.
    """
    from otel_introspect.engine import sampler as module

    release, started = threading.Event(), threading.Event()

    def other_work():
        started.set()
        release.wait(PATIENCE)

    thread = threading.Thread(target=handover.handed_over(other_work, "another"))
    thread.start()
    assert started.wait(PATIENCE)
    answers = [[thread.ident], []]
    monkeypatch.setattr(module, "threads_of", lambda _key: answers.pop(0))
    found = module._work_for("request", threading.get_ident())
    release.set()
    thread.join()

    assert found == []


def test_a_stack_with_work_elsewhere_is_bounded(ticking):
    """
    Of a deep stack that waits for deep work, the outer frames are left out.
    """

    def recurse(depth, work):
        return recurse(depth - 1, work) if depth else work()

    with ThreadPoolExecutor(1) as pool:

        def request():
            work = handover.handed_over(lambda: recurse(200, lambda: time.sleep(0.15)), "request")
            recurse(150, lambda: pool.submit(work).result())

        sampled = ticking.during(request, interval=0.005)

    assert max(map(len, known_paths(sampled.recording))) <= MAX_FRAMES + 1


# What everybody else does not notice.


def test_tracers_and_profilers_are_left_alone(ticking):
    """
    Profile and trace functions and cProfile see the application as before, and nothing of ours takes their place.
    """
    calls = []

    def on_call(frame, event, _argument):
        calls.append(frame.f_code.co_name)

    def traced():
        return 1

    sys.setprofile(on_call)
    try:
        sampled = ticking.start()
        traced()
        spin(0.05)
        ticking.stop(sampled)
        assert sys.getprofile() is on_call
    finally:
        sys.setprofile(None)
    profile = cProfile.Profile()
    profile.enable()
    sampled_too = ticking.during(spin, 0.05)
    profile.disable()

    assert "traced" in calls
    assert sys.gettrace() is None
    assert sampled.alarm_count > 10
    assert sampled_too.alarm_count > 10
    assert any(entry.code is spin.__code__ for entry in profile.getstats())


def test_a_thread_place_is_as_good_as_the_thread_s_id(ticking):
    """
    Where the place is a thread and nothing more, the alarm takes the short way.
    """
    place = ThreadPlace(threading.get_ident())
    sampled = ticking.during(spin, 0.2, where=lambda: place)

    assert sampled.alarm_count >= 20


def test_a_fork_in_the_middle(ticking):
    """
    The child has no timer, no handler of ours and can go on; the parent's profile does not notice.
    """
    before = signal.getsignal(signal.SIGALRM)
    sampled = ticking.start()
    spin(0.05)
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ticking.sampler.forget([sampled])
            clear = signal.getitimer(signal.ITIMER_REAL) == (0, 0) and signal.getsignal(signal.SIGALRM) is before
            count = sampled.recording.sample_count
            time.sleep(0.02)
            ticking.sampler.tick()
            sampled.recording.fold()
            ok = clear and sampled.recording.sample_count > count and not ALARM.keeps_rhythm
        finally:
            os._exit(0 if ok else 1)
    count = sampled.alarm_count
    spin(0.1)
    ticking.stop(sampled)
    deadline = time.monotonic() + PATIENCE
    pid = status = 0
    while not pid and time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.002)
    if not pid:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    assert pid
    assert os.waitstatus_to_exitcode(status) == 0
    assert sampled.alarm_count - count >= 10


def test_closing_gives_back_the_alarm():
    """
    A closed sampler is asked no more, and may be started again.
    """
    ticking = Ticking()
    number = len(ALARM._onlookers)
    sampled = ticking.start()
    assert len(ALARM._onlookers) == number + 1
    ticking.close()

    assert len(ALARM._onlookers) == number
    assert len(ticking.sampler) == 0
    until(lambda: signal.getitimer(signal.ITIMER_REAL) == (0, 0))
    count = sampled.recording.sample_count
    spin(0.02)
    assert sampled.recording.sample_count == count
