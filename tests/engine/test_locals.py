"""Local variables of other threads' frames: which are taken, how often, and what that does to whoever owns them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_introspect import faults
from otel_introspect.engine import locals as locals_module
from otel_introspect.engine.locals import MAX_FRAMES, MAX_VARIABLES, LocalsTaker, TakenLocals, elements
from otel_introspect.engine.locals_admission import Admission
from otel_introspect.engine.places import GreenletPlace, TaskPlace, ThreadPlace, look
from otel_introspect.engine.stack_text import utf8_length
from otel_introspect.engine.stacks import capture, current_frames, outwards, positions_of, trimmed

IS_SHARED = sys.version_info < (3, 13)


@contextlib.contextmanager
def untraced():
    """What begins in here is not traced, as up to 3.12 that would not be read; and coverage traces."""
    before = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(before)


class Stuck:
    """A thread that runs a function, which waits until it is told to go on."""

    def __init__(self, function, *arguments):
        self.waits, self.goes_on = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(function, *arguments))

    def _run(self, function, *arguments):
        try:
            with untraced():
                function(self, *arguments)
        except BaseException as error:  # noqa: BLE001 - to be looked at where the test is
            self.error = error

    def wait(self):
        self.waits.set()
        assert self.goes_on.wait(20)
        self.goes_on.clear()

    def __enter__(self):
        self.thread.start()
        assert self.waits.wait(20)
        return self

    def __exit__(self, *_):
        self.goes_on.set()
        self.thread.join(20)
        assert self.error is None

    def go_on(self):
        """To where it waits next."""
        self.waits.clear()
        self.goes_on.set()
        assert self.waits.wait(20)

    def taken(self, clock) -> TakenLocals | None:
        sighting = look(ThreadPlace(self.thread.ident), current_frames(), LocalsTaker(clock=clock).take)
        return sighting.locals


def of(taken: TakenLocals, name: str) -> list[str]:
    """What is shown of the function called *name*."""
    taken.resolve()
    (lines,) = [lines for lines in taken.shown if lines[0].split(" (")[0].rpartition(".")[2].endswith(name)]
    return [line.strip() for line in lines[1:]]


def working(stuck, number):
    word = "a" * number
    stuck.wait()
    return word


def calling(stuck):
    total = 1.5
    working(stuck, 3)
    return total


def test_variables_of_a_thread(clock):
    """
    Each frame of the application has its place and its variables, innermost first, as in the stack.
    """
    with Stuck(calling) as stuck:
        sighting = look(ThreadPlace(stuck.thread.ident), current_frames(), LocalsTaker(clock=clock).take)
    sighting.locals.resolve()
    shown = [lines for lines in sighting.locals.shown if "working (" in lines[0] or "calling (" in lines[0]]
    first = working.__code__.co_firstlineno

    assert shown[0][0] == f"in working ({__file__}:{first + 2})"
    assert shown[0][2:] == ("    number = 3", "    word = 'aaa'")
    assert shown[1][0].startswith("in calling (")
    assert shown[1][2:] == ("    total = 1.5",)
    assert [code.co_name for code, _ in sighting.capture.positions if code in (working.__code__, calling.__code__)] == [
        "working",
        "calling",
    ]


def test_variables_of_a_library_are_not_taken(clock):
    """
    Frames of the standard library, which the stack shows, have no variables.
    """
    with Stuck(calling) as stuck:
        taken = stuck.taken(clock)
    taken.resolve()

    assert all(__file__ in lines[0] for lines in taken.shown)


def test_frames_and_variables_are_bounded(clock):
    """
    Only so many frames have theirs, and only so many variables of each.
    """
    source = "\n".join(
        ["def many(stuck):", *(f"    v{i} = {i}" for i in range(40)), "    deep(stuck, 30)", "    return v0"]
    )

    def deep(stuck, depth):
        return deep(stuck, depth - 1) if depth else stuck.wait()

    namespace = {"deep": lambda stuck, _depth: stuck.wait()}
    exec(compile(source, "/srv/many.py", "exec"), namespace)
    with Stuck(namespace["many"]) as stuck:
        lines = of(stuck.taken(clock), "many")
    with Stuck(deep, 30) as stuck:
        clock.advance(1000)
        taken = stuck.taken(clock)
    taken.resolve()

    assert len(lines) == MAX_VARIABLES + 1
    assert lines[-1] == f"[{41 - MAX_VARIABLES} more not shown]"
    assert len(taken.shown) == MAX_FRAMES


class Noticed:
    """Can be seen to go."""


def test_nothing_is_kept_alive(clock):
    """
    No frame is held once they are taken, and no value once it is shown.
    """
    gone = []

    def holding(stuck):
        noticed = Noticed()
        gone.append(weakref.ref(noticed))
        stuck.wait()

    with Stuck(holding) as stuck:
        taken = stuck.taken(clock)
    held = gone[0]() is not None
    taken.resolve()

    assert held
    assert gone[0]() is None


def test_what_the_function_lets_go_of_goes(clock):
    """
    A variable that is deleted or set anew after it was taken goes at once, not at the end of the function.
    """
    gone = []

    def letting_go(stuck):
        noticed, other = Noticed(), Noticed()
        gone.extend([weakref.ref(noticed), weakref.ref(other)])
        stuck.wait()
        del noticed
        other = None
        stuck.wait()
        return other

    with Stuck(letting_go) as stuck:
        stuck.taken(clock).resolve()
        stuck.go_on()
        after = [each() for each in gone]

    assert after == [None, None]


def test_who_goes_through_its_own_variables_is_left_alone(clock):
    """
    A function that uses ``locals()`` has what it has got, and is not made to fail; where that is shared it is not read.
    """
    seen = []

    def going_through(stuck):
        first = 1
        for name in locals():
            seen.append(name)
            if len(seen) == first:
                stuck.wait()

    with Stuck(going_through) as stuck:
        lines = of(stuck.taken(clock), "going_through")

    assert sorted(seen) == ["first", "seen", "stuck"]
    assert lines[0].startswith("[not read: the function uses locals()") is IS_SHARED


def test_a_comprehension_in_the_place_of_a_shared_variable(tmp_path):
    """
    Reading a function that is in a comprehension over a name that it shares with a closure does not end the process.
    """
    source = """
        import sys, threading
        from otel_introspect.engine.locals import LocalsTaker
        from otel_introspect.engine.places import ThreadPlace, look
        from otel_introspect.engine.stacks import current_frames

        def shared(waits, goes_on):
            n = 1000
            closure = lambda: n
            seen = [(waits.set(), goes_on.wait(20), n) for n in range(1)]
            return n + closure()

        waits, goes_on = threading.Event(), threading.Event()
        thread = threading.Thread(target=shared, args=(waits, goes_on))
        thread.start()
        waits.wait(20)
        taken = look(ThreadPlace(thread.ident), current_frames(), LocalsTaker().take).locals
        taken.resolve()
        goes_on.set()
        print(taken.shown)
    """
    path = tmp_path / "shared.py"
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    assert "in shared (" in done.stdout


def test_what_a_callee_has_of_its_caller_s_stays(clock):
    """
    Where somebody else holds a frame's variables, as a logger or a template may, they are not emptied under them.
    """
    found = []

    def callee(stuck):
        mine = sys._getframe(1).f_locals
        stuck.wait()
        found.append(dict(mine))

    def caller(stuck):
        value = 5
        callee(stuck)
        return value

    with Stuck(caller) as stuck:
        taken = stuck.taken(clock)
        lines = of(taken, "caller")

    assert "value = 5" in lines
    assert found[0]["value"] == 5


def test_who_asks_later_has_all_variables(clock):
    """
    A function whose variables we have read is asked for them by others as if we had not.
    """
    frames = []

    def function(stuck):
        value = 5
        frames.append(sys._getframe())
        stuck.wait()
        return value

    with Stuck(function) as stuck:
        stuck.taken(clock)
        again = dict(frames[0].f_locals)
        frames.clear()

    assert again["value"] == 5
    assert again["stuck"] is stuck


def test_what_others_keep_among_a_frame_s_variables_stays(clock):
    """
    Who has put something of their own there finds it again; whatever its name is, it is not asked for anything.
    """
    touched = []

    class Name(str):
        __slots__ = ()

        def startswith(self, *_):
            touched.append(self)

        def __eq__(self, other):
            touched.append(self)
            return False

        def __hash__(self):
            touched.append(self)
            return 5

    frames = []

    def function(stuck):
        frames.append(sys._getframe())
        if IS_SHARED:
            sys._getframe().f_locals[Name("own")] = 1
        sys._getframe().f_locals["more"] = 2
        touched.clear()
        stuck.wait()

    with Stuck(function) as stuck:
        lines = of(stuck.taken(clock), "function")
        kept = frames[0].f_locals["more"]
        frames.clear()

    assert touched == []
    assert kept == 2
    assert "more = 2" in lines


def test_bodies_of_modules_and_classes_are_not_read(clock):
    """
    There the variables are the namespace itself, and what is in it is not one request's.
    """
    taken = []

    def run(stuck):
        exec(
            compile("class Body:\n    inside = 1\n    stuck.wait()\n", "/srv/body.py", "exec"),
            {"stuck": stuck, "secretive": 1},
        )

    with Stuck(run) as stuck:
        found = stuck.taken(clock)
        found.resolve()
        taken.extend(found.shown)

    assert not [lines for lines in taken if "/srv/body.py" in lines[0]]


def test_what_is_traced_is_not_read(clock):
    """
    A debugger writes through the dictionary that reading fills, up to 3.12; so its frames are left to it.
    """

    def traced(stuck):
        sys._getframe().f_trace = lambda *_: None
        stuck.wait()

    with Stuck(traced) as stuck:
        lines = of(stuck.taken(clock), "traced")

    assert lines[0].startswith("[not read") is IS_SHARED


def taken_again_and_again(thread, seconds=0.5):
    """What is taken from *thread*, which is switched to and from as often as can be."""
    taker = LocalsTaker()
    taker._admission.admits = lambda _seen: True
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sighting = look(ThreadPlace(thread.ident), current_frames(), taker.take)
            if sighting is not None and sighting.locals is not None:
                sighting.locals.resolve()
                yield sighting.locals.shown
    finally:
        sys.setswitchinterval(interval)


def test_a_running_thread_s_variables_are_not_touched():
    """
    A function that computes all the while computes the same, however often its variables are read meanwhile.
    """
    stop, wrong, rounds = threading.Event(), [], []

    def computing():
        count, cell = 0, 0

        def inner():
            nonlocal cell
            cell += 1

        while not stop.is_set():
            before = count
            count += 1
            inner()
            if count != before + 1 or cell != count:
                wrong.append((count, before, cell))
        rounds.append(count)

    def run():
        with untraced():
            computing()

    thread = threading.Thread(target=run)
    thread.start()
    seen = []
    try:
        for shown in taken_again_and_again(thread):
            lines = [line for each in shown if "computing (" in each[0] for line in each[1:]]
            seen += [int(line.rpartition(" ")[2]) for line in lines if line.startswith("    count = ")]
    finally:
        stop.set()
        thread.join()

    assert wrong == []
    assert seen == sorted(seen)
    assert rounds[0] >= seen[-1] > 0


def telling(*_):
    return sum(range(100)) and None


def telling_of_its_caller(frame, *_):
    frame = frame.f_back
    return sum(range(100)) and None


@pytest.mark.parametrize(
    ("tell", "by"),
    [(sys.settrace, telling), (sys.setprofile, telling), (sys.setprofile, telling_of_its_caller)],
    ids=["trace function", "profile function", "one that has let go of the frame"],
)
def test_a_function_that_is_told_of_from_outside_keeps_its_variables(tell, by):
    """
    What is taken while a trace or a profile function is told of a function is not missing in that function afterwards.
    """
    stop, errors = threading.Event(), []

    def callee(first, second):
        third = abs(first)
        return third + max(first, second)

    def run():
        tell(by)
        while not stop.is_set():
            try:
                callee(1, 2)
            except (UnboundLocalError, TypeError) as error:
                errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        read = sum(any("callee (" in lines[0] for lines in shown) for shown in taken_again_and_again(thread))
    finally:
        stop.set()
        thread.join()

    assert errors == []
    assert read


def test_a_frame_that_has_gone_on_is_left_out(clock):
    """
    Variables that are not of the same moment as the stack are not shown beside it, and are counted.
    """
    frames = list(outwards(sys._getframe()))
    positions = [(code, lasti + 2) for code, lasti in positions_of(frames)]
    taken = LocalsTaker(clock=clock).take(frames, positions, trimmed(positions), ())

    assert taken is None
    assert faults.counts["dropped", "locals: the frame has gone on"] >= 1


def test_a_task_that_is_parked(clock):
    """
    Of a task that waits the variables of its own coroutines are taken, and of no other's.
    """

    async def inner(amount):
        await asyncio.sleep(20)
        return amount

    async def outer():
        wanted = 7
        await inner(wanted + 1)

    async def other():
        unwanted = 9
        await asyncio.sleep(20)
        return unwanted

    async def main():
        tasks = [asyncio.create_task(outer()), asyncio.create_task(other())]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sighting = look(TaskPlace(tasks[0], threading.get_ident()), current_frames(), LocalsTaker(clock=clock).take)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return sighting

    with untraced():
        sighting = asyncio.run(main())
    sighting.locals.resolve()

    assert sighting.task_state == "awaiting"
    assert [lines[1] for lines in sighting.locals.shown] == ["    amount = 8", "    wanted = 7"]


def test_a_greenlet_that_is_switched_out(clock):
    """
    Of a greenlet that waits the variables are those of where it was left.
    """
    greenlet = pytest.importorskip("greenlet")
    places = []

    def waiting():
        inside = 11
        places.append(GreenletPlace(greenlet.getcurrent(), 1))
        greenlet.getcurrent().parent.switch()
        return inside

    made = greenlet.greenlet(waiting)
    with untraced():
        made.switch()
        sighting = look(places[0], current_frames(), LocalsTaker(clock=clock).take)
        made.switch()

    assert sighting.task_state == "switched_out"
    assert "inside = 11" in of(sighting.locals, "waiting")


def stack():
    return capture(outwards(sys._getframe()))


def test_once_a_second(clock):
    """
    A process takes them once a second at most, whatever is slow; what is refused is counted.
    """
    admission = Admission(clock)
    first, second = stack(), stack()

    assert admission.admits(first)
    clock.advance(999)
    assert not admission.admits(second)
    clock.advance(1)
    assert admission.admits(second)
    assert faults.counts["refused", "locals: more than one in a second"] == 1


def test_once_an_hour_for_each_stack(clock):
    """
    A stack that has had them within the hour has none, and does not keep others from having theirs.
    """
    admission = Admission(clock)
    stacks = [stack() for _ in range(2)]

    assert [admission.admits(each) for each in stacks if not clock.advance(1000)] == [True, False]
    other = stack()
    assert admission.admits(other)
    clock.advance(3_598_000)
    assert not admission.admits(stacks[0])
    clock.advance(2_000)
    assert admission.admits(stacks[0])
    assert faults.counts["refused", "locals: this stack had them within the hour"] == 2


def test_only_so_many_stacks_are_remembered(clock, monkeypatch):
    """
    The memory of stacks does not grow, however many different ones there are.
    """
    monkeypatch.setattr("otel_introspect.engine.locals_admission._MAX_STACKS", 3)
    admission = Admission(clock)
    stacks = [stack(), stack(), stack(), stack(), stack()]
    for each in stacks:
        clock.advance(1000)
        assert admission.admits(each)

    assert len(admission._stacks) == 3


def test_time_is_bounded(clock, monkeypatch):
    """
    When the time is over the rest says that it is not shown, and is let go of.
    """
    monkeypatch.setattr(locals_module, "SECONDS", 0)
    with Stuck(calling) as stuck:
        taken = stuck.taken(clock)
    lines = of(taken, "working")

    assert lines == ["[out of time: 3 more not shown]"]
    assert faults.counts["dropped", "locals: out of time"] >= 1


def test_much_of_everything_stays_within_the_time(clock):
    """
    Ten frames, full of large and nested values, take no longer than all of them may.
    """

    def full(stuck, depth):
        a = [{"x": [{"y": [1] * 50} for _ in range(50)]} for _ in range(50)]
        b = "password=x " * 10_000_000
        c = {f"k{i}": {f"l{j}": "z" * 5000 for j in range(20)} for i in range(200)}
        d, e, f, g, h = a, b, c, [a, b, c], (a, b, c)
        if depth:
            return full(stuck, depth - 1)
        stuck.wait()
        return a, b, c, d, e, f, g, h

    with Stuck(full, 2) as stuck:
        taken = stuck.taken(clock)
        began = time.perf_counter()
        taken.resolve()
        took = time.perf_counter() - began

    assert len(taken.shown) >= 3
    assert took < 0.3


def test_an_application_s_del_is_run_once_and_harms_nobody(clock):
    """
    Where ours is the last reference the object goes once it is shown, and what its ``__del__`` raises is nobody's.
    """
    told, gone = [], []

    class Raising:
        def __del__(self):
            gone.append(threading.get_ident())
            raise ValueError

    def holding(stuck):
        raising = Raising()
        stuck.wait()
        return raising is None

    hook, sys.unraisablehook = sys.unraisablehook, told.append
    try:
        with Stuck(holding) as stuck:
            taken = stuck.taken(clock)
        assert gone == []
        taken.resolve()
    finally:
        sys.unraisablehook = hook

    assert gone == [threading.get_ident()]
    assert len(told) == 1
    told.clear()


texts = st.lists(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=120), min_size=1, max_size=12), max_size=6
)


@settings(max_examples=200, deadline=None)
@given(texts, st.integers(64, 2500), st.integers(-10, 5000))
def test_they_fit_into_any_room(given_texts, max_bytes, room):
    """
    No text is longer than it may be, all together have room, and where something is missing the text says so.
    """
    taken = TakenLocals([], LocalsTaker()._redaction)
    taken.shown = tuple((f"in f{i} (f:1)", *(f"    {line}" for line in lines)) for i, lines in enumerate(given_texts))
    made = elements(taken, max_bytes, room)

    assert all(utf8_length(each) <= max_bytes for each in made)
    assert sum(map(utf8_length, made)) <= max(room, 0)
    for text, lines in zip(made, taken.shown, strict=False):
        assert text.startswith(lines[0])
        assert text == "\n".join(lines) or "more not shown whole]" in text
        text.encode("utf-8")


def test_who_does_not_ask_has_none():
    """
    Without somebody who takes variables a sighting has none.
    """
    assert look(ThreadPlace(threading.get_ident()), current_frames()).locals is None
