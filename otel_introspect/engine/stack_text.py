"""Captures as text: in Python's own format, within a number of UTF-8 bytes, the innermost frames kept."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Final, NamedTuple

from otel_introspect.engine.ownership import is_application
from otel_introspect.engine.stacks import Capture

# Bounded because code made at run time would otherwise be kept alive for ever.
_MAX_RESOLVED: Final = 8192
_MAX_SOURCE_CHARACTERS: Final = 200


class FrameText(NamedTuple):
    """One frame, as a reader wants it.

    Args:
        code: Keeps the code object alive, so that its id, by which this is cached, stays its own.
        name: The bare name, as ``traceback`` has it.
        function: The qualified name where the interpreter knows it (3.11), the bare one elsewhere.
        file: As the code object has it, made safe for UTF-8.
        line: From 1.
        source: The line's text, stripped; empty if it can't be had.
        application: Whether it is the application's own.
    """

    code: CodeType
    name: str
    function: str
    file: str
    line: int
    source: str
    application: bool

    def lines(self) -> str:
        """As ``traceback`` prints it."""
        location = f'  File "{self.file}", line {self.line}, in {self.name}\n'
        return f"{location}    {self.source}\n" if self.source else location

    def short(self) -> str:
        """On one line, without the source."""
        return f"{self.function} ({self.file}:{self.line})"


class StackText(NamedTuple):
    """A resolved capture.

    Args:
        frames: Innermost first.
        omitted: How many outer frames the capture had left out.
    """

    frames: tuple[FrameText, ...]
    omitted: int

    def culprit(self) -> FrameText | None:
        """The innermost frame of the application; the innermost one at all where the application has none."""
        for frame in self.frames:
            if frame.application:
                return frame
        return self.frames[0] if self.frames else None

    def text(self, max_bytes: int) -> tuple[str, bool]:
        """Most recent call last, in at most *max_bytes* of UTF-8, and whether frames were left out for that.

        Outer frames go first; the first line says how many are missing.
        """
        blocks = [frame.lines() for frame in self.frames]
        sizes = [utf8_length(block) for block in blocks]
        if not self.omitted and sum(sizes) <= max_bytes + 1:  # the last newline goes
            return "".join(reversed(blocks)).rstrip("\n"), False
        room = max_bytes + 1 - utf8_length(_omission(len(blocks) + self.omitted))
        kept = 0
        while kept < len(blocks) and sizes[kept] <= room:
            room -= sizes[kept]
            kept += 1
        if not kept:  # not even one frame: its text is cut, as it says more than none
            return (cut(blocks[0].rstrip("\n"), max_bytes) if blocks else ""), True
        missing = len(blocks) - kept + self.omitted
        return _omission(missing) + "".join(reversed(blocks[:kept])).rstrip("\n"), True


def _omission(count: int) -> str:
    return f"  [{count} outer frame{'s' if count != 1 else ''} omitted]\n"


_resolved: dict[tuple[int, int], FrameText] = {}


def resolve(capture: Capture, may_read: Callable[[str], bool] | None = None) -> StackText:
    """Find names, lines and source text; reads files, so never on a request's thread if it can be helped.

    Args:
        capture: The stack.
        may_read: Whether a file may be read, where that is not known to be the source of what runs in this process.
    """
    frames = []
    for code, lasti in capture.positions:
        key = (id(code), lasti)
        known = _resolved.get(key)
        if known is None or known.code is not code:
            if len(_resolved) >= _MAX_RESOLVED:
                _resolved.clear()
            known = _resolved[key] = _resolve_one(code, lasti, may_read)
        frames.append(known)
    return StackText(tuple(frames), capture.omitted)


def _resolve_one(code: CodeType, lasti: int, may_read: Callable[[str], bool] | None) -> FrameText:
    line = line_of(code, lasti)
    source = "" if may_read is not None and not may_read(code.co_filename) else _source(code.co_filename, line)
    return FrameText(
        code=code,
        name=one_line(code.co_name),
        function=one_line(getattr(code, "co_qualname", code.co_name)),
        file=one_line(code.co_filename),
        line=line,
        source=one_line(source)[:_MAX_SOURCE_CHARACTERS],
        application=is_application(code),
    )


def _source(file: str, line: int) -> str:
    try:
        return linecache.getline(file, line).strip()
    except Exception:  # noqa: BLE001 - a name with a zero in it, a loader of the application's that raises
        return ""


def line_of(code: CodeType, lasti: int) -> int:
    """The line that the instruction at *lasti* belongs to."""
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno


def one_line(text: str) -> str:
    """*text* in one line and fit for UTF-8: one lone surrogate makes an exporter lose its whole batch."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return safe if safe.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in safe)


def _escaped(character: str) -> str:
    return " " if character == "\t" else character.encode("unicode_escape").decode("ascii")


def utf8_length(text: str) -> int:
    """How many bytes *text* has in UTF-8; a lone surrogate counts as what ``cut`` makes of it."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))


def cut(text: str, max_bytes: int) -> str:
    """The head of *text* that fits into *max_bytes* of UTF-8, no character cut in two, no lone surrogate left."""
    encoded = text.encode("utf-8", "backslashreplace")
    return encoded[:max_bytes].decode("utf-8", "ignore") if len(encoded) > max_bytes else encoded.decode("utf-8")


def shorts(frames: Sequence[FrameText], omitted: int, max_bytes_each: int) -> list[str]:
    """One line for each frame, innermost first, and one that says what the capture left out."""
    lines = [cut(frame.short(), max_bytes_each) for frame in frames]
    if omitted:
        lines.append(cut(_omission(omitted).strip(), max_bytes_each))
    return lines
