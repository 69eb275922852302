"""Recordings as pyinstrument sessions, whose renderers then show them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_introspect.engine.ownership import is_doorway, is_ours, is_surroundings
from otel_introspect.engine.recording import AWAITING, GAP, OMITTED, Frame, Recording, line_of
from otel_introspect.engine.stacks import Position

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
    began_in: Sequence[Position] = ()


def prepare() -> None:
    """Load pyinstrument now."""
    import pyinstrument.session  # noqa: F401 - to have it loaded


def whole_session(recording: Recording, facts: Facts) -> Session:
    """All that is known, in the order in which it happened."""
    runs = recording.runs()  # first: whose samples may still come then has no node that is not in the tree
    stacks = _Stacks(recording)
    return _session(recording, facts, [(stacks.of(node), seconds) for node, seconds in runs])


def summed_session(recording: Recording, facts: Facts) -> Session:
    """Each stack once: the same tree of calls, made of fewer records."""
    totals = recording.totals()
    stacks = _Stacks(recording)
    records = [(stacks.of(node), seconds) for node, seconds in totals.items()]
    return _session(recording, facts, sorted(records, key=itemgetter(0)))


def _session(recording: Recording, facts: Facts, records: list[tuple[list[str], float]]) -> Session:
    # Late, as it takes 6 ms, and most processes are never profiled.
    from pyinstrument.session import Session

    around = [Frame(code, line_of(code, lasti)) for code, lasti in reversed(facts.began_in)]
    start = [_identifier(frame) for frame in _begun_in(around)]
    return Session(
        frame_records=records,
        start_time=facts.start_time,
        duration=facts.duration,
        min_interval=facts.interval,
        max_interval=facts.interval,
        sample_count=recording.sample_count,
        # Never empty, which pyinstrument's own renderers can't do with.
        start_call_stack=start or (records[0][0][:1] if records else []) or [""],
        target_description=facts.description,
        cpu_time=facts.cpu_time,
        sys_path=list(sys.path),
        sys_prefixes=Session.current_sys_prefixes(),
    )


class _Stacks:
    """The stacks of a recording as pyinstrument writes them, from the request's own code on.

    As ``engine.stacks.trimmed`` has it: what lies outside an adapter of ours goes, else what surrounds applications;
    our own frames go everywhere. Each node is looked at once, as most of any two stacks is the same.
    """

    def __init__(self, recording: Recording) -> None:
        self._stacks: list[list[str]] = [[]]
        self._parents = [-1]
        self._frames: list[tuple[str, int]] = [("", _OURS)]
        # Whether there is more on the stack than frames that stand for none.
        self._has_calls = [False]
        is_inside = [False]
        identifiers: dict[int, tuple[str, int]] = {}
        for parent, frame in recording.tree():
            known = identifiers.get(id(frame))
            if known is None:
                known = identifiers[id(frame)] = (_identifier(frame), _kind(frame))
            identifier, kind = known
            stack, inside, has_calls = self._stacks[parent], is_inside[parent], self._has_calls[parent]
            self._parents.append(parent)
            self._frames.append(known)
            if kind & _DOORWAY and not inside:
                stack, inside, has_calls = [], True, False
            elif not kind & _OURS and (inside or has_calls or not kind & _SURROUNDINGS):
                stack, has_calls = [*stack, identifier], has_calls or not kind & _NO_CALL
            self._stacks.append(stack)
            self._has_calls.append(has_calls)
            is_inside.append(inside)

    def of(self, node: int) -> list[str]:
        """The stack that ends in *node*, outermost frame first; the same list each time."""
        if not self._has_calls[node]:
            self._has_calls[node] = True
            self._stacks[node] = self._without_doorway(node)
        return self._stacks[node]

    def _without_doorway(self, node: int) -> list[str]:
        """The stack of what has nothing of the request's own inside the doorway."""
        frames = []
        while node > 0:
            if not self._frames[node][1] & _OURS:
                frames.append(self._frames[node])
            node = self._parents[node]
        frames.reverse()
        # A thread that is in the server's own code all the way is shown as it is.
        start = next((place for place, (_, kind) in enumerate(frames) if not kind & (_SURROUNDINGS | _NO_CALL)), 0)
        return [identifier for identifier, _ in frames[start:]]


_DOORWAY: Final = 1
_OURS: Final = 2
_SURROUNDINGS: Final = 4
_NO_CALL: Final = 8


def _kind(frame: Frame) -> int:
    if frame.code is None:
        return _NO_CALL
    file = frame.code.co_filename
    return _DOORWAY * is_doorway(file) | _OURS * is_ours(file) | _SURROUNDINGS * is_surroundings(file)


def _identifier(frame: Frame) -> str:
    if frame.code is None:
        return _NAMES[frame.line]
    code = frame.code
    # Without the functions that it is nested in, which are its file's and line's to say.
    name = getattr(code, "co_qualname", code.co_name).rpartition("<locals>.")[2]
    return f"{name}\0{code.co_filename}\0{code.co_firstlineno}\x01l{frame.line}"


def _begun_in(frames: Sequence[Frame]) -> Sequence[Frame]:
    """*frames*, outermost first, as the stacks of samples are trimmed."""
    kinds = [_kind(frame) for frame in frames]
    start = next((place + 1 for place, kind in enumerate(kinds) if kind & _DOORWAY), 0)
    if not start:
        start = next((place for place, kind in enumerate(kinds) if not kind & (_OURS | _SURROUNDINGS)), 0)
    return [frame for frame, kind in zip(frames[start:], kinds[start:], strict=True) if not kind & _OURS]
