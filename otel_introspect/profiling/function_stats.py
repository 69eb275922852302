"""What ``pstats`` and all that reads its files want to know: the time of each function and of each call between two.

pyinstrument has a renderer for it. It counts a recursive function once for each level, so that it takes more time than
there was, and leaves out ``[await]``: that time would be its caller's own.
"""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from otel_introspect.engine.stack_text import one_line
from otel_introspect.profiling.renderable import identifier_of, parts_of, whole_stack

if TYPE_CHECKING:
    from pyinstrument.session import Session

Function = tuple[str, int, str]
"""File, line and name, as cProfile has it."""
Times = tuple[int, int, float, float]
"""Calls (twice), seconds in the function itself, seconds in it and all that it calls."""
Stats = dict[Function, tuple[int, int, float, float, dict[Function, Times]]]

NO_SAMPLES: Final = ("~", 0, "[no samples]")
"""The only function of an empty profile: ``pstats`` does not load a file without any."""

_NO_FILE: Final = "~"  # as cProfile says it
# Nobody has counted. pyinstrument's own files have this number too.
_CALLS: Final = -1
_SELF: Final = "[self]"


def function_stats(session: Session) -> Stats:
    """The time of each function, and by whom it was called; each function counts once in each sample."""
    own: dict[Function, float] = {}
    total: dict[Function, float] = {}
    edges: dict[Function, dict[Function, list[float]]] = {}
    for stack, seconds in _functions(session):
        innermost = stack[-1]
        for function in dict.fromkeys(stack):
            own.setdefault(function, 0.0)
            total[function] = total.get(function, 0.0) + seconds
        own[innermost] += seconds
        for caller, function in dict.fromkeys(pairwise(stack)):
            times = edges.setdefault(function, {}).setdefault(caller, [0.0, 0.0])
            times[1] += seconds
        if len(stack) > 1:
            edges[innermost][stack[-2]][0] += seconds
    if not own:
        return {NO_SAMPLES: (0, 0, 0.0, 0.0, {})}
    return {
        function: (
            _CALLS,
            _CALLS,
            own[function],
            total[function],
            {caller: (_CALLS, _CALLS, times[0], times[1]) for caller, times in edges.get(function, {}).items()},
        )
        for function in own
    }


def pstats_file(session: Session) -> bytes:
    """A file for ``pstats.Stats``."""
    return marshal.dumps(function_stats(session))


def _functions(session: Session) -> list[tuple[list[Function], float]]:
    """Each distinct stack as functions, without what only led to where the profiler was started."""
    totals: dict[tuple[str, ...], float] = {}
    for stack, seconds in session.frame_records:
        key = tuple(identifier_of(frame) for frame in whole_stack(stack))
        if key and key[-1] == _SELF:
            key = key[:-1]
        if key:
            totals[key] = totals.get(key, 0.0) + seconds
    stem = _stem_length(list(totals), tuple(map(identifier_of, session.start_call_stack)))
    return [([_function(frame) for frame in stack[stem:]], seconds) for stack, seconds in totals.items()]


def _stem_length(stacks: Sequence[tuple[str, ...]], start: tuple[str, ...]) -> int:
    """How many frames all samples begin with that were there when the profiler was started, all but the last."""
    length = len(start)
    for stack in stacks:
        while stack[:length] != start[:length]:
            length -= 1
    return max(length - 1, 0)


def _function(frame: str) -> Function:
    name, file, line = parts_of(frame)
    # pstats prints them as they are.
    return (one_line(file) or _NO_FILE, line, one_line(name))
