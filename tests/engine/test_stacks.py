"""Captures of stacks."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from otel_introspect.engine import stacks
from otel_introspect.engine.stacks import MAX_DEPTH, Capture, capture, current_frames, outwards


def names(stack: Capture) -> list[str]:
    return [code.co_name for code, _ in stack.positions]


def test_innermost_frame_comes_first():
    """
    A capture begins with the frame that is running and goes outwards.
    """

    def inner():
        return capture(outwards(sys._getframe()))

    def outer():
        return inner()

    assert names(outer())[:2] == ["inner", "outer"]


def test_depth_is_bounded_and_outer_frames_go():
    """
    Of a deep stack the innermost frames are kept, and the rest is counted.
    """

    def deep(n):
        return deep(n - 1) if n else capture(outwards(sys._getframe()))

    stack = deep(300)

    assert len(stack.positions) == MAX_DEPTH
    assert set(names(stack)) == {"deep"}
    assert stack.omitted >= 300 - MAX_DEPTH


def test_no_frame_and_no_local_variable_is_kept_alive():
    """
    What a function had in its hands is freed although its stack was captured.
    """

    class Precious:
        pass

    def holder():
        precious = Precious()
        return capture(outwards(sys._getframe())), weakref.ref(precious)

    stack, reference = holder()
    gc.collect()

    assert reference() is None
    assert "holder" in names(stack)


def test_identical_stacks_are_told_from_others():
    """
    Two captures are the same if every frame is at the same instruction, not only in the same function.
    """

    def here():
        return [capture(outwards(sys._getframe())) for _ in range(2)]

    def there():
        first = capture(outwards(sys._getframe()))
        return first, capture(outwards(sys._getframe()))

    one, other = here()
    assert one.same_as(other)
    assert one.key() == other.key()
    one, other = there()
    assert not one.same_as(other)
    assert not one.same_as(None)


def run_as(filename: str, body: str, namespace: dict[str, object]):
    """Define a function whose code claims to come from *filename*."""
    exec(compile(body, filename, "exec"), namespace)
    return namespace["run"]


def test_what_lies_outside_an_adapter_of_ours_is_trimmed():
    """
    The request's code begins inside our middleware: the server and the framework's handler around it are left out.
    """
    adapter = stacks.__file__.replace("engine/stacks.py", "instrumentation/django/middleware.py")

    def view():
        return capture(outwards(sys._getframe()))

    middleware = run_as(adapter, "def run(): return call()", {"call": view})

    def server():
        return middleware()

    assert names(server()) == ["view"]


@pytest.mark.parametrize(
    "file", ["django/span_guard.py", "django/templatetags/timelimit.py", "gunicorn/arbiter.py", "exits.py"]
)
def test_what_is_ours_and_no_doorway_trims_nothing(file):
    """
    Ours around OpenTelemetry's middleware, around the whole worker, or called by the application is no doorway.
    """
    guard = stacks.__file__.replace("engine/stacks.py", f"instrumentation/{file}")

    def view():
        return capture(outwards(sys._getframe()))

    middleware = run_as(guard, "def run(): return call()", {"call": view})

    def server():
        return middleware()

    assert names(server())[:2] == ["view", "server"]


@pytest.mark.parametrize(
    "filename",
    [
        "/srv/venv/lib/python3.12/site-packages/gunicorn/workers/sync.py",
        "/srv/venv/lib/python3.12/site-packages/uvicorn/server.py",
        "/usr/lib/python3.11/threading.py",
        "/usr/lib/python3.11/asyncio/runners.py",
        "/usr/lib/python3.10/socketserver.py",
    ],
)
def test_the_server_s_outermost_frames_are_trimmed(filename):
    """
    Where no adapter of ours is on the stack, the server is told by where its code lies.
    """
    library = "/srv/venv/lib/python3.12/site-packages/flask/app.py"
    frames = []

    def application():
        frames.extend(outwards(sys._getframe()))

    inner = run_as(library, "def run(): return call()", {"call": application})
    server = run_as(filename, "def run(): return call()", {"call": inner})
    server()

    assert names(capture(frames[:3])) == ["application", "run"]


def test_a_thread_that_only_runs_server_code_is_shown_as_it_is():
    """
    A server that sends to a slow client has no application frame to show, so its own are.
    """
    frames = []
    filename = "/srv/venv/lib/python3.12/site-packages/gunicorn/util.py"
    run_as(filename, "def run(): note()", {"note": lambda: frames.extend(outwards(sys._getframe(1)))})()

    assert names(capture(frames[:1])) == ["run"]


def test_the_collector_is_off_while_frames_are_taken(monkeypatch):
    """
    Up to 3.11 taking frames may deadlock with the collector (python/cpython#106883), which is back on afterwards.
    """
    seen = []
    monkeypatch.setattr(stacks, "_COLLECTOR_CAN_DEADLOCK", True)
    monkeypatch.setattr(sys, "_current_frames", lambda: seen.append(gc.isenabled()) or {})

    current_frames()

    assert seen == [False]
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off(monkeypatch):
    """
    Who has switched the collector off does not find it on because a stack was taken.
    """
    monkeypatch.setattr(stacks, "_COLLECTOR_CAN_DEADLOCK", True)
    gc.disable()
    try:
        current_frames()

        assert not gc.isenabled()
    finally:
        gc.enable()


def test_no_other_thread_is_walked_without_the_gil(monkeypatch):
    """
    On a free-threaded build with the GIL off, nobody's frames are touched.
    """
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    monkeypatch.setattr(sys, "_current_frames", lambda: pytest.fail("frames were taken"))

    assert current_frames() == {}
