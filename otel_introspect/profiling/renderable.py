"""Makes any session one that pyinstrument's renderers can show: no frame breaks them, no depth exhausts the stack."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from otel_introspect.engine.stack_text import one_line

if TYPE_CHECKING:
    from pyinstrument.session import Session

Record = tuple[list[str], float]
"""What pyinstrument calls a frame record: a stack, outermost frame first, and the seconds spent in it."""

HIDDEN_FRAMES: Final = "[frames hidden]"
"""Stands in the middle of a stack that is too deep to be shown whole."""

_SEPARATOR: Final = "\x00"
_ATTRIBUTE: Final = "\x01"
_LEAVES: Final = frozenset({"[self]", "[await]", "[out-of-context]"})
# pyinstrument makes a number of it; in the frame that stands for a thread it is the thread's.
_LINE: Final = re.compile(r"-?[0-9]{1,20}")
_LINE_PART: Final = 2
# The renderers walk the tree by recursion, one Python frame for each level, and Python allows 1,000 by default.
_MAX_DEPTH: Final = 400
_OUTER: Final = _MAX_DEPTH // 2
_INNER: Final = _MAX_DEPTH - _OUTER - 1


def renderable(session: Session, *, timeline: bool, plain: bool = False) -> Session:
    """A session that shows what *session* shows, and that each of pyinstrument's renderers takes.

    Args:
        session: Any session; it is not changed.
        timeline: Whether the order in time matters. If not, equal stacks are put together: a tree of 100,000 samples
            that alternate between two functions is built in no time.
        plain: Whether names are to be fit for a terminal: one line, nothing that it acts upon.
    """
    from pyinstrument.session import Session

    shown = one_line if plain else _as_it_is
    records = _mended(session.frame_records, shown)
    return Session(
        frame_records=list(_merged(records) if timeline else _grouped(records)),
        start_time=session.start_time,
        duration=session.duration,
        min_interval=session.min_interval,
        max_interval=session.max_interval,
        sample_count=session.sample_count,
        # pyinstrument takes the first of them without looking whether there is one.
        start_call_stack=[_mended_frame(frame, shown) for frame in session.start_call_stack] or [""],
        target_description=shown(session.target_description),
        cpu_time=session.cpu_time,
        sys_path=session.sys_path,
        sys_prefixes=session.sys_prefixes,
    )


def parts_of(frame: str) -> tuple[str, str, int]:
    """Function, file and line of a frame; the file is empty and the line 0 if it has none."""
    name, _, place = frame.partition(_ATTRIBUTE)[0].partition(_SEPARATOR)
    file, _, line = place.partition(_SEPARATOR)
    return name, file, int(line) if _LINE.fullmatch(line) else 0


def identifier_of(frame: str) -> str:
    """What tells a function from another: the frame without its line and class."""
    return frame.partition(_ATTRIBUTE)[0]


def whole_stack(stack: Iterable[str]) -> list[str]:
    """*stack* up to where it must end: nothing is called by a frame that stands for waiting or for own time."""
    kept: list[str] = []
    for frame in stack:
        kept.append(frame)
        if identifier_of(frame) in _LEAVES:
            break
    return kept


def _as_it_is(text: str) -> str:
    return text


def _mended(records: Iterable[Record], shown: Callable[[str], str]) -> Iterable[Record]:
    known: dict[str, str] = {}
    for stack, seconds in records:
        frames = []
        for frame in whole_stack(stack):
            mended = known.get(frame)
            if mended is None:
                mended = known[frame] = _mended_frame(frame, shown)
            frames.append(mended)
        if len(frames) > _MAX_DEPTH:
            frames[_OUTER:-_INNER] = [HIDDEN_FRAMES]
        yield frames, seconds


def _mended_frame(frame: str, shown: Callable[[str], str]) -> str:
    identifier, *attributes = frame.split(_ATTRIBUTE)
    parts = identifier.split(_SEPARATOR)[: _LINE_PART + 1]
    if len(parts) > _LINE_PART and not _LINE.fullmatch(parts[_LINE_PART]):
        del parts[_LINE_PART]
    return _ATTRIBUTE.join([_SEPARATOR.join(map(shown, parts)), *map(shown, attributes)])


def _merged(records: Iterable[Record]) -> Iterable[Record]:
    """The same timeline, with one record for samples in a row that are equal."""
    last: list[str] | None = None
    total = 0.0
    for stack, seconds in records:
        if last is not None and stack != last:
            yield last, total
            total = 0.0
        last = stack
        total += seconds
    if last is not None:
        yield last, total


def _grouped(records: Iterable[Record]) -> Iterable[Record]:
    """One record for each stack; those that begin alike stand together, in the order in which they first came."""
    totals: dict[tuple[str, ...], float] = {}
    for stack, seconds in records:
        key = tuple(stack)
        totals[key] = totals.get(key, 0.0) + seconds
    numbers: dict[tuple[int, str], int] = {}
    places: list[tuple[list[int], tuple[str, ...]]] = []
    for key in totals:
        place = [0]
        for frame in key:
            place.append(numbers.setdefault((place[-1], identifier_of(frame)), len(numbers) + 1))
        places.append((place, key))
    places.sort()
    return ((list(key), totals[key]) for _, key in places)
