"""Recordings as pyinstrument sessions, whose renderers then show them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_introspect.engine.ownership import is_doorway, is_ours, is_surroundings
from otel_introspect.engine.recording import AWAITING, GAP, OMITTED, Frame, Recording

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

    start = [_identifier(frame) for frame in _begun_in(facts.began_in)]
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
        self._whole: list[tuple[int, str]] = [(-1, "")]
        is_inside = [False]
        identifiers: dict[int, tuple[str, int]] = {}
        for parent, frame in recording.tree():
            known = identifiers.get(id(frame))
            if known is None:
                known = identifiers[id(frame)] = (_identifier(frame), _kind(frame))
            identifier, kind = known
            stack, inside = self._stacks[parent], is_inside[parent]
            self._whole.append((parent, "" if kind & _OURS else identifier))
            if kind & _DOORWAY and not inside:
                stack, inside = [], True
            elif not kind & _OURS and (inside or stack or not kind & _SURROUNDINGS):
                stack = [*stack, identifier]
            self._stacks.append(stack)
            is_inside.append(inside)

    def of(self, node: int) -> list[str]:
        """The stack that ends in *node*, outermost frame first; the same list each time."""
        stack = self._stacks[node]
        if not stack or _is_bare(stack):
            # A thread that is in the server's own code all the way is shown as it is.
            stack = self._stacks[node] = self._whole_stack(node)
        return stack

    def _whole_stack(self, node: int) -> list[str]:
        stack = []
        while node > 0:
            node, identifier = self._whole[node]
            if identifier:
                stack.append(identifier)
        return stack[::-1]


_DOORWAY: Final = 1
_OURS: Final = 2
_SURROUNDINGS: Final = 4


def _kind(frame: Frame) -> int:
    if frame.code is None:
        return _SURROUNDINGS if frame.line == OMITTED else 0
    file = frame.code.co_filename
    return _DOORWAY * is_doorway(file) | _OURS * is_ours(file) | _SURROUNDINGS * is_surroundings(file)


def _is_bare(stack: list[str]) -> bool:
    """Whether it has nothing but frames that stand for none."""
    return stack[0] in _NOTHING


_NOTHING: Final = frozenset(_NAMES.values())


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
