"""Text in pieces, each with the name of its style: what a renderer makes, and a terminal colours or does not."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from otel_introspect.engine.stack_text import one_line

Style = Literal["plain", "dim", "name", "slow", "error", "note", "application", "source"]


class Segment(NamedTuple):
    """A piece of a line; its text is harmless on any terminal."""

    text: str
    style: Style = "plain"


Line = tuple[Segment, ...]

_ONE_DECIMAL_UNTIL: Final = 9.95
_SECONDS_FROM: Final = 999.5
_NOT_A_DURATION: Final = 1e15


class Glyphs(NamedTuple):
    """The characters to draw with."""

    branch: str
    last: str
    down: str
    gap: str
    dot: str
    times: str
    ellipsis: str
    application: str


UNICODE: Final = Glyphs("├─ ", "└─ ", "│  ", "   ", " · ", "\N{MULTIPLICATION SIGN}", "…", "> ")
ASCII: Final = Glyphs("|- ", "`- ", "|  ", "   ", " - ", "x", "...", "> ")


def plain(line: Line) -> str:
    """The text of *line* without its styles."""
    return "".join(segment.text for segment in line)


def harmless(value: object) -> str:
    """Any value as one line that no terminal acts upon: control characters, lone surrogates and bidi marks escaped."""
    try:
        return one_line(value if isinstance(value, str) else str(value))
    except Exception:  # noqa: BLE001 - an integer of 5,000 digits can't be shown; that must not cost the whole trace
        return f"<{type(value).__name__} that can't be shown>"


def shortened(text: str, length: int, glyphs: Glyphs = UNICODE) -> str:
    """*text* in at most *length* characters."""
    return text if len(text) <= length else text[: max(length - len(glyphs.ellipsis), 0)] + glyphs.ellipsis


def duration(nanoseconds: float) -> str:
    """A duration as people say it.

    >>> duration(1_843_000_000), duration(12_340_000), duration(240_000)
    ('1.84 s', '12 ms', '0.2 ms')
    """
    milliseconds = nanoseconds / 1e6
    if milliseconds < _ONE_DECIMAL_UNTIL:
        return f"{milliseconds:.1f} ms"
    if milliseconds < _SECONDS_FROM:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.2f} s"


def milliseconds_of(value: object) -> str:
    """The value of an attribute in milliseconds as a duration; anything else as it is.

    >>> milliseconds_of(3), milliseconds_of(1092), milliseconds_of("soon")
    ('3 ms', '1.09 s', 'soon')
    """
    if isinstance(value, int) and 0 <= value < _SECONDS_FROM and not isinstance(value, bool):
        return f"{value} ms"  # it has been rounded: no decimals that nobody has measured
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _NOT_A_DURATION:
        return duration(value * 1e6)
    return harmless(value)
