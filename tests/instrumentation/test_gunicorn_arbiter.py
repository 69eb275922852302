"""What is wrapped of gunicorn's arbiter, on one that stands for it; ``realtime/test_real_kills.py`` has real ones."""

from __future__ import annotations

import os
import time

import pytest

from otel_introspect import faults
from otel_introspect.config import IntrospectConfig, ProfilerConfig, RecorderConfig, WatchdogConfig
from otel_introspect.instrumentation.gunicorn import arbiter as wrapped
from otel_introspect.introspection import Introspection, activate


class Recovery:
    """Takes down in which processes it runs."""

    def __init__(self, path):
        self._path = path
        self.needed = True

    def is_needed(self):
        return self.needed

    def run(self):
        with self._path.open("a") as file:
            file.write(f"{os.getpid()}\n")

    @property
    def processes(self):
        return self._path.read_text().split() if self._path.exists() else []


class Arbiter:
    """As much of gunicorn's as is wrapped."""

    LISTENERS = ()

    def __init__(self):
        self.WORKERS = {}
        self.calls = []

    def reap_workers(self):
        self.calls.append("reap")
        self.WORKERS.popitem()

    def manage_workers(self):
        self.calls.append("manage")

    def stop(self, *, graceful=True):
        self.calls.append(("stop", graceful))


@pytest.fixture(name="recovery")
def _recovery(tmp_path):
    return Recovery(tmp_path / "processes")


@pytest.fixture(name="introspection")
def _introspection(tmp_path, recovery):
    introspection = Introspection(
        IntrospectConfig(
            watchdog=WatchdogConfig(observers=("thread",)),
            profiler=ProfilerConfig(triggers=()),
            recorder=RecorderConfig(directory=str(tmp_path / "flight")),
        )
    )
    introspection.make_recovery = lambda: recovery
    activate(introspection)

    yield introspection

    activate(None)
    introspection.stop()


@pytest.fixture(name="wanted")
def _wanted():
    return [True]


@pytest.fixture(name="arbiter")
def _arbiter(introspection, wanted, monkeypatch):
    monkeypatch.setattr(wrapped, "_PATIENCE", 0.0)
    is_wanted = lambda: wanted[0]  # noqa: E731 - as the instrumentor has it

    class Wrapped(Arbiter):
        __init__ = wrapped.initializing(Arbiter.__init__, is_wanted)
        reap_workers = wrapped.reaping(Arbiter.reap_workers)
        manage_workers = wrapped.managing(Arbiter.manage_workers, is_wanted)
        stop = wrapped.stopping(Arbiter.stop, is_wanted)

    arbiter = Wrapped()
    arbiter.WORKERS = {1: "worker", 2: "worker"}
    return arbiter


def children_end():
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            assert status == 0
        time.sleep(0.01)


def test_an_arbiter_recovers_nothing_by_itself(arbiter, introspection):
    """
    From its beginning the arbiter's own process opens no connection that its workers would share.
    """
    assert introspection.recovers is False
    assert not introspection.recover_soon()


def test_a_worker_that_has_gone_is_recovered_in_a_child(arbiter, recovery):
    """
    After a worker has been reaped a child of the arbiter's, and one only, sees to what it left.
    """
    arbiter.manage_workers()
    assert recovery.processes == []
    arbiter.reap_workers()
    arbiter.manage_workers()
    arbiter.manage_workers()
    children_end()

    (process,) = recovery.processes
    assert int(process) != os.getpid()
    assert arbiter.calls == ["manage", "reap", "manage", "manage"]


def test_no_child_where_nothing_is_left(arbiter, recovery, monkeypatch):
    """
    Where another worker was quicker nobody is forked.
    """
    recovery.needed = False
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))

    arbiter.reap_workers()
    arbiter.manage_workers()

    assert recovery.processes == []


def test_a_machine_without_processes_left(arbiter, recovery, monkeypatch):
    """
    A fork that fails is counted, and the arbiter goes on.
    """

    def fork():
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", fork)
    arbiter.reap_workers()
    arbiter.manage_workers()

    assert faults.counts["failed", "forking to recover what a worker has left"] == 1


def test_a_fault_does_not_reach_the_arbiter(arbiter, recovery, monkeypatch):
    """
    Whatever is broken, the arbiter manages and stops its workers.
    """
    monkeypatch.setattr(recovery, "is_needed", lambda: 1 / 0)

    arbiter.reap_workers()
    arbiter.manage_workers()
    arbiter.stop()

    assert arbiter.calls == ["reap", "manage", ("stop", True)]
    assert faults.counts["failed", "recovering what a worker has left"] == 1


def test_a_stopped_arbiter_recovers_before_it_ends(arbiter, recovery):
    """
    With its workers gone the arbiter itself sees to what they left, before it goes on to its end.
    """
    arbiter.stop(graceful=False)

    assert recovery.processes == [str(os.getpid())]
    assert arbiter.calls == [("stop", False)]


def test_switched_off(arbiter, recovery, wanted):
    """
    After uninstrument() what is left of the wrapping does nothing.
    """
    wanted[0] = False

    arbiter.reap_workers()
    arbiter.manage_workers()
    arbiter.stop()

    assert recovery.processes == []
