"""A whole profile as files, written piece by piece: pyinstrument's interactive page, and its session as JSON.

Wanted: a profile of thirty seconds is written while other requests run, and none of them waits for it.

Does not work: ``HTMLRenderer().render`` and ``json.dumps``. Each is one call into C code for megabytes of text, which
keeps the GIL for tenths of a second, and the tree of frames takes hundreds of megabytes.

So: sample by sample, a few lines of Python for each, and a real pause after each millisecond, in which whoever waits
for the GIL gets it. The page's tree is written in the order of the samples: of a frame its callees come before its
time, which is known only then, so that no more than one stack is in memory.

The page goes to a browser with whatever names the code has: no ``<`` of theirs is written as such. And it asks nobody
for anything: the fonts that pyinstrument's page would fetch tell a stranger who looks at a profile, and when.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Final

from otel_introspect.engine.native import allocate_lock

if TYPE_CHECKING:
    from pyinstrument.session import Session

Write = Callable[[bytes], object]
_Record = tuple[list[str], float]

_PIECE_CHARACTERS: Final = 32 * 1024
_WORK_SECONDS: Final = 0.001
# As little as the operating system will do; a sleep of nothing would not let anybody else in.
_PAUSE_SECONDS: Final = 0.000_1
_MAX_ENCODED: Final = 20_000
# From there on pyinstrument's page is too slow to use.
_MAX_RECORDS: Final = 100_000
_RESAMPLED: Final = 10_000

_FONTS: Final = r"https?://fonts\.[^\"'`)\s]*"

_ROOT: Final = "[root]"
_SELF: Final = "[self]"
_LEAVES: Final = frozenset({_SELF, "[await]", "[out-of-context]"})


def write_session_json(session: Session, write: Write) -> None:
    """Write what ``pyinstrument.session.Session.load`` reads.

    Args:
        session: The profile.
        write: Takes the next bytes, as a binary file's ``write``.
    """
    _write(_session_json(session), write)


def write_html(session: Session, write: Write) -> None:
    """Write pyinstrument's page, with the profile in it.

    Args:
        session: The profile.
        write: Takes the next bytes, as a binary file's ``write``.

    Raises:
        RuntimeError: If this version of pyinstrument makes its page in another way.
    """
    before, after = _page()
    write(before)
    _write((text.replace("<", "\\u003c") for text in _page_data(session)), write)
    write(after)


def _write(texts: Iterable[str], write: Write) -> None:
    """Join *texts* into pieces, and let others run in between."""
    pause = allocate_lock()  # sleeps as a thread of the operating system does, under gevent too
    pause.acquire()
    pieces: list[str] = []
    size = 0
    began = perf_counter()
    for text in texts:
        pieces.append(text)
        size += len(text)
        if size >= _PIECE_CHARACTERS:
            write("".join(pieces).encode("ascii"))
            pieces, size = [], 0
        if perf_counter() - began >= _WORK_SECONDS:
            pause.acquire(timeout=_PAUSE_SECONDS)
            began = perf_counter()
    write("".join(pieces).encode("ascii"))


# --- The session ----------------------------------------------------------------------------------------------------


def _session_json(session: Session) -> Iterator[str]:
    yield json.dumps(session.to_json(include_frame_records=False))[:-1]
    yield ', "frame_records": ['
    encoded: dict[str, str] = {}
    separator = ""
    for stack, time in session.frame_records:
        if len(encoded) > _MAX_ENCODED:
            encoded.clear()
        infos = []
        for info in stack:
            text = encoded.get(info)
            if text is None:
                text = encoded[info] = json.dumps(info)
            infos.append(text)
        yield f"{separator}[[{', '.join(infos)}], {json.dumps(time)}]"
        separator = ", "
    yield "]}"


# --- The page -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _page() -> tuple[bytes, bytes]:
    """The page before and after the profile, as the installed pyinstrument makes it, without its fonts."""
    from pyinstrument.renderers.html import HTMLRenderer, JSONForHTMLRenderer
    from pyinstrument.session import Session

    empty = Session([], 0.0, 0.0, 0.001, 0.001, 0, [], "otel_introspect", 0.0, [], [])
    data = JSONForHTMLRenderer().render(empty)
    before, found, after = HTMLRenderer().render(empty).partition(data)
    if not found:
        msg = "this version of pyinstrument makes its page in another way"
        raise RuntimeError(msg)
    before = re.sub(_FONTS, "data:text/css,", before)
    return before.encode("utf-8"), after.encode("utf-8")


def _page_data(session: Session) -> Iterator[str]:
    head = json.dumps(session.to_json(include_frame_records=False))
    yield f'{{"session": {head}, "frame_tree": '
    if session.frame_records:
        yield from _tree(_bounded(session.frame_records), session.start_call_stack)
    else:
        yield "null"
    yield "}"


def _bounded(records: list[_Record]) -> list[_Record]:
    """*records*, or where the page can't show so many, one for each span of time, with all of that time.

    Not by pyinstrument's own ``resample``, which counts a part of the time twice.
    """
    if len(records) <= _MAX_RECORDS:
        return records
    interval = sum(time for _, time in records) / _RESAMPLED
    bounded: list[_Record] = []
    waiting = 0.0
    for stack, time in records:
        waiting += time
        if waiting >= interval:
            bounded.append((stack, waiting))
            waiting = 0.0
    if waiting:
        bounded.append((records[-1][0], waiting))
    return bounded


class _Open:
    """A frame that may still be called on: written up to its callees."""

    __slots__ = ("attributes", "identifier", "self_time", "time", "written")

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        self.time = 0.0
        self.attributes: dict[str, float] = {}
        self.self_time: float | None = None
        self.written = False
        """Whether a callee stands before the next one."""

    def begin(self) -> str:
        return f'{{"identifier": {_encoded(self.identifier)}, "children": ['

    def flush_self(self) -> str:
        """The time in this frame itself since the last callee, which pyinstrument shows as a frame of its own."""
        if self.self_time is None:
            return ""
        time, self.self_time = self.self_time, None
        return f'{self.separator()}{{"identifier": "{_SELF}", "time": {time:f}, "attributes": {{}}, "children": []}}'

    def separator(self) -> str:
        separator = "," if self.written else ""
        self.written = True
        return separator

    def end(self) -> str:
        attributes = json.dumps(self.attributes) if self.attributes else "{}"
        return f'{self.flush_self()}], "time": {self.time:f}, "attributes": {attributes}}}'


def _tree(records: list[_Record], start_call_stack: list[str]) -> Iterator[str]:
    """The tree of frames in the order of time, without the stem that pyinstrument leaves out."""
    skipped, top = yield from _stem(records, start_call_stack)
    path = [_Open(_ROOT if top is None else top)]
    yield path[0].begin()
    for stack, time in records:
        infos = stack[skipped:] if top is None else stack[skipped + 1 :]
        keep = 1
        for info in infos:
            if keep == len(path) or path[keep].identifier != info.partition("\1")[0]:
                break
            keep += 1
        while len(path) > keep:
            yield path.pop().end()
        for info in infos[keep - 1 :]:
            inner = _Open(info.partition("\1")[0])
            outer = path[-1]
            yield f"{outer.flush_self()}{outer.separator()}{inner.begin()}"
            path.append(inner)
        _add_time(path, None if top is None else stack[skipped], infos, time)
        last = path[-1]
        if last.identifier not in _LEAVES:
            last.self_time = (last.self_time or 0.0) + time
    while path:
        yield path.pop().end()


def _add_time(path: list[_Open], outermost: str | None, infos: list[str], time: float) -> None:
    for at, frame in enumerate(path):
        frame.time += time
        info = infos[at - 1] if at else outermost
        said = info.partition("\1")[2] if info is not None else ""
        if said:
            attributes = frame.attributes
            for attribute in said.split("\1"):
                attributes[attribute] = attributes.get(attribute, 0.0) + time


def _stem(records: list[_Record], start_call_stack: list[str]) -> Generator[str, None, tuple[int, str | None]]:
    """How many outer frames are left out, and the identifier of the outermost that is not, if all samples share it.

    Yields nothing to write, only an occasion to let others run.
    """
    first = records[0][0]
    common = [info.partition("\1")[0] for info in first]
    for stack, _ in records:
        yield ""
        if stack[: len(common)] == first[: len(common)]:
            continue
        agreed = 0
        for identifier, info in zip(common, stack, strict=False):
            # What belongs to a name is nearly always the name itself or goes on with its attributes.
            if not info.startswith(identifier) or info.partition("\1")[0] != identifier:
                break
            agreed += 1
        del common[agreed:]
    if not common:
        return 0, None
    start = [info.partition("\1")[0] for info in start_call_stack]
    agreed = 0
    while agreed < len(common) and agreed < len(start) and common[agreed] == start[agreed]:
        agreed += 1
    skipped = max(agreed - 1, 0)
    return skipped, common[skipped]


@lru_cache(maxsize=4096)
def _encoded(text: str) -> str:
    return json.dumps(text)
