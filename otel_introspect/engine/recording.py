"""A recording: the samples of one request, as a tree of calls with the time spent in each, in bounded memory.

What is wanted: a sample costs the sampled thread next to nothing, a request of ten minutes needs no more memory than
one of thirty seconds, and what was seen when is still known at the end.

What does not work: keeping each sample, as a stack of sixty frames is 2 kB, a thousand times a second; resolving lines
where the sample is taken, which costs the request ten times what the sample does.

So: whoever takes a sample puts down the bare stack and the time, and goes on. The introspector's thread *folds* that
in: a node for each call of a line by another, and a list of runs, which node for how long. When there are too many
runs, the older half loses its order, or all do if that does not help, never their times; when there are too many nodes,
new calls count for their callers.

Time belongs to the sample at its end, as in pyinstrument. But where that sample is much later than it should be, nobody
could look: the time in between is a *gap*, and belongs to what was on the stack both before and after.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from types import CodeType, FrameType
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

from otel_introspect.engine.native import allocate_lock

_A = TypeVar("_A")
_B = TypeVar("_B")

RawStack = Sequence[Any]
"""Code object, ``f_lasti``, code object, ``f_lasti``, ...: innermost frame first. A list, as it is cheapest to make."""

MAX_FRAMES: Final = 256
"""Of one sample; beyond that the outer ones are left out."""
# With these, a recording stays below 1 MiB; a slow Django request has some hundred of each.
MAX_NODES: Final = 3_000
MAX_RUNS: Final = 4_000
_MAX_SPECIAL_NODES: Final = 700
_LEAST_FREED: Final = 250
_MAX_DISTINCT_FRAMES: Final = 1_200
_MAX_POSITIONS: Final = 2_000
_MAX_PENDING: Final = 100
_MAX_PENDING_WORDS: Final = 4_000
# Of the whole process; a function has some twenty entries.
_MAX_LINE_TABLES: Final = 300
_MAX_LINE_ENTRIES: Final = 8_000
_FOLD_SECONDS: Final = 0.5
_ROOT: Final = 0
# Frames that stand for none: their line says which.
RUNNING: Final = 0
AWAITING: Final = 1
"""The stack is a task's chain of awaits: nothing of it ran."""
GAP: Final = 2
"""No sample could be taken."""
OMITTED: Final = 3
"""The outer frames of a stack that is deeper than ``MAX_FRAMES``."""


class Frame(NamedTuple):
    """One line of one function; without a code, one of ``AWAITING``, ``GAP`` and ``OMITTED``."""

    code: CodeType | None
    line: int


def raw_stack(frame: FrameType | None) -> list[Any]:
    """Put down *frame* and its callers."""
    flat: list[Any] = []
    append = flat.append
    while frame is not None:
        append(frame.f_code)
        append(frame.f_lasti)
        frame = frame.f_back
        if len(flat) >= 2 * MAX_FRAMES:
            break
    return flat


def line_of(code: CodeType, lasti: int) -> int:
    """The line of the instruction at *lasti* in *code*."""
    return _Lines.of(code).at(lasti)


class _Lines:
    """The lines of one code object, by position."""

    # The same requests are profiled again: made once, bounded, and each keeps its code so that the id stays its own.
    _made: ClassVar[dict[int, _Lines]] = {}
    _entries: ClassVar[int] = 0

    __slots__ = ("_code", "_lines", "_starts")

    def __init__(self, code: CodeType) -> None:
        self._code = code
        self._starts = array("i")
        self._lines = array("i")
        for start, _, line in code.co_lines():
            if line and not (self._lines and self._lines[-1] == line):
                self._starts.append(start)
                self._lines.append(line)

    @classmethod
    def of(cls, code: CodeType) -> _Lines:
        """Those of *code*."""
        made = cls._made.get(id(code))
        if made is None:
            if len(cls._made) >= _MAX_LINE_TABLES or cls._entries >= _MAX_LINE_ENTRIES:
                cls._made.clear()
                cls._entries = 0
            made = cls._made[id(code)] = cls(code)
            cls._entries += len(made._starts)
        return made

    def at(self, lasti: int) -> int:
        """The line of the instruction at *lasti*."""
        place = bisect_right(self._starts, lasti) - 1
        return self._lines[place] if place >= 0 else self._code.co_firstlineno


