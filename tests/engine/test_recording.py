"""A recording: time is never lost and never goes to the wrong call, in bounded memory."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import types
import weakref
from collections import defaultdict
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_introspect.engine import recording as module
from otel_introspect.engine.recording import (
    AWAITING,
    GAP,
    MAX_FRAMES,
    MAX_NODES,
    MAX_RUNS,
    OMITTED,
    RUNNING,
    Recording,
    line_of,
    raw_stack,
)

TICK = 0.001
NEVER = 1e9
"""Seconds: no sample is so late that it was a gap."""


@cache
def functions(number, lines=3):
    """Code objects of *number* functions with so many lines each."""
    body = "".join(f"    x = x + {line}\n" for line in range(lines))
    source = "".join(f"def f{each}(x):\n{body}" for each in range(number))
    return [each for each in compile(source, "app.py", "exec").co_consts if isinstance(each, types.CodeType)]


@cache
def positions(code):
    """One position on each line of *code*, by line, from the first on."""
    starts = {line: start for start, _, line in reversed(list(code.co_lines())) if line}
    return [starts[line] for line in sorted(starts)]


def stack(*names):
    """A raw stack of functions, named outermost first: a number, or a number and the line within it."""
    flat = []
    for name in reversed(names):
        number, line = name if isinstance(name, tuple) else (name, 1)
        code = functions(40)[number]
        flat += [code, positions(code)[line]]
    return flat


def paths(recording):
    """Seconds by path from the outside on: names of functions; what stands for none, by its number."""
    known = [()]
    for parent, frame in recording.tree():
        name = frame.line if frame.code is None else frame.code.co_name
        known.append((*known[parent], name))
    found = defaultdict(float)
    for node, seconds in recording.totals().items():
        found[known[node]] += seconds
    return dict(found)


def structure(recording):
    """Seconds by path, lines included."""
    known = [()]
    for parent, frame in recording.tree():
        known.append((*known[parent], (frame.code and frame.code.co_name, frame.line)))
    found = defaultdict(float)
    for node, seconds in recording.totals().items():
        found[known[node]] += seconds
    return {path: pytest.approx(seconds) for path, seconds in found.items()}


def recorded(*samples, longest=NEVER):
    """A recording from 0 on, of samples that are each a time and stacks."""
    recording = Recording(0.0)
    for at, *stacks in samples:
        recording.add(at, longest, stacks)
    return recording


# What samples can be.

names = st.integers(0, 5) | st.tuples(st.integers(0, 5), st.integers(0, 2))
plain_stacks = st.lists(names, max_size=8).map(lambda each: stack(*each))
deep_stacks = st.tuples(st.lists(names, max_size=3), st.integers(MAX_FRAMES - 2, MAX_FRAMES + 2)).map(
    lambda each: stack(*(each[0] + [7] * each[1])[:MAX_FRAMES])
)
stacks_ = plain_stacks | plain_stacks | deep_stacks
samples = st.tuples(
    st.floats(-0.01, 0.5),
    st.sampled_from([0.002, 0.06, NEVER]),
    st.none() | st.lists(stacks_, max_size=3),
    st.sampled_from([RUNNING, AWAITING]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(samples, max_size=40))
def test_no_time_is_lost_and_none_is_made_up(taken):
    """
    Whatever comes, the time of all nodes is the time from the start to the latest sample.
    """
    recording, now, latest = Recording(10.0), 10.0, 10.0
    for after, longest, stacks, state in taken:
        now += after
        recording.add(now, longest, stacks, state)
        latest = max(latest, now)

    assert sum(recording.totals().values()) == pytest.approx(latest - 10.0)
    assert sum(seconds for _, seconds in recording.runs()) == pytest.approx(latest - 10.0)
    assert recording.ended == pytest.approx(latest)
    assert recording.gaps <= latest - 10.0 + 1e-9


class Unhurried(Recording):
    """A recording that looks up each stack from the outside on."""

    def _node_of(self, stack, state):
        self._path_stack, self._path_nodes = (), []
        return super()._node_of(stack, state)


@settings(max_examples=150, deadline=None)
@given(st.lists(samples, max_size=40), st.sampled_from([5, 12, MAX_NODES]), st.sampled_from([4, 9, 1_000]))
def test_the_stack_before_is_a_shortcut_only(taken, most_nodes, most_frames):
    """
    Starting from what a stack has in common with the one before gives the same tree, full or not, cut or not.
    """
    trees = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_NODES", most_nodes)
        patch.setattr(module, "_MAX_DISTINCT_FRAMES", most_frames)
        for kind in (Recording, Unhurried):
            recording, now = kind(0.0), 0.0
            for after, longest, stacks, state in taken:
                now += after
                recording.add(now, longest, stacks, state)
            trees.append((structure(recording), recording.is_full, list(recording.tree())))

    assert trees[0] == trees[1]


def test_the_outermost_call_comes_first():
    """
    The tree begins with the outermost call, and each call is below its caller.
    """
    recording = recorded((TICK, stack(0, 1, 2)))

    assert [(parent, frame.code.co_name) for parent, frame in recording.tree()] == [(0, "f0"), (1, "f1"), (2, "f2")]
    assert paths(recording) == {("f0", "f1", "f2"): pytest.approx(TICK)}


def test_equal_stacks_are_one_node():
    """
    A stack that comes again, with others in between, is where it was.
    """
    recording = recorded((1, stack(0, 1)), (2, stack(0, 2)), (3, stack(0, 1)), (4, stack(0)), (5, stack(0, 1)))

    assert len(list(recording.tree())) == 3
    assert paths(recording) == {("f0", "f1"): 3, ("f0", "f2"): 1, ("f0",): 1}


def test_two_instructions_of_one_line_are_one_node():
    """
    What is told apart is the line, not the instruction.
    """
    code = functions(40)[0]
    first, second = positions(code)[1:3]
    between = next(place for place in range(first + 2, second, 2))
    recording = recorded((1, [code, first]), (2, [code, between]), (3, [code, second]))

    assert [frame.line for _, frame in recording.tree()] == [line_of(code, first), line_of(code, second)]


def test_the_order_is_kept():
    """
    Runs say what came when, and one that goes on is one.
    """
    recording = recorded((1, stack(0)), (2, stack(0)), (3, stack(1)), (4, stack(0)))

    assert list(recording.runs()) == [(1, 2.0), (2, 1.0), (1, 1.0)]


def test_what_has_not_moved_needs_no_stack():
    """
    A sample without a stack is where the one before was; the first one without is nowhere.
    """
    recording = Recording(0.0)
    recording.add(1, NEVER, None)
    recording.add(2, NEVER, [stack(0, 1)])
    recording.add(4, NEVER, None)

    assert paths(recording) == {(): 1, ("f0", "f1"): 3}
    assert recording.sample_count == 3


def test_several_stacks_share_the_time():
    """
    Work that goes on on several threads at once takes no more than the time that passes.
    """
    recording = recorded((1, stack(0, 1), stack(0, 2)))

    assert paths(recording) == {("f0", "f1"): 0.5, ("f0", "f2"): 0.5}


def test_a_sample_from_before_the_last_one_counts_for_nothing():
    """
    Two threads may take samples at the same time, and put them down in the wrong order.
    """
    recording = recorded((2, stack(0)), (1, stack(1)), (3, stack(0)))

    assert paths(recording) == {("f0",): 3}


def test_an_awaiting_task_has_a_node_of_its_own():
    """
    The time in which a task waits is told from that in which it runs at the same line.
    """
    recording = Recording(0.0)
    recording.add(1, NEVER, [stack(0, 1)], AWAITING)
    recording.add(3, NEVER, [stack(0, 1)])

    assert paths(recording) == {("f0", "f1", AWAITING): 1, ("f0", "f1"): 2}


# Gaps.


def test_a_gap_belongs_to_what_was_there_before_and_after():
    """
    Where nobody could look, the time is that of what is on both stacks, in a node that says so, and of nobody else.
    """
    recording = recorded((0.01, stack(0, 1, 2)), (1.01, stack(0, 1, 3)), (1.02, stack(0, 1, 3)), longest=0.06)

    assert paths(recording) == {
        ("f0", "f1", "f2"): pytest.approx(0.01),
        ("f0", "f1", GAP): pytest.approx(1.0),
        ("f0", "f1", "f3"): pytest.approx(0.01),
    }
    assert recording.gaps == pytest.approx(1.0)


def test_a_gap_at_the_start_is_nobody_s():
    """
    What was there before the first sample is not known: what it shows has not been seen all that time.
    """
    recording = recorded((1.0, stack(0, 1)), longest=0.06)

    assert paths(recording) == {(GAP,): 1.0}


def test_a_gap_between_stacks_with_nothing_in_common_is_nobody_s():
    """
    Where the two stacks share no call, the gap is below none.
    """
    recording = recorded((0.01, stack(0, 1)), (1.01, stack(2, 1)), longest=0.06)

    assert paths(recording)[(GAP,)] == pytest.approx(1.0)


def test_a_gap_while_several_threads_work_belongs_to_what_all_share():
    """
    Where the request was at work on several threads, none of these alone has the gap.
    """
    recording = recorded((0.01, stack(0, 1), stack(0, 2)), (1.01, stack(0, 1), stack(0, 3)), longest=0.06)

    assert paths(recording)["f0", GAP] == pytest.approx(1.0)


def test_a_gap_beside_awaiting_is_not_below_it():
    """
    A gap is below a call, not below what stands for none.
    """
    recording = Recording(0.0)
    for at in (0.01, 1.01):
        recording.add(at, 0.06, [stack(0, 1)], AWAITING)

    assert paths(recording) == {("f0", "f1", AWAITING): pytest.approx(0.01), ("f0", "f1", GAP): pytest.approx(1.0)}


# Bounds.


def test_the_outer_frames_of_a_stack_that_is_too_deep_are_left_out():
    """
    A mark stands for them, and its calls are not mixed up with those of whole stacks.
    """
    recording = recorded((1, stack(*[7] * MAX_FRAMES)), (2, stack(*[7] * (MAX_FRAMES - 1))), (3, stack(7)))

    found = paths(recording)
    assert found[(OMITTED, *["f7"] * MAX_FRAMES)] == 1
    assert found[("f7",) * (MAX_FRAMES - 1)] == 1
    assert found[("f7",)] == 1


def test_a_raw_stack_is_bounded():
    """
    A recursion is taken down as far as there is room, from the inside.
    """

    def recurse(depth):
        return recurse(depth - 1) if depth else raw_stack(sys._getframe())

    taken = recurse(MAX_FRAMES + 20)

    assert len(taken) == 2 * MAX_FRAMES
    assert set(taken[::2]) == {recurse.__code__}
    assert raw_stack(None) == []


def test_when_it_is_full_time_goes_to_callers(monkeypatch):
    """
    What there is no node for counts for the innermost caller that has one; known calls go on as before.
    """
    monkeypatch.setattr(module, "MAX_NODES", 4)
    recording = recorded(
        (1, stack(0, 1, 2)), (2, stack(0, 1, 3)), (3, stack(0, 4, 5)), (4, stack(6)), (5, stack(0, 1, 2))
    )

    assert paths(recording) == {("f0", "f1", "f2"): 2, ("f0", "f1"): 1, ("f0",): 1, (): 1}
    assert recording.is_full


def test_when_there_are_too_many_lines_time_goes_to_callers(monkeypatch):
    """
    As with too many nodes.
    """
    monkeypatch.setattr(module, "_MAX_DISTINCT_FRAMES", 2)
    recording = recorded((1, stack(0, 1)), (2, stack(0, 2)), (3, stack(0, 1)))

    assert paths(recording) == {("f0", "f1"): 2, ("f0",): 1}
    assert recording.is_full


def test_when_it_is_full_gaps_and_waiting_still_say_so(monkeypatch):
    """
    What stands for no call has room of its own, and counts for its caller only when that is used up, too.
    """
    monkeypatch.setattr(module, "MAX_NODES", 3)
    monkeypatch.setattr(module, "_MAX_SPECIAL_NODES", 2)
    recording = Recording(0.0)
    recording.add(0.01, 0.06, [stack(0, 1)])
    recording.add(1.01, 0.06, [stack(0, 2)])
    recording.add(1.02, 0.06, [stack(0, 1)], AWAITING)
    recording.add(1.03, 0.06, [stack(0, 2)], AWAITING)

    assert paths(recording) == {
        ("f0", "f1"): pytest.approx(0.01),
        ("f0", GAP): pytest.approx(1.0),
        ("f0", "f1", AWAITING): pytest.approx(0.01),
        ("f0",): pytest.approx(0.01),
    }


def test_too_many_runs_lose_their_order_not_their_time():
    """
    The older half of the runs is summed up, the younger keeps its order.
    """
    recording = Recording(0.0)
    number = MAX_RUNS + 10
    for each in range(number):
        recording.add((each + 1) * TICK, NEVER, [stack(each % 3)])
    runs = list(recording.runs())

    assert len(runs) < number
    assert [node for node, _ in runs[-100:]] == [each % 3 + 1 for each in range(number - 100, number)]
    assert paths(recording) == {(f"f{each}",): pytest.approx(number * TICK / 3, abs=2 * TICK) for each in range(3)}


def test_runs_of_many_different_nodes_are_bounded_at_a_bounded_price(monkeypatch):
    """
    Where the older half has no two runs alike, all are summed up, instead of trying again with each sample.
    """
    tried = []
    forget = Recording._forget_order
    monkeypatch.setattr(Recording, "_forget_order", lambda self, number: (tried.append(1), forget(self, number)))
    recording = Recording(0.0)
    codes = functions(MAX_NODES - 100, 1)
    for each in range(3 * MAX_RUNS):
        recording.add((each + 1) * TICK, NEVER, [[codes[each % 1_100], 0, codes[each % 2], 0]])
    recording.fold()

    assert len(list(recording.runs())) <= MAX_RUNS
    assert len(tried) < 3 * MAX_RUNS / 100
    assert sum(recording.totals().values()) == pytest.approx(3 * MAX_RUNS * TICK)


def worst(seconds):
    """The most that is allocated while distinct deep stacks come for so long, at an interval that ages."""
    codes = functions(2_000, 12)
    recording = Recording(0.0)
    module._Lines._made.clear()
    module._Lines._entries = 0
    now, turn, pause, full_rate = 0.0, 0, TICK, 2_000 * TICK
    gc.collect()
    tracemalloc.start()
    try:
        while now < seconds:
            now += pause if turn % 301 else 0.1
            while now > full_rate:
                pause, full_rate = 2 * pause, 2 * full_rate
            flat = []
            for depth in range(50):
                code = codes[(turn * 17 + depth * 31 + turn * depth) % len(codes)]
                places = positions(code)
                # As a frame gives it: a number of its own for each.
                flat += [code, int(str(places[(turn + depth) % len(places)]))]
            recording.add(now, 0.06, [flat], turn % 2)
            turn += 1
        return tracemalloc.get_traced_memory()[1], recording
    finally:
        tracemalloc.stop()


def test_memory_is_bounded():
    """
    In the worst case a recording takes less than 1 MiB, its lines and what waits to be folded in included, and ten
    minutes take no more than thirty seconds.
    """
    for code in functions(2_000, 12):
        positions(code)
    short, recording = worst(30)
    long, _ = worst(600)

    assert recording.is_full
    assert short < 2**20
    assert long < 2**20
    assert long < short * 1.1


def test_what_was_put_down_is_bounded_without_anybody_who_folds():
    """
    Where the introspector does not come, whoever puts down samples folds them in now and then.
    """
    recording = Recording(0.0)
    for each in range(1_000):
        recording.add((each + 1) * TICK, NEVER, [stack(*range(20))])

        assert len(recording._pending) <= 100

    assert recording.latest == pytest.approx(1.0)


# Who is at it at the same time.


def test_a_sample_that_comes_while_folding_is_not_lost():
    """
    The alarm's handler may interrupt the folding of the very recording to which it adds.
    """

    class Interrupted(Recording):
        interruptions = 0

        def _node_of(self, stack_, state):
            if self.interruptions < 250:
                self.interruptions += 1
                self.add(self.latest + TICK, NEVER, [stack(0, self.interruptions % 3)])
            return super()._node_of(stack_, state)

    recording = Interrupted(0.0)
    recording.add(TICK, NEVER, [stack(0, 1)])
    recording.fold()

    assert recording.sample_count == 251
    assert sum(recording.totals().values()) == pytest.approx(251 * TICK)


def test_reading_while_the_same_thread_folds_does_not_hang(monkeypatch):
    """
    The collector may end a span while its own profile is being folded, and that one's text is then asked for.
    """
    monkeypatch.setattr(module, "_FOLD_SECONDS", 0.01)
    recording = recorded((1, stack(0, 1)))
    recording.fold()
    recording._folding.acquire()

    assert list(recording.runs()) == [(2, 1.0)]
    assert len(list(recording.tree())) == 2


def test_a_forked_child_can_fold():
    """
    A lock that was held while forking is another one in the child.
    """
    recording = recorded((1, stack(0, 1)))
    recording._folding.acquire()
    recording.after_fork()

    assert paths(recording) == {("f0", "f1"): 1}


def test_no_frame_and_no_local_is_kept_alive():
    """
    A recording holds code objects only.
    """

    class Big:
        pass

    def request(recording):
        local = Big()
        recording.add(TICK, NEVER, [raw_stack(sys._getframe())])
        return weakref.ref(local)

    recording = Recording(0.0)
    reference = request(recording)
    recording.fold()
    gc.collect()

    assert reference() is None
    reached, rest = set(), [recording]
    while rest:
        each = rest.pop()
        if id(each) not in reached and not isinstance(each, (types.CodeType, types.ModuleType, type)):
            reached.add(id(each))
            assert not isinstance(each, (types.FrameType, types.FunctionType)), each
            rest += gc.get_referents(each)


def test_the_line_of_a_position():
    """
    Before its first instruction a frame is at the line on which its function begins.
    """
    code = functions(40)[0]

    assert line_of(code, -1) == code.co_firstlineno
    assert [line_of(code, start) for start in positions(code)] == sorted({line for *_, line in code.co_lines() if line})
    for start, _, line in code.co_lines():
        assert line is None or line_of(code, start) == line


def test_the_lines_of_functions_that_went_are_let_go():
    """
    What is remembered of the lines of all functions is bounded.
    """
    for code in functions(2_000, 12):
        line_of(code, 0)

    assert len(module._Lines._made) <= module._MAX_LINE_TABLES
    assert sum(len(each._starts) for each in module._Lines._made.values()) < module._MAX_LINE_ENTRIES + 100
