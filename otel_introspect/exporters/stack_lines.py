"""A stack in Python's own text format as lines in which the application's frames stand out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from otel_introspect.engine.ownership import is_library
from otel_introspect.exporters.styled import UNICODE, Glyphs, Line, Segment, harmless, shortened

_FRAME: Final = re.compile(r'(\s*)File "(.+)", line (\d+), in (.*)')
_SHORT: Final = re.compile(r"(.*?) \((.*):(\d+)\)")
_CARETS: Final = re.compile(r"[\s^~]+")
_INSTALLED: Final = re.compile(r"^.*[/\\](?:site|dist)-packages[/\\]|^.*[/\\]lib[/\\](?=python3\.\d+t?[/\\])")
_MAX_LINES: Final = 200
_MAX_CHARACTERS: Final = 200


def stack_lines(text: str, glyphs: Glyphs = UNICODE, variables: Sequence[str] = ()) -> list[Line]:
    """One or two lines for each frame of *text*, most recent call last as it came.

    The application's frames have a sign before them, their path in full (so that a terminal makes it a link) and their
    source. A library's frame is dimmed and its path begins inside site-packages; only the innermost has its source.
    What is not a frame (how many were omitted, the heading of a thread) is kept as it is.

    *variables* has a text for some of the frames, innermost first: ``in function (file:line)``, and its variables in
    the lines below that. They are shown below that frame.
    """
    given = [line for line in text.split("\n") if line.strip()]
    lines = list(_lines(given, glyphs, _by_frame(given, variables)))
    if len(lines) <= _MAX_LINES:
        return lines
    left_out = len(lines) - _MAX_LINES
    return [(Segment(f"{glyphs.ellipsis} {left_out} lines left out", "dim"),), *lines[left_out:]]


def thread_lines(text: str, glyphs: Glyphs = UNICODE) -> list[Line]:
    """Several stacks, each under a heading that is not indented.

    Of a stack without any frame of the application's only the innermost frame is shown: a thread that waits for work.
    """
    lines: list[Line] = []
    stacks: list[list[str]] = []
    for line in text.split("\n"):
        if not stacks or (line and not line[0].isspace()):
            stacks.append([])
        stacks[-1].append(line)
    for stack in stacks:
        frames = [index for index, line in enumerate(stack) if _FRAME.fullmatch(line)]
        idle = frames and not any(_is_application(stack[index]) for index in frames)
        lines += stack_lines("\n".join(stack[: frames[0]] + stack[frames[-1] :] if idle else stack), glyphs)
    return lines


def with_omitted(text: str, frames: Sequence[str]) -> str:
    """*text* with the application's frames put back that it had to leave out.

    *frames* is the whole stack, innermost first, each ``function (file:line)``; what does not look so is left out.
    """
    note, newline, rest = text.partition("\n")
    if _FRAME.fullmatch(note):
        return text
    shown = sum(_FRAME.fullmatch(line) is not None for line in rest.split("\n"))
    found = (_SHORT.fullmatch(frame) for frame in reversed(frames[shown:]))
    back = [f'  File "{short[2]}", line {short[3]}, in {short[1]}\n' for short in found if short]
    return note + newline + "".join(line for line in back if _is_application(line.rstrip("\n"))) + rest


def _is_application(line: str) -> bool:
    frame = _FRAME.fullmatch(line)
    return frame is not None and not is_library(frame[2])


def _by_frame(given: list[str], variables: Sequence[str]) -> dict[int, list[str]]:
    """The variables of each frame that has any, by the number of its line."""
    found: dict[int, list[str]] = {}
    frames = [(index, frame) for index, line in enumerate(given) if (frame := _FRAME.fullmatch(line)) is not None]
    frames.reverse()
    for text in variables:
        where, *lines = text.split("\n")
        short = _SHORT.fullmatch(where.removeprefix("in "))
        name = "" if short is None else short[1].rpartition(".")[2]
        for place, (index, frame) in enumerate(frames):
            if short is not None and (frame[2], frame[3], frame[4]) == (short[2], short[3], name):
                found[index] = lines
                del frames[: place + 1]  # both come innermost first
                break
    return found


def _lines(given: list[str], glyphs: Glyphs, variables: dict[int, list[str]]) -> Iterator[Line]:
    library: bool | None = None  # whose frame we are in; None outside of any
    indent = 0
    below: list[str] = []  # what follows the source of the frame that we are in
    for index, raw in enumerate(given):
        frame = _FRAME.fullmatch(raw)
        if frame is not None:
            yield from _variable_lines(below, glyphs)
            below = variables.get(index, [])
            path, number, function = frame[2], frame[3], frame[4]
            indent = len(frame[1])
            library = is_library(path)
            if library:
                inside = _INSTALLED.sub("", path)
                shown = path if inside == path else glyphs.ellipsis + "/" + inside
                location = f'  File "{_fit(shown, glyphs)}", line {number}, in {_fit(function, glyphs)}'
                yield (Segment(location, "dim"),)
            else:
                yield (
                    Segment(glyphs.application, "application"),
                    Segment(f'File "{_fit(path, glyphs, 500)}", line {number}, in ', "application"),
                    Segment(_fit(function, glyphs), "application"),
                )
        elif library is not None and len(raw) - len(raw.lstrip()) > indent:
            if _CARETS.fullmatch(raw):
                continue
            if not library:
                yield (Segment("      " + _fit(raw.strip(), glyphs), "source"),)
            elif index == len(given) - 1:
                yield (Segment("      " + _fit(raw.strip(), glyphs), "dim"),)
        else:
            library = None
            yield (Segment(_fit(raw.strip(), glyphs), "note"),)
    yield from _variable_lines(below, glyphs)


def _variable_lines(lines: list[str], glyphs: Glyphs) -> Iterator[Line]:
    for line in lines:
        yield (Segment("        " + _fit(line.strip(), glyphs), "dim"),)


def _fit(text: str, glyphs: Glyphs, length: int = _MAX_CHARACTERS) -> str:
    return shortened(harmless(text), length, glyphs)
