"""The local variables of the application's frames, taken at the same time as a stack and shown a moment later.

What is wanted: the variables of a request that is stuck, as they were at its snapshot, while its thread runs on.

What does not work: showing them while the frames are held, as that takes long enough for the frames to go on or to be
over, and for the request to end unseen; nor on the request's thread, which is not to pay for it; nor in the alarm's
handler, which is on that thread, too. So there are two steps. ``LocalsTaker.take`` copies names and references in some
microseconds and lets go of the frames. ``TakenLocals.resolve`` makes text of them, once the span is marked as slow, on
the introspector's thread, and lets go of each as soon as it is shown.

Reading ``f_locals`` writes to the frame up to Python 3.12: it fills a dictionary that the frame keeps, with all that
the variables hold, and that ``locals()`` in the function itself returns, too. So

- what we have filled is emptied again, or it would keep objects alive that the function has let go of. Nobody else can
  have come to hold it meanwhile: looking and emptying is one call, during which the GIL stays ours. What somebody else
  holds is left as it is. So is what belongs to a frame that somebody else holds: a function given to
  ``sys.setprofile`` does, and when that returns the variables are made what the dictionary says.
- a function that uses ``locals``, ``vars``, ``dir``, ``eval`` or ``exec`` is not read: it may just be going through
  that dictionary, which would grow under it. Nor is one that is being traced, as a debugger writes through it.
- a module's or a class's body is not read, on any version: there it is the namespace itself.

From 3.13 on it is a view that keeps nothing, and only the last of these holds. But until 3.13.3 it takes what a
comprehension has in the place of a variable that a closure shares for that closure's cell, and the process dies
(python/cpython#128396). So there, too, a function that may be in one is not read.

What can still fail: what an object refers to may have changed by the time it is shown. And for these moments we hold
references: if the application lets go of an object just then, ours is the last one, and its ``__del__`` runs on the
introspector's thread.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from inspect import CO_OPTIMIZED, CO_VARARGS
from itertools import compress
from opcode import opmap
from operator import and_, attrgetter, eq
from types import BuiltinMethodType, CodeType, FrameType
from typing import Any, Final, NamedTuple

from otel_introspect.engine.clock import Clock, SystemClock
from otel_introspect.engine.locals_admission import Admission
from otel_introspect.engine.ownership import is_application
from otel_introspect.engine.redaction import Redaction
from otel_introspect.engine.safe_repr import OutOfTimeError, Representer
from otel_introspect.engine.stack_text import cut, one_line, resolve, utf8_length
from otel_introspect.engine.stacks import Capture, Position
from otel_introspect.faults import count, fail_open

SECONDS: Final = 0.15
"""How long all variables of one snapshot may take."""
MAX_FRAMES: Final = 10
MAX_VARIABLES: Final = 25
_MAX_NAME: Final = 100

_IS_SHARED: Final = sys.version_info < (3, 13)
_READERS: Final = frozenset({"locals", "vars", "dir", "eval", "exec"})
_UNREAD: Final = "not read: the function uses locals(), vars(), dir(), eval or exec itself, or is being traced"
_CAN_CRASH: Final = (3, 13) <= sys.version_info < (3, 13, 3)
_UNREADABLE: Final = "not read: Python before 3.13.3 can crash on a comprehension in a function that has a closure"


class _Frame(NamedTuple):
    """The variables of one frame.

    Args:
        code: Which function's.
        lasti: Where it was.
        variables: By name; None if they are not to be read.
    """

    code: CodeType
    lasti: int
    variables: dict[str, Any] | None


class TakenLocals:
    """What the variables of some frames were.

    Args:
        frames: Innermost first.
        redaction: What is not to be shown.
    """

    __slots__ = ("_frames", "_redaction", "shown")

    def __init__(self, frames: list[_Frame], redaction: Redaction) -> None:
        self._frames = frames
        self._redaction = redaction
        self.shown: tuple[tuple[str, ...], ...] = ()
        """The lines for each frame, once they have been made: where it is, then each variable."""

    def resolve(self) -> None:
        """Make text of them, and let go of them. Takes as long as it may, not longer; on the introspector's thread."""
        representer = Representer(self._redaction, SECONDS)
        frames, self._frames = self._frames, []
        frames.reverse()
        shown: list[tuple[str, ...]] = []
        while frames:
            frame = frames.pop()
            with fail_open("showing local variables"):
                shown.append((f"in {_where(frame)}", *_lines(frame.variables, representer)))
        self.shown = tuple(shown)


