"""pyinstrument's own profiler, by option."""

from __future__ import annotations

import asyncio
import cProfile
import sys
import time

import pytest

from otel_introspect import faults
from otel_introspect.profiling.pyinstrument_engine import CallHook


def busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(100))


def names(session):
    return {each.split("\0")[0] for frames, _ in session.frame_records for each in frames}


def test_it_sees_the_calls():
    """
    What is called between start and stop is in the session, which says what it is about.
    """
    hook = CallHook.start(0.001)
    busy(0.1)
    hook.stop()
    hook.stop()
    session = hook.session("GET /report")

    assert "busy" in names(session)
    assert session.target_description == "GET /report"
    assert session.sample_count > 10
    assert sys.getprofile() is None


def test_somebody_else_s_profile_function_stays():
    """
    Where somebody profiles already there is no second one.
    """

    def profile_function(*_):
        pass

    sys.setprofile(profile_function)
    try:
        assert CallHook.start(0.001) is None
        assert sys.getprofile() is profile_function
    finally:
        sys.setprofile(None)


def test_cprofile_stays():
    """
    The same for cProfile, which on newer versions has no profile function.
    """
    profile = cProfile.Profile()
    profile.enable()
    try:
        assert CallHook.start(0.001) is None
        busy(0.01)
    finally:
        profile.disable()

    assert any(getattr(entry.code, "co_name", "") == "busy" for entry in profile.getstats())


def test_one_at_a_time():
    """
    Of two on one thread the second is refused, and the first goes on.
    """
    hook = CallHook.start(0.001)
    assert CallHook.start(0.001) is None
    busy(0.05)
    hook.stop()

    assert "busy" in names(hook.session(""))


def test_what_was_not_stopped_has_no_session():
    """
    Where pyinstrument fails to stop, that is our fault, counted, and there is no profile.
    """

    class Broken:
        def stop(self):
            raise RuntimeError("broken")

    hook = CallHook(Broken())
    hook.stop()

    assert faults.counts["failed", "stopping pyinstrument's profiler"] == 1
    with pytest.raises(RuntimeError, match="could not be stopped"):
        hook.session("")


def test_what_does_not_start_is_none(monkeypatch):
    """
    A pyinstrument that can't start costs the profile, not the request.
    """
    from pyinstrument import Profiler

    def broken(self):
        raise RuntimeError("broken")

    monkeypatch.setattr(Profiler, "start", broken)

    assert CallHook.start(0.001) is None
    assert faults.counts["failed", "starting pyinstrument's profiler"] == 1


def test_another_task_is_not_seen():
    """
    Of two requests on one loop only the one that was begun is profiled; what it waits for says so.
    """

    async def own():
        hook = CallHook.start(0.001)
        for _ in range(5):
            busy(0.01)
            await asyncio.sleep(0.01)
        hook.stop()
        return hook.session("")

    async def other():
        for _ in range(5):
            other_work()
            await asyncio.sleep(0.01)

    def other_work():
        busy(0.01)

    async def main():
        session, _ = await asyncio.gather(own(), other())
        return session

    found = names(asyncio.run(main()))

    assert "busy" in found
    assert "[await]" in found
    assert "other_work" not in found
