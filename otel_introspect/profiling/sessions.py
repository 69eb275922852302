"""Recordings as pyinstrument sessions, whose renderers then show them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_introspect.engine.ownership import is_doorway, is_ours, is_surroundings
from otel_introspect.engine.recording import AWAITING, GAP, OMITTED, Frame, Recording, Run

if TYPE_CHECKING:
    from pyinstrument.session import Session

_AWAIT: Final = "[await]"  # pyinstrument's own, which it counts as waiting
_NAMES: Final = {
    AWAITING: _AWAIT,
    GAP: "[no sample: something kept the GIL]",
    OMITTED: "[outer frames omitted]",
}


class Facts(NamedTuple):
    """What a session says of itself beside its samples.

    Args:
        start_time: Seconds since the epoch.
        duration: In seconds.
        interval: In seconds; what it began with.
        description: What was profiled.
        cpu_time: CPU seconds of the thread, 0 if they are not known.
        began_in: The stack at its start, innermost frame first; the tree begins where the work has left that.
    """

    start_time: float
    duration: float
    interval: float
    description: str
    cpu_time: float = 0.0
    began_in: Sequence[Frame] = ()


def prepare() -> None:
    """Load pyinstrument now."""
    import pyinstrument.session  # noqa: F401 - to have it loaded


def whole_session(recording: Recording, facts: Facts) -> Session:
    """All that is known, in the order in which it happened."""
    return _session(recording, facts, recording.runs())


def summed_session(recording: Recording, facts: Facts) -> Session:
    """Each stack once: the same tree of calls, made of fewer records."""
    runs = sorted(recording.stacks(), key=lambda run: [(frame.line, id(frame.code)) for frame in run.frames])
    return _session(recording, facts, runs)


def _session(recording: Recording, facts: Facts, runs: Iterable[Run]) -> Session:
    # Late, as it takes 6 ms, and most processes are never profiled.
    from pyinstrument.session import Session

    names = _Identifiers()
    records = [(names.of_stack(run.frames), run.seconds) for run in runs]
    start = names.of_stack(facts.began_in)
    return Session(
        frame_records=records,
        start_time=facts.start_time,
        duration=facts.duration,
        min_interval=facts.interval,
        max_interval=facts.interval,
        sample_count=recording.sample_count,
        start_call_stack=start or (records[0][0][:1] if records else []) or [""],
        target_description=facts.description,
        cpu_time=facts.cpu_time,
        sys_path=list(sys.path),
        sys_prefixes=Session.current_sys_prefixes(),
    )


class _Identifiers:
    """Frames as pyinstrument writes them; each stack and each frame is made once."""

    def __init__(self) -> None:
        self._frames: dict[int, str] = {}
        self._stacks: dict[int, list[str]] = {}
        self._kept: list[object] = []  # so that ids stay their own

    def of_stack(self, frames: Sequence[Frame]) -> list[str]:
        """*frames* from the request's own code on."""
        key = id(frames)
        found = self._stacks.get(key)
        if found is None:
            found = self._stacks[key] = [self._of_frame(frame) for frame in _trimmed(frames)]
            self._kept.append(frames)
        return found

    def _of_frame(self, frame: Frame) -> str:
        if frame.code is None:
            return _NAMES[frame.line]
        found = self._frames.get(id(frame))
        if found is None:
            code = frame.code
            # Without the functions that it is nested in, which are its file's and line's to say.
            name = getattr(code, "co_qualname", code.co_name).rpartition("<locals>.")[2]
            found = f"{name}\0{code.co_filename}\0{code.co_firstlineno}\x01l{frame.line}"
            self._frames[id(frame)] = found
            self._kept.append(frame)
        return found


def _trimmed(frames: Sequence[Frame]) -> Sequence[Frame]:
    """*frames*, outermost first, without ours and what lies outside the request; see ``engine.stacks.trimmed``."""
    start = next((i + 1 for i, frame in enumerate(frames) if frame.code and is_doorway(frame.code.co_filename)), 0)
    inside = [frame for frame in frames[start:] if frame.code is None or not is_ours(frame.code.co_filename)]
    if start and any(frame.code for frame in inside):
        return inside
    mine = [frame for frame in frames if frame.code is None or not is_ours(frame.code.co_filename)]
    outer = 0
    while outer < len(mine) and _surrounds(mine[outer]):
        outer += 1
    return mine[outer:] if any(frame.code for frame in mine[outer:]) else mine


def _surrounds(frame: Frame) -> bool:
    return frame.code is None or is_surroundings(frame.code.co_filename)
