"""Captures: a stack as bounded pairs of code and position, which keep no frame and no local variable alive."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import CodeType, FrameType
from typing import Final, NamedTuple

from otel_introspect.engine.ownership import is_doorway, is_ours, is_surroundings

MAX_DEPTH: Final = 128
# A runaway recursion is not counted to its end.
MAX_COUNTED: Final = 10_000

Position = tuple[CodeType, int]
"""A code object and ``f_lasti`` in it. Never hash it: a code object's hash and equality read all its contents."""


class Capture(NamedTuple):
    """One stack, innermost frame first.

    Args:
        positions: At most ``MAX_DEPTH`` of them.
        omitted: How many outer frames were left out beyond those.
    """

    positions: tuple[Position, ...]
    omitted: int = 0

    def same_as(self, other: Capture | None) -> bool:
        """Whether both show the identical stack, down to the instruction."""
        return (
            other is not None
            and self.omitted == other.omitted
            and len(self.positions) == len(other.positions)
            and all(
                mine[0] is theirs[0] and mine[1] == theirs[1]
                for mine, theirs in zip(self.positions, other.positions, strict=True)
            )
        )

    def key(self) -> tuple[tuple[int, int], ...]:
        """What is equal for identical stacks, as long as the capture lives: to group by."""
        return tuple((id(code), lasti) for code, lasti in self.positions)


def outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """*frame*, its caller, and so on."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def capture(frames: Iterable[FrameType]) -> Capture:
    """Take down *frames*, which come innermost first, without those that are ours or the server's.

    The request's code begins inside the outermost frame of an adapter of ours, if there is one: what lies outside it is
    the server, the framework's handler and OpenTelemetry. Elsewhere the server is told by where its code comes from.
    """
    return trimmed(positions_of(frames))


def positions_of(frames: Iterable[FrameType]) -> list[Position]:
    """Take down *frames* as they are."""
    return [(frame.f_code, frame.f_lasti) for frame in islice(frames, MAX_COUNTED)]


def trimmed(positions: Sequence[Position]) -> Capture:
    """The capture that consists of *positions*, innermost first; see ``capture``."""
    doorways = [place for place, (code, _) in enumerate(positions) if is_doorway(code.co_filename)]
    inside = positions[: doorways[-1]] if doorways else []
    kept = [each for each in inside if not is_ours(each[0].co_filename)]
    if not kept:
        kept = [each for each in positions if not is_ours(each[0].co_filename)]
        end = len(kept)
        while end and is_surroundings(kept[end - 1][0].co_filename):
            end -= 1
        # A thread that is in the server's own code all the way is shown as it is: sending to a slow client, say.
        kept = kept[:end] or kept
    return Capture(tuple(kept[:MAX_DEPTH]), max(0, len(kept) - MAX_DEPTH))


# sys._current_frames() can deadlock with the garbage collector up to 3.11 (python/cpython#106883).
_COLLECTOR_CAN_DEADLOCK: Final = sys.version_info < (3, 12)


def can_walk_other_threads() -> bool:
    """Whether other threads' frames may be touched: never while a free-threaded build runs them beside us."""
    gil_enabled = getattr(sys, "_is_gil_enabled", None)
    return gil_enabled is None or bool(gil_enabled())


def current_frames() -> dict[int, FrameType]:
    """The innermost frame of each thread; drop it soon, as each holds its local variables alive."""
    if not can_walk_other_threads():
        return {}
    if not _COLLECTOR_CAN_DEADLOCK or not gc.isenabled():
        return sys._current_frames()  # noqa: SLF001 - the documented way, despite its name
    gc.disable()
    try:
        return sys._current_frames()  # noqa: SLF001 - as above
    finally:
        gc.enable()


# Bounded, as the names in a dump are another process's, or a damaged file's.
_MAX_DESCRIBED: Final = 4096
_described: dict[tuple[str, int, str], CodeType] = {}


def described(frames: Iterable[tuple[str, int, str]]) -> Capture:
    """The capture of frames of which only file, line and function are known, innermost first; trimmed as any other.

    For each a code object is made that says so and is never run. Equal frames have the same, so that identical stacks
    are known for that.
    """
    return trimmed([(_code_of(*frame), 0) for frame in islice(frames, MAX_COUNTED)])


def _code_of(file: str, line: int, function: str) -> CodeType:
    key = (file, line, function)
    code = _described.get(key)
    if code is None:
        if len(_described) >= _MAX_DESCRIBED:
            _described.clear()
        # The bare name, as in any other stack, where the qualified one is known.
        name = function.rpartition(".")[2] or function
        code = _NOTHING.replace(co_filename=file, co_firstlineno=line, co_name=name)
        if sys.version_info >= (3, 11):
            code = code.replace(co_qualname=function)
        _described[key] = code
    return code


_NOTHING: Final = (lambda: None).__code__
