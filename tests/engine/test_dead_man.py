"""The dead-man's switch: what it writes, when it fires, and whose timer it is."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_introspect.engine import dead_man, faulthandler_timer
from otel_introspect.engine.dead_man import PERIOD, DeadManSwitch, parse_dump
from otel_introspect.engine.faulthandler_observer import FaulthandlerObserver, is_same_way
from otel_introspect.engine.faulthandler_timer import FaulthandlerTimer
from otel_introspect.engine.native import get_ident
from otel_introspect.engine.places import Stack, TaskPlace
from otel_introspect.engine.stack_text import resolve
from otel_introspect.engine.stacks import described

SECOND = 1_000_000_000
WRITTEN = b"""Timeout (0:00:01.500000)!
Thread 0x00007f6d36b296c0 (most recent call first):
  File "/app/views.py", line 12 in wait
  File "/app/m\\xe4in.py", line 6 in <module>

Thread 0x00007f6d36b296c1 [worker-1] (most recent call first):
  <no Python frame>

Current thread 0x00007F6D375C4B80 [a (most] (most recent call first):
  Garbage-collecting
  File "/app/a "b" line 3 in.py", line 9 in <lambda>
  File ???, line ??? in ???
  File "<string>", line 2 in \\u4e2d\\U0001f600
  ...
"""


class FakeTimer(FaulthandlerTimer):
    """Sets nothing; a test fires it by writing to the file."""

    def __init__(self) -> None:
        super().__init__()
        self.sets: list[tuple[float, int]] = []
        self.cancels = 0

    def follow(self, owner: object) -> None:
        if self._originals is None:
            self._followers.add(owner)
            self._originals = self._wrappers = (self._dump_later, self._cancel)

    def _dump_later(self, seconds: float, *, file: int) -> None:
        self.sets.append((seconds, file))

    def _cancel(self) -> None:
        self.cancels += 1

    def write(self, data: bytes) -> None:
        os.write(self.sets[-1][1], data)


@pytest.fixture(name="timer")
def _timer():
    return FakeTimer()


@pytest.fixture(name="make_switch")
def _make_switch(timer, clock):
    made = []

    def make_switch(**given: object) -> DeadManSwitch:
        made.append(DeadManSwitch(**{"threshold": SECOND, "idle": SECOND, "clock": clock, "timer": timer, **given}))
        return made[-1]

    yield make_switch

    for switch in made:
        switch.close()


def stack_of(thread_id: int, *frames: tuple[str, int, str]) -> bytes:
    lines = [f'  File "{file}", line {line} in {function}\n' for file, line, function in frames]
    return f"Timeout (0:00:02)!\nThread 0x{thread_id:016x} (most recent call first):\n{''.join(lines)}".encode()


# --- What is written -------------------------------------------------------------------------------------------------


def test_what_every_version_writes():
    """
    Threads with their frames are found in all that faulthandler writes from 3.10 to 3.14, escapes undone.
    """
    assert parse_dump(WRITTEN) == {
        0x7F6D36B296C0: [("/app/views.py", 12, "wait"), ("/app/mäin.py", 6, "<module>")],
        0x7F6D36B296C1: [],
        0x7F6D375C4B80: [
            ('/app/a "b" line 3 in.py', 9, "<lambda>"),
            ("???", 0, "???"),
            ("<string>", 2, "\u4e2d\U0001f600"),
        ],
    }


def test_what_this_python_writes():
    """
    What faulthandler says of a thread here and now are its innermost frames, by its own id.
    """
    switch = DeadManSwitch(threshold=SECOND, idle=SECOND)
    file = switch._file_to_write()
    faulthandler.dump_traceback(file=file)
    stacks = parse_dump(os.pread(file, 1_000_000, 0))
    switch.close()

    line = test_what_this_python_writes.__code__.co_firstlineno
    file_name, number, function = stacks[threading.get_ident()][0]
    assert (file_name, function) == (__file__, "test_what_this_python_writes")
    assert line < number < line + 10


def test_the_last_dump_counts():
    """
    Of several dumps in a file the last one counts, also after zeros and before a line that was cut short.
    """
    first = stack_of(1, ("/a.py", 1, "f"))
    second = b"\0\0\0" + stack_of(2, ("/b.py", 2, "g")) + b'  File "/c.py", line 3 in h'

    assert parse_dump(first + second) == {2: [("/b.py", 2, "g")]}


PIECES = [
    *[
        b"Timeout (0:00:02)!",
        b"Thread 0x",
        b"Current thread 0x",
        b" (most recent call first):",
        b"\n",
        b"  File ",
        b'"',
    ],
    *[b", line ", b" in ", b"???", b"  ...", b"\0", b"\\x", b"\\u", b"\\U", b"ffffffff", b"9" * 40, b"f" * 40, b"\xff"],
]


@given(st.binary(max_size=200) | st.lists(st.sampled_from(PIECES) | st.binary(max_size=8)).map(b"".join))
def test_nothing_upsets_the_parser(data):
    """
    Whatever bytes are in the file: nothing is raised, and what is found is bounded and can be shown.
    """
    stacks = parse_dump(data)

    for frames in stacks.values():
        text, _ = resolve(described(frames)).text(1_000)
        text.encode("utf-8")
    assert all(0 <= thread_id < 2**64 for thread_id in stacks)


@given(st.integers(0, len(WRITTEN)))
def test_a_dump_that_was_cut_short(length):
    """
    Of a dump that its process did not live to end, what is there is true.
    """
    whole = parse_dump(WRITTEN)

    for thread_id, frames in parse_dump(WRITTEN[:length]).items():
        assert frames == whole[thread_id][: len(frames)]


def test_a_dump_is_bounded():
    """
    However much there is in the file, a bounded part of it is kept.
    """
    frames = b'  File "/a.py", line 1 in f\n' * 100_000
    threads = b"".join(b"Thread 0x%x (most recent call first):\n" % number for number in range(10_000))

    assert len(parse_dump(b"Thread 0x1 (most recent call first):\n" + frames)[1]) == 256
    assert len(parse_dump(threads)) == 256
    assert parse_dump(b"Thread 0x1 (most recent call first):\n  File " + b'"' * 2_000_000) == {1: []}


def test_equal_stacks_are_known_for_that():
    """
    A stack of which only the text is known is resolved as any other, and is the same as one with the same text.
    """
    frames = [(__file__, 1, "innermost"), (__file__, 2, "<module>")]
    capture = described(frames)

    assert capture.same_as(described(frames))
    assert not capture.same_as(described(frames[1:]))
    text, _ = resolve(capture).text(1_000)
    assert text.splitlines()[0] == f'  File "{__file__}", line 2, in <module>'
    assert text.endswith("    " + Path(__file__).read_text(encoding="utf-8").splitlines()[0])


# --- When it fires ---------------------------------------------------------------------------------------------------


def test_it_is_put_off_once_a_second(make_switch, timer, clock):
    """
    However often the introspector comes round, the timer is set once a second, and it is to come at least as often.
    """
    switch = make_switch()
    for _ in range(300):
        assert switch.go_on(10_000_000) <= 10_000_000
        clock.advance(10)
    assert len(timer.sets) == 3

    assert switch.go_on(60 * SECOND) == PERIOD


@pytest.mark.parametrize("threshold", [50, 1_000, 10_000])
@pytest.mark.parametrize("started", [0, 1, 500, 999])
def test_a_request_is_past_its_threshold_when_it_fires(make_switch, timer, clock, threshold, started):
    """
    A request that keeps the GIL from its start is past its threshold when it fires, by 1.2 seconds at most.
    """
    switch = make_switch(threshold=threshold * 1_000_000)
    switch.go_on(PERIOD)
    elapsed = timer.sets[0][0] * 1_000 - started

    assert max(threshold, 1_000) < elapsed <= max(threshold, 1_000) + 1_200


def test_a_first_request_has_it_set(make_switch, timer, clock):
    """
    A request that starts after a while without any sets it itself, once, and the introspector takes over.
    """
    switch = make_switch()
    switch.begin()
    switch.begin()
    assert [seconds for seconds, _ in timer.sets] == [pytest.approx(1.6)]

    clock.advance(10)
    assert switch.go_on(SECOND) == 490_000_000
    clock.advance(490)
    assert switch.go_on(SECOND) == SECOND
    assert len(timer.sets) == 2


def test_a_request_waits_for_who_is_setting_it(make_switch, timer, monkeypatch):
    """
    A request that finds the introspector in the middle of setting it lets it, as that might not come to it otherwise.
    """
    switch = make_switch()
    begun, make_file = threading.Event(), switch._file_to_write

    def slowly():
        begun.set()
        time.sleep(0.01)
        return make_file()

    monkeypatch.setattr(switch, "_file_to_write", slowly)
    introspector = threading.Thread(target=switch.go_on, args=(SECOND,))
    introspector.start()
    begun.wait(10)
    switch.begin()
    introspector.join()

    assert switch.fires_at is not None
    assert len(timer.sets) == 1


def test_it_covers_the_introspector_s_sleep(make_switch, timer):
    """
    While nothing is open it does not fire before the introspector has slept as long as it may.
    """
    switch = make_switch(idle=10 * SECOND)

    assert switch.go_on(None) is None
    assert timer.sets[0][0] == pytest.approx(11.1)


def test_what_has_fired_is_taken_once(make_switch, timer, clock):
    """
    What was written is there when it is taken, and gone when it was emptied; taking it disarms the switch.
    """
    switch = make_switch()
    switch.go_on(None)
    timer.write(WRITTEN)
    first, cancels = switch.take(), timer.cancels
    switch.forget()

    assert first is not None
    assert first.stacks == parse_dump(WRITTEN)
    assert abs(first.taken - time.time_ns()) < 60 * SECOND
    assert cancels == 1
    assert switch.fires_at is None
    assert switch.take() is None


def test_it_pauses_when_it_fires_for_nothing(make_switch, timer, clock):
    """
    On a machine that is only busy it is off for ten seconds, then for twenty, until it fires rightly.
    """
    switch = make_switch()
    offs = []
    for useful in (False, False, True, False):
        switch.go_on(SECOND)
        if useful:
            switch.pause_no_more()
        else:
            before = clock.now
            switch.pause()
            while switch.go_on(SECOND) is not None and switch.fires_at is None:
                clock.advance(1_000)
            offs.append((clock.now - before) // SECOND)

    assert offs == [10, 20, 10]


def test_a_file_that_somebody_has_closed_is_not_written_to(make_switch, timer, clock, tmp_path):
    """
    Where the application closes all its files, what now has that number is let be, and the next dump has its own.
    """
    switch = make_switch()
    switch.go_on(SECOND)
    file = timer.sets[-1][1]
    os.close(file)
    other = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)
    os.write(other, b"theirs")
    clock.advance(1_000)
    switch.go_on(SECOND)
    taken = switch.take()
    switch.close()

    assert other == file
    assert timer.sets[-1][1] != file
    assert taken is None
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    os.close(other)


def test_a_file_by_name(make_switch, timer, clock, tmp_path):
    """
    A file that others are to find is this user's only, follows its name, and goes if there is nothing in it.
    """
    names = [tmp_path / "one.dump"]
    switch = make_switch(path=lambda: str(names[-1]))
    switch.go_on(SECOND)
    assert names[0].stat().st_mode & 0o777 == 0o600

    names.append(tmp_path / "two.dump")
    clock.advance(1_000)
    switch.go_on(SECOND)
    assert [each.exists() for each in names] == [False, True]

    timer.write(WRITTEN)
    switch.close()
    assert names[1].read_bytes() == WRITTEN


def test_a_directory_that_is_gone(make_switch, timer, tmp_path):
    """
    Where the file can't be made it has no name, and the living are served.
    """
    switch = make_switch(path=lambda: str(tmp_path / "gone" / "one.dump"))
    switch.go_on(SECOND)
    timer.write(WRITTEN)

    assert switch.take() is not None


def test_a_symbolic_link_is_not_followed(make_switch, timer, tmp_path):
    """
    A name that leads elsewhere is not written to.
    """
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "one.dump").symlink_to(tmp_path / "theirs")
    switch = make_switch(path=lambda: str(tmp_path / "one.dump"))
    switch.go_on(SECOND)
    timer.write(WRITTEN)

    assert (tmp_path / "theirs").read_bytes() == b"theirs"


# --- Whose timer it is -----------------------------------------------------------------------------------------------


def in_a_process(code: str, **environ: str) -> list[object]:
    """Run *code* where no pytest has the timer; what it shows."""
    script = (
        textwrap.dedent("""
        import faulthandler, gc, json, os, sys, tempfile, threading, time
        from otel_introspect.engine.faulthandler_timer import TIMER
        from otel_introspect.engine.dead_man import DeadManSwitch, parse_dump
        shown = []
        show = shown.append
        def a_file(): return os.open(tempfile.mkstemp()[1], os.O_RDWR | os.O_APPEND)
        def size(file): return os.fstat(file).st_size
        def until_written(*files):
            for _ in range(300):
                if any(map(size, files)): break
                time.sleep(0.1)
            time.sleep(0.3)
            return [bool(size(file)) for file in files]
        class Owner: pass
        mine = Owner()
        def there(): return faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later
        originals = there()
        def are_back(): return there() == originals
    """)
        + textwrap.dedent(code)
        + "\nprint(json.dumps(shown), flush=True)\n"
    )
    given = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**given, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.realtime
def test_a_timer_of_somebody_else_s_is_left_alone():
    """
    From somebody's call until they cancel ours stays away; theirs fires as if we were not there.
    """
    assert in_a_process("""
        theirs, ours = a_file(), a_file()
        TIMER.follow(mine)
        faulthandler.dump_traceback_later(0.5, file=theirs)
        show(TIMER.set(mine, 0.1, ours))
        TIMER.cancel(mine)
        show(until_written(theirs, ours))
        faulthandler.cancel_dump_traceback_later()
        show(TIMER.set(mine, 0.1, ours))
        show(until_written(ours))
        TIMER.leave(mine)
        show(are_back())
    """) == [False, [True, False], True, [True], True]


@pytest.mark.realtime
def test_a_timer_that_is_set_over_ours_wins():
    """
    Who sets it while ours is set has it; what was ours is then not cancelled under their hands.
    """
    assert in_a_process("""
        theirs, ours = a_file(), a_file()
        TIMER.follow(mine)
        show(TIMER.set(mine, 30, ours))
        faulthandler.dump_traceback_later(0.5, file=theirs)
        TIMER.cancel(mine)
        TIMER.leave(mine)
        show(until_written(theirs, ours))
        show(are_back())
    """) == [True, [True, False], True]


@pytest.mark.realtime
def test_a_call_that_fails_changes_nothing():
    """
    A wrong argument raises what it would without us, and the timer is as free as before.
    """
    assert in_a_process("""
        TIMER.follow(mine)
        try:
            faulthandler.dump_traceback_later(-1)
        except ValueError as error:
            show(str(error))
        show(TIMER.is_free)
        show(faulthandler.dump_traceback_later.__doc__ == originals[0].__doc__)
        TIMER.leave(mine)
    """) == ["timeout must be greater than 0", True, True]


@pytest.mark.realtime
@pytest.mark.parametrize("enabled", [False, True])
def test_a_timer_that_was_set_before_we_came(enabled):
    """
    One that was set before us is noticed by the file that it has; faulthandler being enabled is no timer.
    """
    assert in_a_process(f"""
        if {enabled}: faulthandler.enable()
        TIMER.follow(mine)
        show(TIMER.is_free)
        TIMER.leave(mine)
        faulthandler.dump_traceback_later(30)
        TIMER.follow(mine)
        show(TIMER.is_free)
        faulthandler.cancel_dump_traceback_later()
        show(TIMER.is_free)
    """) == [True, False, True]


@pytest.mark.realtime
def test_somebody_s_wrapping_is_kept():
    """
    What somebody has put over our functions stays, and hands on to what was there before us.
    """
    assert in_a_process("""
        TIMER.follow(mine)
        ours = faulthandler.dump_traceback_later
        theirs = lambda *args, **kwargs: ours(*args, **kwargs)
        faulthandler.dump_traceback_later = theirs
        TIMER.leave(mine)
        show(faulthandler.dump_traceback_later is theirs)
        TIMER.follow(mine)
        show(faulthandler.dump_traceback_later is theirs)
        faulthandler.dump_traceback_later(30)
        show(TIMER.is_free)
        faulthandler.cancel_dump_traceback_later()
        show(TIMER.is_free)
    """) == [True, True, False, True]


@pytest.mark.realtime
def test_under_pytest_it_is_pytest_s():
    """
    In a test it is pytest that may have set it, until it cancels.
    """
    before = faulthandler.dump_traceback_later
    timer = FaulthandlerTimer()
    timer.follow(timer)
    free = timer.is_free
    timer.leave(timer)

    assert "_pytest.faulthandler" in sys.modules
    assert not free
    assert faulthandler.dump_traceback_later is before


@pytest.mark.realtime
def test_a_child_that_is_forked_while_it_is_set_ends():
    """
    A child has no timer of its parent's to wait for: it can set its own, cancel it, and end; the parent's goes on.
    """
    assert in_a_process("""
        import signal
        ours = a_file()
        switch = DeadManSwitch(threshold=100_000_000, idle=100_000_000)
        TIMER.follow(mine)
        show(TIMER.set(mine, 1.5, ours))
        for what in range(3):
            child = os.fork()
            if not child:
                signal.alarm(20)
                own = a_file()
                if what:
                    done = [TIMER.is_set_by(mine), TIMER.set(mine, 0.1, own), until_written(own)]
                    if done != [False, True, [True]]: os._exit(1)
                if what == 2: TIMER.cancel(mine)
                sys.exit(0)
            show(os.waitpid(child, 0)[1])
        show(until_written(ours))
    """) == [True, 0, 0, 0, [True]]


@pytest.mark.realtime
def test_a_forked_child_has_a_file_of_its_own():
    """
    What is written in the child is not in its parent's file.
    """
    assert in_a_process("""
        import signal
        switch = DeadManSwitch(threshold=100_000_000, idle=100_000_000)
        switch.begin()
        before = switch._file
        child = os.fork()
        if not child:
            signal.alarm(20)
            switch.after_fork()
            try:
                os.fstat(before)
            except OSError:
                switch.begin()
                time.sleep(3)
                os._exit(0 if switch.take() else 3)
            os._exit(2)
        show(os.waitpid(child, 0)[1])
        switch.close()
        show(are_back())
    """) == [0, True]


def test_a_build_without_it(make_switch, timer, monkeypatch):
    """
    Where other threads must not be looked at, it is never set.
    """
    monkeypatch.setattr(dead_man, "is_supported", lambda: False)
    switch = make_switch()
    switch.begin()

    assert switch.go_on(SECOND) == SECOND
    assert timer.sets == []


def test_free_threading_is_such_a_build(monkeypatch):
    """
    With the GIL off the stacks are never still.
    """
    monkeypatch.setattr(faulthandler_timer, "can_walk_other_threads", lambda: False)

    assert not faulthandler_timer.is_supported()


# --- What is made of it ----------------------------------------------------------------------------------------------


@pytest.fixture(name="observing")
def _observing(tracing, make_switch, clock):
    tracing.switch = make_switch()
    tracing.observer = FaulthandlerObserver(tracing.switch, tracing.introspection.watchdog, clock)
    return tracing


def fire(tracing, timer, *stacks: bytes, late: float = 1_000) -> None:
    """Time passes until the timer has fired; the clock of the file is the test's."""
    fires_at = tracing.switch.fires_at
    tracing.clock.now = fires_at
    timer.write(stacks[0] + b"".join(each.split(b"\n", 1)[1] for each in stacks[1:]))
    file, at = timer.sets[-1][1], tracing.clock.wall()
    os.utime(file, ns=(at, at))
    tracing.clock.advance(late)


FRAMES = [("/app/pricing.py", 3, "total"), ("/app/views.py", 9, "view")]


def test_a_request_that_kept_the_gil(observing, timer):
    """
    A request whose thread is shown has a snapshot by faulthandler, timed when it was written, and is slow.
    """
    observing.switch.go_on(SECOND)
    span = observing.start()
    fire(observing, timer, stack_of(get_ident(), *FRAMES), late=5_000)
    observing.observer.before_look()
    observing.introspection.watchdog.look()
    span.end()

    (event,) = observing.events()
    assert event.timestamp == span.start_time + 2_100_000_000
    assert event.attributes["code.stacktrace"] == (
        '  File "/app/views.py", line 9, in view\n  File "/app/pricing.py", line 3, in total'
    )
    assert event.attributes["code.function.name"] == "total"
    assert event.attributes["code.line.number"] == 3
    assert event.attributes["thread.id"] == get_ident()
    assert event.attributes["otel_introspect.observer"] == "faulthandler"
    assert event.attributes["otel_introspect.elapsed_ms"] == 2_100
    assert event.attributes["otel_introspect.lateness_ms"] == 1_100
    assert event.attributes["otel_introspect.threshold_ms"] == 1_000
    assert event.attributes["otel_introspect.snapshot.index"] == 0
    assert event.attributes["otel_introspect.repeated"] == 1
    assert span.attributes["otel_introspect.slow"] is True
    assert span.attributes["otel_introspect.snapshots"] == 1
    assert observing.switch.take() is None


def test_it_takes_the_place_of_the_look_that_was_due(observing, timer):
    """
    There is no second snapshot of the look that was missed; the next one is the thread's at the next power of two.
    """
    observing.switch.go_on(SECOND)
    span = observing.start()
    fire(observing, timer, stack_of(get_ident(), *FRAMES), late=0)
    observing.observer.before_look()
    observing.introspection.watchdog.look()
    observing.look(1_900)
    span.end()

    assert [each.attributes["otel_introspect.observer"] for each in observing.events()] == ["faulthandler", "thread"]
    assert observing.events()[1].attributes["otel_introspect.elapsed_ms"] == 4_000


def test_a_second_dump_of_the_same_stack_is_repeated(observing, timer):
    """
    Identical stacks in a row say so, as those of other observers do.
    """
    span = observing.start()
    for _ in range(2):
        observing.switch.go_on(SECOND)
        fire(observing, timer, stack_of(get_ident(), *FRAMES), late=0)
        observing.observer.before_look()
    span.end()

    assert [each.attributes["otel_introspect.repeated"] for each in observing.events()] == [1, 2]


def test_a_request_below_its_threshold_gets_nothing(observing, timer):
    """
    A request that had just begun when it fired is not made slow by being on a thread that is shown.
    """
    observing.switch.go_on(SECOND)
    observing.clock.advance(1_500)
    span = observing.start()
    fire(observing, timer, stack_of(get_ident(), *FRAMES), late=100)
    observing.observer.before_look()
    observing.introspection.watchdog.look()
    span.end()

    assert observing.events() == []
    assert "otel_introspect.slow" not in span.attributes
    assert observing.switch._pauses_until > 0


def test_a_request_that_began_since_gets_nothing(observing, timer):
    """
    What had not begun when it fired is no part of what was written.
    """
    observing.switch.go_on(SECOND)
    fire(observing, timer, stack_of(get_ident(), *FRAMES), late=100)
    span = observing.start()
    observing.clock.advance(1_500)
    observing.observer.before_look()
    span.end()

    assert observing.events() == []


def test_another_thread_is_not_shown(observing, timer):
    """
    A request whose thread is not in the dump gets nothing from it; it is looked at by the thread as usual.
    """
    observing.switch.go_on(SECOND)
    span = observing.start()
    fire(observing, timer, stack_of(1, *FRAMES))
    observing.observer.before_look()
    observing.introspection.watchdog.look()
    span.end()

    assert [each.attributes["otel_introspect.observer"] for each in observing.events()] == ["thread"]


def test_a_request_that_ends_meanwhile_still_has_it(observing, timer, monkeypatch):
    """
    A request that ends while the file is read writes its snapshot itself, before its end.
    """
    observing.switch.go_on(SECOND)
    span = observing.start()
    fire(observing, timer, stack_of(get_ident(), *FRAMES))
    take = observing.switch.take

    def ends_meanwhile():
        other = threading.Thread(target=span.end)
        dump = take()
        other.start()
        return dump

    monkeypatch.setattr(observing.switch, "take", ends_meanwhile)
    observing.observer.before_look()
    for _ in range(1_000):
        if observing.exporter.get_finished_spans():
            break
        time.sleep(0.01)

    assert [each.attributes["otel_introspect.observer"] for each in observing.events()] == ["faulthandler"]


def test_it_is_off_while_slow_requests_are_looked_at(observing, timer):
    """
    Before what reads files it is disarmed: a slow disk is no request that keeps the GIL.
    """
    observing.switch.go_on(SECOND)
    span = observing.start()
    observing.clock.advance(990)
    observing.observer.before_look()
    assert observing.switch.fires_at is not None

    observing.clock.advance(20)
    observing.observer.before_look()
    assert observing.switch.fires_at is None
    span.end()


def test_a_fault_of_ours_costs_its_snapshot_only(observing, timer, monkeypatch):
    """
    Where the file can't be read the request is looked at as usual.
    """

    def broken():
        raise OSError

    observing.switch.go_on(SECOND)
    span = observing.start()
    fire(observing, timer, stack_of(get_ident(), *FRAMES))
    monkeypatch.setattr(observing.switch, "take", broken)
    observing.observer.before_look()
    observing.introspection.watchdog.look()
    span.end()

    assert [each.attributes["otel_introspect.observer"] for each in observing.events()] == ["thread"]


A, B, C, D = ("/a.py", 1, "a"), ("/b.py", 2, "b"), ("/c.py", 3, "c"), ("/d.py", 4, "d")


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ([C, B, A, D], [C, B, A], True),
        ([C, B, A, D], [("/c.py", 4, "c"), B, A], True),  # it has gone on by a line
        ([C, B, A, D], [B, A], True),  # it has come back from what kept the GIL
        ([C, B, A, D], [D, C, B, A], True),
        ([C, B, A, D], [("/b.py", 3, "b"), A], True),
        ([C, B, A, D], [C, ("/b.py", 3, "b"), A], False),  # another request, elsewhere in the same view
        ([C, B, A, D], [B, ("/a.py", 2, "a")], False),
        ([C, B, A], [D], False),
        ([C, B, A], [], False),
    ],
)
def test_whether_a_task_is_still_on_the_same_way(before, now, same):
    """
    A stack belongs to a task if the task's own frames are in it, the innermost apart.
    """
    assert is_same_way(before, now) is same


@pytest.mark.parametrize("state", [None, "awaiting", "running"])
def test_another_task_s_stack_is_never_shown(observing, timer, monkeypatch, state):
    """
    On a thread that tasks share, a task that does not run has no stack, and one that runs elsewhere neither.
    """
    observing.switch.go_on(SECOND)
    span = observing.start()
    place = TaskPlace.__new__(TaskPlace)
    seen = None if state is None else Stack([sys._getframe()], get_ident(), state)
    monkeypatch.setattr(TaskPlace, "stack", lambda *_args: seen)
    observing.introspection.table.relocate(span.context.span_id, place)
    fire(observing, timer, stack_of(get_ident(), *FRAMES))
    observing.observer.before_look()
    span.end()

    assert observing.events() == []


def test_no_descriptor_and_no_thread_is_left(make_switch):
    """
    However often it is made and closed, no file stays open.
    """
    gc.collect()
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0  # noqa: PTH208 - only counted
    for _ in range(50):
        switch = make_switch()
        switch.go_on(SECOND)
        switch.close()

    assert sys.platform != "linux" or len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above
