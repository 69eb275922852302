"""A profile as text, within a number of bytes: the tree of calls as pyinstrument prints it, the smallest frames hidden.

Wanted: what a request spent its time on, in one string attribute of a span, computed while the request waits.

Does not work: pyinstrument's own renderer at rising thresholds, which builds its tree anew each time, 200 ms and more
for 3,000 stacks; nor cutting its text, which loses just the innermost frames.

So: one tree of our own, from which small branches are left out while it is built, printed as pyinstrument would; of
its frames in order of time as many as there is room for. Where library frames and outer ones leave too little room for
those that matter, they go first, step by step (``_LOOKS``): the innermost frames of the application stay longest.
What is not shown is in the time of the frame that is shown around it.
"""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import takewhile
from operator import attrgetter, eq, itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_introspect.engine.ownership import is_library
from otel_introspect.engine.stack_text import cut, one_line, utf8_length

if TYPE_CHECKING:
    from pyinstrument.session import Session

NOTHING: Final = "No samples were recorded."
"""The text of a profile without samples."""

# As in pyinstrument: where it hides frames even if there is room.
_SMALLEST_SHARE: Final = 0.01
_LARGE_SELF_SHARE: Final = 0.2
_FEWEST_HIDDEN: Final = 2
_LIBRARIES_CHARACTERS: Final = 40

_ROOT: Final = "[root]"
_SELF: Final = "[self]"
_SYNTHETIC: Final = frozenset({_ROOT, _SELF, "[await]", "[out-of-context]"})

_FIRST_COUNT: Final = 32
_LONG_TIME: Final = 1e9
# The least of a name, of which the rest is an ellipsis.
_SHORTEST_NAME: Final = 8

_Row = tuple[Sequence[str], float]


class _Chunk(NamedTuple):
    """Rows that have everything outside *depth* in common, but for frames that are passed over."""

    rows: list[_Row]
    stacks: list[Sequence[str]]
    depth: int


class _Call(NamedTuple):
    """What one function calls next: rows by depth, and where classes are known the time for each."""

    deeper: dict[int, list[_Row]]
    classes: dict[str, float]


class _Node:
    """One frame of the tree, with all calls from the same callers added together.

    Args:
        identifier: Name, file and line, as the session has them.
        time: Seconds, its callees' included.
        parent: Its caller, None for the outermost.
        whole: Whether its caller did nothing but call it.
    """

    __slots__ = (
        "anchor",
        "application",
        "children",
        "class_name",
        "file",
        "group",
        "height",
        "identifier",
        "kids",
        "label",
        "name",
        "parent",
        "shown_time",
        "synthetic",
        "time",
        "whole",
    )

    def __init__(self, identifier: str, time: float, parent: _Node | None, *, whole: bool = False) -> None:
        self.identifier = identifier
        self.time = time
        self.parent = parent
        self.whole = whole
        self.synthetic = identifier in _SYNTHETIC
        self.children: list[_Node] = []
        self.class_name = ""
        self.name, _, rest = identifier.partition("\0")
        self.file, _, _line = rest.partition("\0")
        self.application = False if self.synthetic else _is_application(self.file, parent)
        # What follows depends on how many are shown, and is set anew each time.
        self.kids: list[_Node] = []
        self.group: _Group | None = None
        self.anchor = self
        self.height = 0
        self.shown_time = time
        self.label: tuple[str, str] | None = None

    def self_time(self) -> float:
        return self.time - sum(kid.time for kid in self.kids if not kid.synthetic)


class _Group:
    """Frames of libraries that call each other, of which most are hidden."""

    __slots__ = ("hidden", "nodes")

    def __init__(self) -> None:
        self.nodes: list[_Node] = []
        self.hidden: set[_Node] = set()


def _is_application(file: str, parent: _Node | None) -> bool:
    if not file:
        return False
    if file.startswith("<"):
        # Code made from text belongs to whom it was made by; most else in brackets is frozen or built in.
        if file in ("<string>", "<stdin>"):
            return parent is None or parent.identifier == _ROOT or parent.application
        return file.startswith("<ipython-input-")
    return not is_library(file)


