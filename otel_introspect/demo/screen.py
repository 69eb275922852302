"""What the person who runs the demo sees."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import TextIO

from otel_introspect.exporters.styled import Line, Segment, Style, harmless, shortened
from otel_introspect.exporters.terminal import glyphs_for, is_terminal, write


class Screen:
    """A stream that gets lines, and on a terminal one more at the end that says what is going on.

    Once the stream is gone nothing is written any more, and ``gone`` says so.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = is_terminal(out)
        self._progress_shown = False
        self.glyphs = glyphs_for(out)
        self.gone = False

    def say(self, text: str = "", style: Style = "plain") -> None:
        """One line, or several."""
        self.show([(Segment(harmless(line), style),) for line in text.split("\n")])

    def show(self, lines: Iterable[Line]) -> None:
        """Lines that are made already."""
        self._clear_progress()
        try:
            if not self.gone:
                write(self._out, lines)
        except (OSError, ValueError):  # `| head`: the demo goes on to its orderly end, in silence
            self.gone = True

    def progress(self, text: str) -> None:
        """Say on a terminal what is going on; the next words replace it."""
        if not self._terminal or self.gone:
            return
        self._clear_progress()
        # In one row: only the last row of a longer line would be cleared.
        room = shutil.get_terminal_size().columns - 1
        self._raw(shortened(f"{self.glyphs.ellipsis} {harmless(text)}", room, self.glyphs))
        self._progress_shown = True

    def _clear_progress(self) -> None:
        if self._progress_shown:
            self._progress_shown = False
            self._raw("\r\x1b[K")

    def _raw(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):
            self.gone = True

    def close(self) -> None:
        """Leave the last line free."""
        self._clear_progress()