def _where(frame: _Frame) -> str:
    (text,) = resolve(Capture(((frame.code, frame.lasti),))).frames
    return text.short()


def _lines(variables: dict[str, Any] | None, representer: Representer) -> Iterable[str]:
    if variables is None:
        return [f"    [{_UNREADABLE if _CAN_CRASH else _UNREAD}]"]
    lines = []
    left_out = max(len(variables) - MAX_VARIABLES, 0)
    try:
        for name in list(variables)[:MAX_VARIABLES]:
            value = variables.pop(name)
            lines.append(f"    {one_line(name[:_MAX_NAME])} = {representer.show(name, value)}")
            del value
    except OutOfTimeError:
        count("dropped", "locals: out of time")
        lines.append(f"    [out of time: {len(variables) + 1} more not shown]")
        return lines
    if left_out:
        lines.append(f"    [{left_out} more not shown]")
    return lines


class LocalsTaker:
    """Takes local variables, as often as it may.

    Args:
        more: Words in names of what is not to be shown, beside the built-in ones.
        clock: What time it is.
    """

    def __init__(self, more: Iterable[str] = (), clock: Clock | None = None) -> None:
        self._redaction = Redaction(more)
        self._admission = Admission(SystemClock() if clock is None else clock)

    def take(
        self, frames: Sequence[FrameType], positions: Sequence[Position], seen: Capture, threads: Collection[FrameType]
    ) -> TakenLocals | None:
        """Take those of the application's frames; None if there are none, or if it is not the time.

        Args:
            frames: Innermost first; the one list that the caller has of them.
            positions: Where each of them was when the stack was taken down.
            seen: What was kept of the positions.
            threads: The innermost frames of all threads, which the caller holds as well.
        """
        with fail_open("taking local variables"):
            kept = {id(position) for position in seen.positions}  # the very tuples
            chosen = [
                (frame, position, _holders(frame, called, threads) if _IS_SHARED else None)
                for frame, called, position in zip(frames, (None, *frames), positions, strict=False)
                if id(position) in kept and position[0].co_flags & CO_OPTIMIZED and is_application(position[0])
            ][:MAX_FRAMES]
            if not chosen or not self._admission.admits(seen):
                return None
            taken = []
            for frame, (code, lasti), holders in chosen:
                variables = _variables(frame, code, holders)
                if frame.f_lasti != lasti or frame.f_code is not code:
                    count("dropped", "locals: the frame has gone on")
                elif variables is None or variables:
                    taken.append(_Frame(code, lasti, variables))
            return TakenLocals(taken, self._redaction) if taken else None
        return None


def _variables(frame: FrameType, code: CodeType, holders: int | None) -> dict[str, Any] | None:
    """The variables that *frame* has now, without the interpreter's own; None if they are not to be read.

    Args:
        frame: Whose.
        code: Its code.
        holders: See ``_holders``.
    """
    if _IS_SHARED and (frame.f_trace is not None or not _READERS.isdisjoint(code.co_names)):
        return None
    if _CAN_CRASH and _may_crash(code):
        return None
    copied: dict[str, Any] = frame.f_locals.copy()  # a dictionary, or 3.13's proxy
    if _IS_SHARED and holders is not None:
        names = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
        is_plain = all(type(name) is str and name in names for name in copied)  # or somebody keeps something there
        if is_plain and not _is_being_entered(frame, code):
            _let_go(frame, holders)
    # ".0" is a comprehension's, "__class__" is for super().
    return {name: value for name, value in copied.items() if type(name) is str and not name.startswith((".", "__"))}


def _may_crash(code: CodeType) -> bool:
    """Whether a comprehension of *code* may have put something in the place of a cell."""
    return bool(code.co_cellvars or code.co_freevars) and opmap["LOAD_FAST_AND_CLEAR"] in code.co_code[::2]


# Where a frame is when a trace function is told that it has been entered, or gone on with.
_ENTRANCES: Final = frozenset(
    opmap[name]
    for name in (
        "RESUME",
        "RETURN_GENERATOR",
        "COPY_FREE_VARS",
        "MAKE_CELL",
        "GEN_START",
        "SEND",
        "YIELD_FROM",
        "YIELD_VALUE",
    )
    if name in opmap
)