def console_text(session: Session, max_bytes: int) -> tuple[str, bool]:
    """Render *session* as pyinstrument does on a console, without its banner, in at most *max_bytes* of UTF-8.

    Args:
        session: With or without samples.
        max_bytes: 64 at least, for one line that says where most of the time went.

    Returns:
        The text, and whether frames were hidden for want of room; then the last line says how many.
    """
    root = _tree(session)
    if root is None:
        return cut(NOTHING, max_bytes), False
    printer = _Printer(session, root)
    ranked = _ranked(root)
    for look in _LOOKS:
        found = _best(printer, look, ranked, max_bytes)
        if found is None:
            continue
        lines, shown, count = found
        if count == len(ranked) and (look is _LOOKS[0] or shown == _frames(ranked)):
            return "\n".join(lines), False
        largest_hidden = ranked[count].time if count < len(ranked) else 0.0
        if largest_hidden <= look.may_hide * root.time:
            return "\n".join([*lines, _note(ranked, count, shown, look)]), True
    return _one_place(printer, ranked, max_bytes), True


# --- The tree -------------------------------------------------------------------------------------------------------


def _tree(session: Session) -> _Node | None:
    """The frames that took one hundredth of the time or more, times added up as ``pyinstrument`` does."""
    rows: list[_Row] = [(stack, time) for stack, time in session.frame_records]
    if not rows:
        return None
    top = _Node(_ROOT, _time(rows), None)
    least = _SMALLEST_SHARE * top.time
    work = [(top, [_chunk(rows, 0)])]
    while work:
        node, chunks = work.pop()
        only = _only_call(chunks[0]) if len(chunks) == 1 else None
        if only is not None:
            info, deeper = only
            child = _Node(_identifier(info), node.time, node, whole=True)
            child.class_name = _class_name(info)
            node.children.append(child)
            work.append((child, [deeper]))
            continue
        calls = _calls(chunks)
        for identifier, call in calls.items():
            # Added up in another order, a callee's time may come out larger by a hair.
            time = min(sum(map(_time, call.deeper.values())), node.time)
            if time < least:
                continue
            child = _Node(identifier, time, node, whole=len(calls) == 1)
            if call.classes:
                child.class_name = max(call.classes.items(), key=_second)[0]
            node.children.append(child)
            if identifier != _SELF:
                work.append((child, [_chunk(some, depth) for depth, some in call.deeper.items()]))
        node.children.sort(key=_time_of, reverse=True)
    # What is passed over in the tree is no part of its stem, either.
    start = [_identifier(info) for info in session.start_call_stack if not _is_clutter(info)]
    return _without_stem(top, start)


def _chunk(rows: list[_Row], depth: int) -> _Chunk:
    return _Chunk(rows, list(map(_first, rows)), depth)


def _only_call(chunk: _Chunk) -> tuple[str, _Chunk] | None:
    """What all rows of *chunk* call next, if it is one and the same; the outer half of most stacks is."""
    try:
        infos = set(map(itemgetter(chunk.depth), chunk.stacks))
    except IndexError:
        return None
    info = infos.pop()
    identifier, class_name = _identifier(info), _class_name(info)
    if _is_clutter(info):
        return None
    for other in infos:
        if _identifier(other) != identifier or _class_name(other) != class_name or _is_clutter(other):
            return None
    return info, _Chunk(chunk.rows, chunk.stacks, chunk.depth + 1)


def _calls(chunks: list[_Chunk]) -> dict[str, _Call]:
    """What is called next in *chunks*, by identifier."""
    calls: dict[str, _Call] = {}
    while chunks:
        rows, _, depth = chunks.pop()
        by_info: defaultdict[str, list[_Row]] = defaultdict(list)
        for row in rows:
            stack = row[0]
            by_info[stack[depth] if len(stack) > depth else _SELF].append(row)
        for info, some in by_info.items():
            if _is_clutter(info):
                chunks.append(_chunk(some, depth + 1))
                continue
            identifier = _identifier(info)
            call = calls.get(identifier)
            if call is None:
                call = calls[identifier] = _Call({}, {})
            if depth + 1 in call.deeper:
                call.deeper[depth + 1].extend(some)
            else:
                call.deeper[depth + 1] = some
            class_name = _class_name(info)
            if class_name:
                call.classes[class_name] = call.classes.get(class_name, 0.0) + _time(some)
    return calls


