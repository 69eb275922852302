"""A session from the console text of one, so that every format can be had from what the span carries.

The text has the tree and rounded times. Samples, their order in time and full paths are lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from otel_introspect.profiling.renderable import Record
from otel_introspect.profiling.retrieval import ReadError

if TYPE_CHECKING:
    from pyinstrument.session import Session

NOT_SHOWN: Final = "[not shown]"
"""A frame for the time of a function whose callees the text has left out."""

_SELF: Final = "[self]"
# Box drawing or its ASCII twin, the seconds, the function and, after two spaces, where it is.
_FRAME: Final = re.compile(r"(?P<indent>[ │├└─|`-]*)(?P<seconds>\d{1,12}(?:\.(?P<decimals>\d{1,9}))?) (?P<what>.*\S.*)")
_GROUP: Final = re.compile(r"(?P<indent>[ │├└─|`-]*)(?P<what>\[\d+ frames? hidden\].*)")
_PLACE: Final = re.compile(r"(?P<file>.*):(?P<line>[0-9]{1,9})")
_EMPTY: Final = "No samples were recorded."
_NOT_IN_A_NAME: Final = str.maketrans("", "", "\x00\x01")


@dataclass(slots=True)
class _Node:
    """A line of the text; that of a group of hidden frames has no time."""

    column: int
    frame: str
    seconds: float | None = None
    decimals: int = 0
    children: list[_Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is known of a profile beside its text.

    Args:
        description: What was profiled.
        start_time: When it began, in seconds since 1970.
        duration: How long it took, in seconds; none if the text is all that says so.
        interval: The sampling interval in seconds.
        sample_count: How many samples it is made of.
    """

    description: str = ""
    start_time: float = 0.0
    duration: float | None = None
    interval: float | None = None
    sample_count: int = 0


def session_from_text(text: str, known: Circumstances) -> Session:
    """Rebuild a session from pyinstrument's console text.

    What is no line of the tree is passed over: a head, a note, a last line that was cut. Time of a function that is
    neither its own, by a line ``[self]``, nor its callees', becomes a frame ``[not shown]``.

    Args:
        text: The text.
        known: The rest.

    Raises:
        ReadError: If there is no tree in it.
    """
    from pyinstrument.session import Session

    roots, decimals = _tree(text)
    if not roots and _EMPTY not in text:
        msg = (
            "The profile's text holds no tree of calls: expected lines such as '0.600 function  file.py:27', as "
            "pyinstrument prints them"
        )
        raise ReadError(msg)
    precision: float = 10.0**-decimals
    records = [record for root in roots for record in _records(root, precision)]
    total = sum(seconds for _, seconds in records)
    return Session(
        frame_records=records,
        start_time=known.start_time,
        duration=total if known.duration is None else known.duration,
        min_interval=known.interval or precision,
        # From this a renderer takes how many decimals there are: as many as in the text.
        max_interval=precision,
        sample_count=known.sample_count,
        start_call_stack=[""],
        target_description=known.description,
        cpu_time=0.0,
        sys_path=[],
        sys_prefixes=[],
    )


def _tree(text: str) -> tuple[list[_Node], int]:
    """The roots, and the number of decimals in which times are given."""
    roots: list[_Node] = []
    open_nodes: list[_Node] = []
    decimals = 0
    for line in text.split("\n"):
        node = _node(line.rstrip("\r"))
        if node is None:
            continue
        while open_nodes and open_nodes[-1].column >= node.column:
            open_nodes.pop()
        if open_nodes:
            open_nodes[-1].children.append(node)
        elif node.column or node.seconds is None:
            continue  # a branch of a tree whose root is not there
        else:
            # A line of the head that looks like a frame is not followed by branches of its own.
            roots = [root for root in roots if root.children]
            roots.append(node)
        decimals = max(decimals, node.decimals)
        open_nodes.append(node)
    return roots, decimals


def _node(line: str) -> _Node | None:
    matched = _FRAME.fullmatch(line)
    if matched is not None:
        return _Node(
            len(matched["indent"]), _frame(matched["what"]), float(matched["seconds"]), len(matched["decimals"] or "")
        )
    matched = _GROUP.fullmatch(line)
    if matched is not None:
        return _Node(len(matched["indent"]), _frame(matched["what"]))
    return None


def _frame(what: str) -> str:
    """The frame of a line: ``function  file.py:27``, or ``[await]`` and its like, whose place is their caller's."""
    name, gap, place = what.translate(_NOT_IN_A_NAME).rpartition("  ")
    if not gap:
        name, place = place, ""
    if name.strip() in (_SELF, "[await]", "[out-of-context]"):
        return name.strip()
    matched = _PLACE.fullmatch(place)
    if matched is not None:
        return f"{name}\0{matched['file']}\0{matched['line']}"
    return f"{name}\0{place}" if place else name


def _records(root: _Node, precision: float) -> list[Record]:
    """A stack with its own time for each node that has any; a node's time is then the sum of all below it."""
    records: list[Record] = []
    # Without recursion: nobody knows how deep it is.
    pending: list[tuple[_Node, list[str], float]] = [(root, [], root.seconds or 0.0)]
    while pending:
        node, callers, seconds = pending.pop()
        stack = [*callers, node.frame]
        if not node.children:
            records.append((stack, seconds))
            continue
        rest = seconds - sum(child.seconds or 0.0 for child in node.children)
        groups = [child for child in node.children if child.seconds is None]
        # Each number may be wrong by half of its last digit.
        if not groups and rest > precision * (len(node.children) + 1) / 2 + precision / 1000:
            records.append(([*stack, NOT_SHOWN], rest))
        for child in reversed(node.children):
            # What a group of hidden frames took is what is left of its caller's time.
            share = max(rest, 0.0) / len(groups) if child.seconds is None else child.seconds
            pending.append((child, stack, share))
    return records
