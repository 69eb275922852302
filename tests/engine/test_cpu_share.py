"""Our share of the process's CPU time."""

from __future__ import annotations

import threading

import pytest

from otel_introspect.engine.cpu_share import BURST, SHARE, CpuShare


class Machine:
    """A process, our thread in it and the time, all of which only go on when a test says so."""

    def __init__(self) -> None:
        self.process = 100.0
        self.ours = 5.0
        self.now = 1_000.0
        self.cpu = CpuShare(process_time=lambda: self.process, thread_time=lambda: self.ours, clock=lambda: self.now)
        self.cpu.account()

    def work(self, seconds, share=0.0, process=1.0):
        """Let time pass of which the process uses so much of the processor, and we of the process."""
        steps = int(seconds * 2)
        slowest = 1
        for _ in range(steps):
            self.now += 0.5 + 1e-6
            self.process += 0.5 * process
            self.ours += 0.5 * process * share
            self.cpu.account()
            slowest = max(slowest, self.cpu.slowdown)
        return slowest


@pytest.fixture(name="machine")
def _machine():
    return Machine()


def test_a_small_share_slows_nothing_down(machine):
    """
    Who stays below the share samples as often as asked for, for as long as that is.
    """
    assert machine.work(600, share=0.9 * SHARE) == 1
    assert machine.cpu.share() == pytest.approx(0.9 * SHARE, rel=0.05)


def test_a_burst_is_free(machine):
    """
    A profile that somebody waits for may use more for a while.
    """
    assert machine.work(BURST / 0.05 * 0.8, share=0.05) == 1


def test_a_large_share_slows_down(machine):
    """
    After the burst the intervals are doubled again and again while we use too much, up to a bound.
    """
    machine.work(20, share=0.05)
    assert machine.cpu.slowdown > 1
    assert machine.work(600, share=0.05) == 64


def test_as_often_as_it_may_is_where_it_settles(machine):
    """
    Where what we use falls as we slow down, it ends near the share, and not at the bound.
    """
    slowdowns = []
    for _ in range(600):
        machine.work(1, share=0.04 / machine.cpu.slowdown)
        slowdowns.append(machine.cpu.slowdown)

    assert max(slowdowns) <= 16
    assert machine.cpu.share() < 1.5 * SHARE


def test_it_recovers(machine):
    """
    When we use little again the intervals become what they were, within a minute or so of the process's own time,
    however much was used before.
    """
    machine.work(600, share=0.2)
    assert machine.cpu.slowdown == 64
    machine.work(120)

    assert machine.cpu.slowdown == 1


def test_what_an_idle_process_has_is_little(machine):
    """
    A process that does nothing earns nothing: the share is of what it uses.
    """
    for _ in range(60):
        machine.now += 0.5 + 1e-6
        machine.process += 0.01
        machine.ours += 0.01
        machine.cpu.account()

    assert machine.cpu.slowdown > 1


def test_it_is_adjusted_now_and_then_only(machine):
    """
    Each tick is accounted for, and twice a second looked at.
    """
    for _ in range(10):
        machine.now += 0.01
        machine.ours += 10
        machine.cpu.account()
    assert machine.cpu.slowdown == 1
    machine.now += 0.5
    machine.cpu.account()

    assert machine.cpu.slowdown == 2
    assert machine.cpu.seconds == pytest.approx(100)


def test_what_is_done_on_other_threads_counts(machine):
    """
    The answers to the alarm are ours, too.
    """
    machine.cpu.spend(0.5)
    machine.process += 10

    assert machine.cpu.seconds == 0.5
    assert machine.cpu.share() == pytest.approx(0.05)
    machine.now += 1
    machine.cpu.account()
    assert machine.cpu.slowdown == 2


def test_another_thread_begins_at_its_own_time(machine):
    """
    After a fork or a restart the introspector is another thread, whose CPU time has nothing to do with the one before.
    """

    def account():
        machine.ours = 1_000.0
        machine.cpu.account()
        machine.ours += 0.5
        machine.cpu.account()

    thread = threading.Thread(target=account)
    thread.start()
    thread.join()

    assert machine.cpu.seconds == pytest.approx(0.5)


def test_a_process_that_has_used_nothing_has_no_share():
    """
    Nothing is divided by nothing.
    """
    assert CpuShare(process_time=lambda: 1.0, thread_time=lambda: 0.0, clock=lambda: 0.0).share() == 0
    assert CpuShare().share() >= 0
