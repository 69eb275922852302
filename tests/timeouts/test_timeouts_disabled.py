"""The global switch, and the debugger."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest
from interruptions import FOREVER, LIMIT, Expired, in_thread, run_script, said, script, spin

from otel_introspect import Quota, timeout
from otel_introspect.timeouts import disable_timeouts, enable_timeouts


def limited():
    with timeout(LIMIT, Expired):
        time.sleep(3 * LIMIT)
        spin(0.01)
    return "not interrupted"


async def limited_task():
    async with timeout(LIMIT, Expired):
        await asyncio.sleep(3 * LIMIT)
    return "not interrupted"


@timeout(LIMIT, Expired)
def limited_generator():
    time.sleep(3 * LIMIT)
    yield "not interrupted"


WAYS = {
    "block": limited,
    "task": lambda: asyncio.run(limited_task()),
    "generator": lambda: next(limited_generator()),
    "thread": lambda: in_thread(limited),
}


@pytest.mark.parametrize("way", WAYS)
def test_disabled_limits_do_not_interrupt(way):
    """
    While limits are disabled nothing is interrupted, by whatever mechanism.
    """
    disable_timeouts()

    assert WAYS[way]() == "not interrupted"


@pytest.mark.parametrize(
    "enable", [enable_timeouts, partial(disable_timeouts, disabled=False)], ids=["enable", "disable(disabled=False)"]
)
@pytest.mark.parametrize("way", WAYS)
def test_enabled_limits_do(way, enable):
    """
    After limits were enabled again they interrupt again.
    """
    disable_timeouts()
    disable_timeouts()
    enable()

    with pytest.raises(Expired):
        WAYS[way]()


def test_disabled_limits_still_are_checked():
    """
    What is refused is refused also while limits are disabled.
    """
    disable_timeouts()

    with pytest.raises(ValueError, match=r"\S"), timeout(0):
        pass
    with pytest.raises(TypeError, match="exception"):
        timeout(1, 42)


def test_a_quota_that_is_used_up_raises_nothing_while_disabled():
    """
    Disabled means all: a quota that is gone does not keep the body from running.
    """
    quota = Quota(LIMIT)
    with pytest.raises(Expired), timeout(quota, Expired):
        time.sleep(FOREVER)
    disable_timeouts()
    with timeout(quota, Expired):
        begun = True

    assert begun


def test_a_decorated_function_looks_at_the_switch_when_it_is_called():
    """
    Disabling also concerns what was decorated before.
    """
    function = timeout(LIMIT, Expired)(lambda: time.sleep(3 * LIMIT))
    disable_timeouts()
    function()
    enable_timeouts()

    with pytest.raises(Expired):
        function()


def test_disabled_limits_write_nothing(spans):
    """
    What is not limited has not overrun anything.
    """
    disable_timeouts()
    with spans.current(), timeout(LIMIT, Expired):
        time.sleep(2 * LIMIT)

    assert spans.named().events == ()


SWITCH = script(
    """
    def limited():
        with timeout(0.05, Expired): time.sleep(0.3)
    say(outcome(limited))
    """
)


@pytest.mark.parametrize(("value", "expected"), [("true", "done"), ("false", "Expired"), ("", "Expired")])
def test_the_environment_disables(value, expected):
    """
    ``OTEL_PYTHON_INTROSPECT_TIMEOUTS_DISABLED=true`` disables all limits of a process.
    """
    found, _ = run_script(SWITCH, OTEL_PYTHON_INTROSPECT_TIMEOUTS_DISABLED=value)

    assert found == [[expected]]


def test_a_debugger_is_not_disturbed():
    """
    While a debugger is attached nothing is interrupted, which is said once; afterwards limits are in force again.
    """
    (found,), log = run_script(
        script(
            """
            import bdb

            class Debugger(bdb.Bdb):
                def user_line(self, frame): pass
                def user_return(self, frame, value): pass

            def limited():
                with timeout(0.05, Expired):
                    end = time.monotonic() + 0.3
                    while time.monotonic() < end:
                        time.sleep(0.01)
            def debugged():
                for _ in range(3):
                    limited()
                return "not interrupted"
            results = [Debugger().runcall(outcome, debugged)]
            sys.settrace(None)
            say(*results, outcome(limited))
            """
        )
    )

    assert found == ["not interrupted", "Expired"]
    assert len(said(log, "debugger")) == 1


def test_pdb_is_not_disturbed(tmp_path):
    """
    A program that stands at a breakpoint of pdb, or is stepped through, is not interrupted.
    """
    program = tmp_path / "program.py"
    program.write_text(
        script(
            """
            def limited():
                with timeout(0.2, Expired):
                    before = 1
                    time.sleep(0.5)
                    after = 2
                return "not interrupted"
            result = outcome(limited)
            print("RESULT", result, flush=True)
            """
        )
    )
    line = program.read_text().splitlines().index("        before = 1") + 1
    debug = f"""
import json, runpy, subprocess, sys
done = subprocess.run(
    [sys.executable, "-m", "pdb", {str(program)!r}],
    input="b {line}\\nc\\nn\\nn\\nn\\nc\\nq\\nq\\n", capture_output=True, text=True, timeout=60, check=False,
)
print(json.dumps([done.stdout, done.stderr]))
"""
    ((out, err),), _ = run_script(debug)

    assert "RESULT not interrupted" in out, (out, err)


def test_a_profiler_is_no_debugger():
    """
    A profile function, or a trace function that is no debugger's, changes nothing.
    """
    (found,), _ = run_script(
        script(
            """
            import cProfile
            def limited():
                with timeout(0.05, Expired): time.sleep(20)
            def tracer(frame, event, arg): return tracer
            results = [cProfile.Profile().runcall(outcome, limited)]
            sys.settrace(tracer)
            results.append(outcome(limited))
            sys.settrace(None)
            say(*results)
            """
        )
    )

    assert found == ["Expired", "Expired"]