def _is_being_entered(frame: FrameType, code: CodeType) -> bool:
    """Whether a trace function may be at work on *frame* that has not been set on it yet.

    When that returns the variables are made what the dictionary says, so an empty one would take them away.
    """
    if frame.f_back is None:
        return False  # a generator or a coroutine that is parked: nobody is at work on it
    return frame.f_lasti < 0 or code.co_code[frame.f_lasti] in _ENTRANCES


_HOLDS_ITS_CALLER: Final = sys.version_info < (3, 11)
_TOLD: Final = 3


def _holders(frame: FrameType, called: FrameType | None, threads: Collection[FrameType]) -> int | None:
    """How often *frame* is held by who is known to, beside the interpreter and us; None if it is not to be emptied.

    *called* may be a profile function, which is called with a frame, an event and an argument: that has mostly got a
    hold of the frame, but may have let go of it.
    """
    is_caller = called is not None and called.f_back is frame
    if is_caller and called is not None:
        code = called.f_code
        if code.co_argcount >= _TOLD or code.co_flags & CO_VARARGS:
            return None
    return sum(each is frame for each in threads) + (is_caller and _HOLDS_ITS_CALLER)


_LOCALS: Final = attrgetter("f_locals")
_CLEAR: Final = attrgetter("f_locals.clear")
_CALL: Final[Any] = BuiltinMethodType.__call__
_MEASURE: Final = -1


def _let_go(frame: FrameType, holders: int) -> None:
    """Empty the dictionary that reading the variables has filled, unless somebody else has it, or the frame, too.

    All in one call of C code: it asks for the dictionary, counts who refers to both and empties it, and no other thread
    comes in between.
    """
    global _references_to_frame  # noqa: PLW0603 - counted once, and here only
    one = (frame,)
    if holders == _MEASURE:
        _references_to_frame = next(map(sys.getrefcount, one))
        return
    of_frame, of_dictionary = _references()
    is_ours = map(eq, map(sys.getrefcount, map(_LOCALS, one)), (of_dictionary,))
    is_let_be = map(eq, map(sys.getrefcount, one), (of_frame + holders,))
    deque(map(_CALL, compress(map(_CLEAR, one), map(and_, is_ours, is_let_be))), maxlen=0)


_references_to_frame: int | None = None
_references_to_ours: int | None = None


def _references() -> tuple[int, int]:
    """How many references to a frame and to its dictionary there are in that call, if nobody else has one."""
    global _references_to_ours  # counted once, by doing the same with a frame that nobody else knows
    if _references_to_frame is None or _references_to_ours is None:
        probe = _probe()
        next(probe)
        # As in ``LocalsTaker.take``, which has as many.
        frames = [probe.gi_frame]
        chosen = [(frame, frame.f_code) for frame in frames]
        for frame, code in chosen:
            _variables(frame, code, _MEASURE)
        one = (frame,)
        ((_, _references_to_ours),) = zip(map(_CLEAR, one), map(sys.getrefcount, map(_LOCALS, one)), strict=True)
    return _references_to_frame or 0, _references_to_ours


def _probe() -> Any:  # noqa: ANN401 - a generator
    something = object()
    yield something


def elements(taken: TakenLocals, max_bytes: int, room: int) -> list[str]:
    """One text for each frame, innermost first, none longer than *max_bytes*, all of them within *room* bytes.

    What does not fit goes: of a frame its last variables, of the frames the outermost.
    """
    texts: list[str] = []
    for lines in taken.shown:
        text = _fitted(lines, min(max_bytes, room))
        if text is None:
            break
        texts.append(text)
        room -= utf8_length(text)
    if len(texts) < len(taken.shown):
        count("dropped", "locals: no room")
    return texts


def _fitted(lines: Sequence[str], max_bytes: int) -> str | None:
    text = "\n".join(lines)
    if utf8_length(text) <= max_bytes:
        return text
    kept = list(lines)
    while len(kept) > 1:
        # The first that does not fit is cut, as it says more than none; the rest is counted.
        note = f"\n    [cut: {len(lines) - len(kept) + 1} more not shown whole]"
        kept.pop()
        head = "\n".join(kept)
        left = max_bytes - utf8_length(head) - utf8_length(note)
        if left < 0:
            continue
        beginning = cut(f"\n{lines[len(kept)]}", max(left - len(_CUT), 0))
        return head + (beginning + _CUT if len(beginning) > _LEAST and left > len(_CUT) else "") + note
    return None


_CUT: Final = "..."
# Characters of a line below which it says nothing.
_LEAST: Final = 30