_first = itemgetter(0)
_second = itemgetter(1)
_time_of = attrgetter("time")
_shown_time_of = attrgetter("shown_time")


def _time(rows: list[_Row]) -> float:
    return float(sum(map(_second, rows)))


def _identifier(info: str) -> str:
    return info.partition("\1")[0]


def _class_name(info: str) -> str:
    return info.partition("\1c")[2].partition("\1")[0]


def _is_clutter(info: str) -> bool:
    """Whether a frame is to be passed over: the import system's, or one that asks for it."""
    return "\0<frozen importlib._bootstrap" in info or "\1h1" in info


def _without_stem(top: _Node, start: list[str]) -> _Node:
    """The frame at which the profiler was started, or the outermost that tells branches apart."""
    root = _only(top)
    if root is None:
        return top
    if start and root.identifier == start[0]:
        for identifier in start[1:]:
            child = _only(root)
            if child is None or child.identifier != identifier:
                break
            root = child
    root.parent = None
    return root


def _only(node: _Node) -> _Node | None:
    child = node.children[0] if node.children else None
    return child if child is not None and child.whole and child.identifier != _SELF else None


def _ranked(root: _Node) -> list[_Node]:
    """All frames by time, callers before those whom they call."""
    outwards_first, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        outwards_first.append(node)
        waiting.extend(reversed(node.children))
    outwards_first.sort(key=_time_of, reverse=True)
    return outwards_first


# --- How much of it is shown ----------------------------------------------------------------------------------------


class _Look(NamedTuple):
    """One way to print the tree, and how much it may leave out before a denser one is preferred.

    Args:
        draw: Returns the lines and how many frames they show, or None where they don't fit.
        innermost: Of frames of the application that call each other, how many are shown.
        may_hide: The share of the whole time that the largest hidden frame may have.
    """

    draw: Callable[[_Printer, Sequence[_Node], _Look, int], tuple[list[str], int] | None]
    innermost: int
    may_hide: float


def _best(printer: _Printer, look: _Look, ranked: list[_Node], max_bytes: int) -> tuple[list[str], int, int] | None:
    """The lines of the most frames that fit, how many they show, and of how many."""
    fits, fails = 0, len(ranked) + 1
    best: tuple[list[str], int] | None = None
    count = min(_FIRST_COUNT, len(ranked))
    while fails - fits > 1:
        room = max_bytes
        if look is not _LOOKS[0] or count < len(ranked):
            room -= len(_note(ranked, 0, 0, look)) + 1  # none is longer
        drawn = look.draw(printer, ranked[:count], look, room)
        if drawn is not None:
            fits, best = count, drawn
        else:
            fails = count
        count = min(2 * fits, len(ranked)) if fails > len(ranked) else (fits + fails) // 2
        if fits == len(ranked):
            break
    return None if best is None else (*best, fits)


def _note(ranked: list[_Node], count: int, shown: int, look: _Look) -> str:
    """The last line, which says how many frames are not shown for want of room."""
    if look is _LOOKS[0]:  # what its groups hide they say themselves
        return _hidden(_frames(ranked[count:]), "smaller frame")
    return _hidden(_frames(ranked) - shown)


def _hidden(count: int, kind: str = "frame") -> str:
    return f"[{count} {kind}{'s' if count != 1 else ''} hidden]"


def _frames(nodes: Iterable[_Node]) -> int:
    return sum(not node.synthetic for node in nodes)


# --- Lines ----------------------------------------------------------------------------------------------------------