class Recording:
    """What was seen of one request so far.

    Args:
        started: When it began, in seconds by the sampler's clock.
    """

    def __init__(self, started: float) -> None:
        self.started: Final = started
        self.ended: float = started
        """When the last sample that has been folded in was taken."""
        self.latest = started
        """When a sample was put down last, folded in or not."""
        self.sample_count = 0
        self.gaps = 0.0
        """Seconds for which nobody could look."""
        self.is_full = False
        """Whether calls were counted for their callers, as there are too many different ones."""
        self._pending: deque[tuple[float, float, Sequence[RawStack] | None, int]] = deque()
        self._pending_words = 0
        self._folding = allocate_lock()
        # Nodes: parent and frame of each; 0 is the root. By parent and frame, which node that is.
        self._parents = array("i", [-1])
        self._frames = array("i", [-1])
        self._nodes: dict[int, int] = {}
        # Frames by number, and the number of each: by code and line, and, as that takes long, by code and position.
        self._table: list[Frame] = []
        self._numbers: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        # Runs: which node, for how long.
        self._run_nodes = array("i")
        self._run_seconds = array("d")
        self._last: tuple[int, ...] = ()
        # The stack before, and its nodes from the outside on.
        self._path_stack: RawStack = ()
        self._path_nodes: list[int] = []

    def add(self, at: float, longest: float, stacks: Sequence[RawStack] | None, state: int = RUNNING) -> None:
        """Put down a sample. From the thread that samples; may interrupt any code, ``fold`` among it.

        Args:
            at: When it was taken.
            longest: How long after the one before it may be; if it is later than that, there was a gap.
            stacks: Where the request was; several share the time. None: where it was before.
            state: ``RUNNING`` or ``AWAITING``.
        """
        self.latest = at
        self._pending.append((at, longest, stacks, state))
        if stacks is not None:
            self._pending_words += sum(map(len, stacks))
        # Usually the introspector has been here before.
        if len(self._pending) >= _MAX_PENDING or self._pending_words >= _MAX_PENDING_WORDS:
            self.fold()

    def fold(self) -> None:
        """Fold in what has been put down."""
        if not self._folding.acquire(blocking=False):
            return  # somebody is just at it
        try:
            self._fold_pending()
        finally:
            self._folding.release()

    def _fold_pending(self) -> None:
        pending, self._pending_words = self._pending, 0
        while pending:
            self._fold(*pending.popleft())

    def after_fork(self) -> None:
        """In a forked child the lock may be held by a thread that isn't there any more."""
        self._folding = allocate_lock()

    def _fold(self, at: float, longest: float, stacks: Sequence[RawStack] | None, state: int) -> None:
        seconds = at - self.ended
        if seconds < 0:
            return
        self.ended = at
        self.sample_count += 1
        before = self._last
        if stacks is not None or not before:
            self._last = tuple(self._node_of(stack, state) for stack in stacks or ()) or (_ROOT,)
        if seconds > longest:
            self.gaps += seconds
            # Nothing is known of what was there before the first one.
            both = reduce(self._common, (*before, *self._last)) if before else _ROOT
            self._note(self._special(both, GAP), seconds)
            return
        for node in self._last:
            self._note(node, seconds / len(self._last))

    def _note(self, node: int, seconds: float) -> None:
        if self._run_nodes and self._run_nodes[-1] == node:
            self._run_seconds[-1] += seconds
            return
        if len(self._run_nodes) >= MAX_RUNS:
            self._forget_order(MAX_RUNS // 2)
            if len(self._run_nodes) > MAX_RUNS - _LEAST_FREED:
                self._forget_order(MAX_RUNS)  # or it would be tried in vain with each sample
        self._run_nodes.append(node)
        self._run_seconds.append(seconds)

    def _forget_order(self, number: int) -> None:
        """Make one run of all runs of a node among the first *number*."""
        totals: dict[int, float] = {}
        for node, seconds in zip(self._run_nodes[:number], self._run_seconds[:number], strict=True):
            totals[node] = totals.get(node, 0.0) + seconds
        self._run_nodes = array("i", totals) + self._run_nodes[number:]
        self._run_seconds = array("d", totals.values()) + self._run_seconds[number:]

    def _node_of(self, stack: RawStack, state: int) -> int:
        # Most of a stack is as it was in the sample before: what is the same from the outside on has its nodes already.
        path, before = self._path_nodes, self._path_stack
        size, old_size = len(stack), len(before)
        is_cut = size >= 2 * MAX_FRAMES
        same = 0
        limit = 0 if is_cut else min(size, old_size, 2 * len(path))
        while (
            same < limit
            and stack[size - same - 1] == before[old_size - same - 1]
            and stack[size - same - 2] is before[old_size - same - 2]
        ):
            same += 2
        del path[same // 2 :]
        node = path[-1] if path else _ROOT
        if is_cut:
            node = self._special(_ROOT, OMITTED)
        nodes, positions = self._nodes, self._positions
        for index in range(size - same - 2, -1, -2):
            code, lasti = stack[index], stack[index + 1]
            number = positions.get(id(code) * 65_536 + lasti)
            if number is None:
                number = self._number_of(code, lasti)
            child = nodes.get(node << 20 | number) if number is not None else None
            if child is None:
                child = self._new_node(node, number)
                if child is None:
                    self.is_full = True
                    break
            node = child
            path.append(node)
        # What stands below the mark of a cut has other nodes than the same frames below the root.
        self._path_stack = () if is_cut else stack
        return node if state == RUNNING else self._special(node, state)

    def _number_of(self, code: CodeType, lasti: int) -> int | None:
        if len(self._table) >= _MAX_DISTINCT_FRAMES:
            return None  # also of a line that is known, perhaps: to find that out takes as long as all else
        line = line_of(code, lasti)
        key = id(code) << 32 | line
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._table)
            self._table.append(Frame(code, line))  # which keeps the code, so that its id stays its own
        if len(self._positions) < _MAX_POSITIONS:
            self._positions[id(code) * 65_536 + lasti] = number
        return number

    def _new_node(self, parent: int, number: int | None) -> int | None:
        if number is None or len(self._parents) >= MAX_NODES:
            return None
        return self._append(parent, number)

    def _append(self, parent: int, number: int) -> int:
        node = self._nodes[parent << 20 | number] = len(self._parents)
        self._parents.append(parent)
        self._frames.append(number)
        return node

    def _special(self, parent: int, kind: int) -> int:
        """The node below *parent* that stands for no frame; they have room of their own."""
        number = self._numbers.get(kind)
        if number is None:
            number = self._numbers[kind] = len(self._table)
            self._table.append(Frame(None, kind))
        node = self._nodes.get(parent << 20 | number)
        if node is None:
            if len(self._parents) >= MAX_NODES + _MAX_SPECIAL_NODES:
                self.is_full = True
                return parent
            node = self._append(parent, number)
        return node

    def _common(self, one: int, other: int) -> int:
        """The innermost node that is on both stacks."""
        above = set()
        while one > _ROOT:
            above.add(one)
            one = self._parents[one]
        while other > _ROOT and other not in above:
            other = self._parents[other]
        while other > _ROOT and self._table[self._frames[other]].code is None:
            other = self._parents[other]
        return max(other, _ROOT)

    def tree(self) -> Iterator[tuple[int, Frame]]:
        """The nodes from the first one below the root on: the parent of each, by number, and its frame.

        A parent comes before its children; the root has the number 0, the first of these 1.
        """
        parents, frames = self._settled(lambda: (self._parents[1:], self._frames[1:]))
        for parent, number in zip(parents, frames, strict=False):
            yield parent, self._table[number]

    def runs(self) -> Iterator[tuple[int, float]]:
        """Which node was seen for how many seconds, in the order in which that was.

        Who wants the tree, too, asks for that afterwards: somebody may still put down a sample in between.
        """
        nodes, seconds = self._settled(lambda: (self._run_nodes[:], self._run_seconds[:]))
        return zip(nodes, seconds, strict=False)

    def _settled(self, read: Callable[[], tuple[_A, _B]]) -> tuple[_A, _B]:
        """What *read* gives while nobody folds. Not from a POSIX signal handler."""
        # Not for ever: the collector may end a span whose profile this very thread is just folding.
        is_mine = self._folding.acquire(timeout=_FOLD_SECONDS)
        try:
            if is_mine:
                self._fold_pending()
            return read()
        finally:
            if is_mine:
                self._folding.release()

    def totals(self) -> dict[int, float]:
        """Which node was seen for how many seconds in all."""
        totals: dict[int, float] = {}
        for node, seconds in self.runs():
            totals[node] = totals.get(node, 0.0) + seconds
        return totals
