"""Lines onto a text stream: coloured if it is a terminal and rich is there, and in characters that it can show."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, TextIO

from otel_introspect import faults
from otel_introspect.exporters.styled import ASCII, UNICODE, Glyphs, Line, Style, plain

_STYLES: Final[dict[Style, str]] = {
    "plain": "",
    "dim": "bright_black",
    "name": "bold",
    "slow": "bold red",
    "error": "red",
    "note": "cyan",
    "application": "bold yellow",
    "source": "yellow",
}


def glyphs_for(out: TextIO) -> Glyphs:
    """What *out* can be drawn on with."""
    try:
        "".join(UNICODE).encode(_encoding(out))
    except (UnicodeError, LookupError):
        return ASCII
    return UNICODE


def is_terminal(out: TextIO) -> bool:
    """Whether a person looks at *out*, as far as one can tell."""
    try:
        return out.isatty()
    except (AttributeError, ValueError, OSError):  # a stand-in for a stream, a closed one
        return False


def write(out: TextIO, lines: Iterable[Line]) -> None:
    """Write *lines* and flush, all at once so that other processes' output does not come between.

    Raises:
        OSError: If the stream's other end is gone.
        ValueError: If the stream is closed.
    """
    lines = list(lines)
    text = _coloured(out, lines) if _wants_colour(out) else None
    if text is None:
        text = "".join(f"{plain(line).rstrip()}\n" for line in lines)
    out.write(_writable(text, out))
    out.flush()


def _encoding(out: TextIO) -> str:
    return getattr(out, "encoding", None) or "utf-8"


def _writable(text: str, out: TextIO) -> str:
    encoding = _encoding(out)
    try:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    except (UnicodeError, LookupError):  # an encoding that can't do even that
        return text.encode("ascii", "backslashreplace").decode("ascii")


def _wants_colour(out: TextIO) -> bool:
    # no-color.org: set to anything but the empty string.
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and is_terminal(out)


def _coloured(out: TextIO, lines: list[Line]) -> str | None:
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        return None
    try:
        console = Console(file=out, highlight=False, markup=False, emoji=False)
        with console.capture() as captured:
            for line in lines:
                # Pieces, never markup: a stack may well contain "[/]".
                console.print(Text.assemble(*((text, _STYLES[style]) for text, style in line)), soft_wrap=True)
        return captured.get()
    except Exception as error:  # noqa: BLE001 - plain text is better than none
        faults.failed("colouring a trace", error)
        return None