class _Printer:
    """What the lines have in common: the precision of times, and the paths from which files are shown."""

    def __init__(self, session: Session, root: _Node) -> None:
        self.root = root
        self.large = _LARGE_SELF_SHARE * root.time
        self._precision = math.ceil(-math.log10(min(max(1e-9, session.max_interval), 1)))
        self._paths = tuple(session.sys_path)

    def line(self, node: _Node, time: float | None = None) -> str:
        """As pyinstrument prints it."""
        name, position = self.label(node)
        return f"{self.time(node.time if time is None else time)} {name}  {position}".rstrip()

    def time(self, time: float) -> str:
        return f"{time:.{self._precision}f}" if time < _LONG_TIME else f"{time:.3g}"

    def label(self, node: _Node) -> tuple[str, str]:
        """Name and position, made once for each frame that is shown."""
        if node.label is None:
            name = f"{node.class_name}.{node.name}" if node.class_name else node.name
            position = self.file(node)
            line = node.identifier.split("\0")[2:3]
            if position and line and line[0].isdecimal() and line[0].strip("0"):
                position = f"{position}:{line[0].lstrip('0')}"
            node.label = one_line(name), one_line(position)
        return node.label

    def file(self, node: _Node) -> str:
        if node.synthetic and node.parent is not None:
            node = node.parent
        return short_path(node.file, self._paths) if node.file else ""


@lru_cache(maxsize=4096)
def short_path(path: str, sys_path: tuple[str, ...]) -> str:
    """*path* as seen from that entry of *sys_path* from which it is shortest, as pyinstrument shortens it."""
    if "/" not in path:
        return path
    best, length = path, len(path.split("/"))
    target = _components(path)
    for entry in sys_path:
        base = _components(entry)
        common = len(list(takewhile(bool, map(eq, target, base))))
        up, down = len(base) - common, target[common:]
        candidate = max(up + len(down), 1)
        if candidate < length:
            best, length = "/".join([".."] * up + down) or ".", candidate
    return best


@lru_cache(maxsize=1024)
def _components(path: str) -> list[str]:
    try:
        whole = os.path.abspath(path)  # noqa: PTH100 - resolve() would look at the disk
    except OSError:  # relative, and the current directory is gone
        whole = os.path.normpath(f"/{path}")
    return [part for part in whole.split("/") if part]


def _connect(shown: Sequence[_Node]) -> list[_Node]:
    """Give each of the shown frames those of its callees that are shown, the largest first; return all of those."""
    for node in shown:
        node.kids = []
        node.group = None
        node.height = 0
    for node in shown[1:]:
        if node.parent is not None:
            node.parent.kids.append(node)
    needless = set()
    for node in shown:
        if len(node.kids) == 1 and node.kids[0].identifier == _SELF:
            needless.add(node.kids.pop())
    return [node for node in shown if node not in needless]


# As pyinstrument: frames of libraries that call each other are one group, of which the outermost is shown, those that
# call the application, and those that took much time themselves.


def _draw_groups(printer: _Printer, ranked: Sequence[_Node], _look: _Look, room: int) -> tuple[list[str], int] | None:
    groups = []
    for node in _connect(ranked)[1:]:
        caller = node.parent
        if node.application or caller is None:
            continue
        if caller.group is None and any(not kid.application for kid in node.kids):
            group = _Group()
            groups.append(group)
        elif caller.group is not None:
            group = caller.group
        else:
            continue
        node.group = group
        group.nodes.append(node)
    for group in groups:
        hidden = {
            node
            for node in group.nodes[1:]
            if not any(kid.application for kid in node.kids) and node.self_time() <= printer.large
        }
        if len(hidden) >= _FEWEST_HIDDEN:
            group.hidden = hidden
    return _tree_of_groups(printer, room)


def _tree_of_groups(printer: _Printer, room: int) -> tuple[list[str], int] | None:
    lines: list[str] = []
    waiting = [(printer.root, "", "")]
    room += 1
    count = 0
    while waiting:
        node, indent, inner = waiting.pop()
        glyphs = ("├─ ", "│  ", "└─ ", "   ")
        group = node.group
        first = len(lines)
        if group is None or node not in group.hidden:
            lines.append(indent + printer.line(node))
            count += not node.synthetic
            if group is not None and group.hidden and group.nodes[0] is node:
                lines.append(f"{inner}   {_description(printer, group)}")
                glyphs = ("      ",) * 4
        else:
            glyphs = ("",) * 4
        room -= sum(utf8_length(line) + 1 for line in lines[first:])
        if room < 0:
            return None
        last = max((at for at, kid in enumerate(node.kids) if not _is_hidden(kid)), default=-1)
        branches = [
            (kid, inner + glyphs[0], inner + glyphs[1]) if at < last else (kid, inner + glyphs[2], inner + glyphs[3])
            for at, kid in enumerate(node.kids)
        ]
        waiting.extend(reversed(branches))
    return lines, count


def _is_hidden(node: _Node) -> bool:
    return node.group is not None and node in node.group.hidden


def _description(printer: _Printer, group: _Group) -> str:
    libraries: dict[str, None] = {}
    for node in group.nodes:
        if node in group.hidden:
            libraries[_library(printer.file(node))] = None
    libraries.pop("", None)
    named = one_line(", ".join(libraries))
    if len(named) > _LIBRARIES_CHARACTERS:
        named = named[: _LIBRARIES_CHARACTERS - 3] + "..."
    return f"[{len(group.hidden)} frames hidden]  {named}".rstrip()


@lru_cache(maxsize=4096)
def _library(file: str) -> str:
    return re.split(r"[\\/.]", file, maxsplit=1)[0]


# Denser: of libraries only what the application called and where the calls end; of the application the innermost.


def _draw_application(
    printer: _Printer, ranked: Sequence[_Node], look: _Look, room: int
) -> tuple[list[str], int] | None:
    shown = _connect(ranked)
    for node in reversed(shown):
        if node.parent is not None and node is not shown[0]:
            node.parent.height = max(node.parent.height, node.height + node.application)
    callees: dict[_Node, dict[str, _Node]] = {}
    count = 0
    for node in shown:
        node.shown_time = 0.0
        node.anchor = outer = node if node.parent is None else node.parent.anchor
        if node is shown[0] or _matters(node, look, printer):
            # What was called on several ways that are not shown is one line.
            node.anchor = node if node is outer else callees.setdefault(outer, {}).setdefault(node.identifier, node)
            node.anchor.shown_time += node.time
            count += not node.synthetic
    lines: list[str] = []
    waiting = [(printer.root, "", "")]
    room += 1
    while waiting:
        node, indent, inner = waiting.pop()
        line = indent + printer.line(node, node.shown_time)
        lines.append(line)
        room -= utf8_length(line) + 1
        if room < 0:
            return None
        kids = sorted(callees.get(node, {}).values(), key=_shown_time_of, reverse=True)
        branches = [
            (kid, f"{inner}├─ ", f"{inner}│  ") if at < len(kids) else (kid, f"{inner}└─ ", f"{inner}   ")
            for at, kid in enumerate(kids, 1)
        ]
        waiting.extend(reversed(branches))
    return lines, count


def _matters(node: _Node, look: _Look, printer: _Printer) -> bool:
    if node.application:
        return node.height < look.innermost
    if node.height or node.synthetic:
        return False
    if node.self_time() > printer.large or not node.kids:
        return True
    return look.innermost > 1 and node.parent is not None and node.parent.application


_LOOKS: Final = (
    _Look(_draw_groups, 0, 0.05),
    _Look(_draw_application, 1_000_000, 0.1),
    _Look(_draw_application, 8, 0.15),
    _Look(_draw_application, 4, 0.25),
    _Look(_draw_application, 2, 0.4),
    _Look(_draw_application, 1, 0.5),
)


def _one_place(printer: _Printer, ranked: list[_Node], max_bytes: int) -> str:
    """Where there is room for next to nothing: the whole time, and the innermost place that took most of it."""
    root = printer.root
    place = node = root
    while node.children:
        node = node.children[0]
        if node.time < root.time / 2:
            break
        if node.application or not (place.application or node.synthetic):
            place = node
    frames = _frames(ranked)

    def texts() -> Iterable[str]:
        if place is not root:
            yield f"{printer.line(root)}\n└─ {printer.line(place)}\n{_hidden(frames - 2 + root.synthetic)}"
        note = _hidden(frames - 1 + (root.synthetic and place is root))
        yield f"{printer.line(place)}\n{note}"
        time, (name, position) = printer.time(place.time), printer.label(place)
        yield f"{time} {name}  {position.rpartition('/')[2]}\n{note}"
        yield f"{time} {name}\n{note}"
        room = max_bytes - utf8_length(f"{time} ...\n{note}")
        if room >= _SHORTEST_NAME:
            yield f"{time} {cut(name, room)}...\n{note}"
        yield f"{time}\n{note}"

    return next((text for text in texts() if utf8_length(text) <= max_bytes), "")
