"""What is written where."""

from __future__ import annotations

import io

from otel_introspect.demo.screen import Screen


class Terminal(io.StringIO):
    """A stream that says a person looks at it."""

    def isatty(self):
        return True


def test_progress_is_for_terminals_only():
    """
    A file gets no progress line.
    """
    out = io.StringIO()
    Screen(out).progress("opening")

    assert out.getvalue() == ""


def test_progress_makes_way_for_what_is_said():
    """
    On a terminal the progress line is cleared before anything else is written, and at the end.
    """
    out = Terminal()
    screen = Screen(out)

    screen.progress("one")
    screen.progress("two")
    screen.say("said")
    screen.progress("three")
    screen.close()

    assert out.getvalue() == "… one\r\x1b[K… two\r\x1b[Ksaid\n… three\r\x1b[K"


def test_a_reader_that_went_away_is_no_error():
    """
    After the stream was closed nothing is written and nothing raised.
    """
    out = io.StringIO()
    screen = Screen(out)
    out.close()

    screen.say("anybody?")
    screen.say("anybody?")
    screen.close()

    assert screen.gone


def test_what_a_server_said_can_do_no_harm():
    """
    Control characters in a line that is passed on are shown, not sent.
    """
    out = io.StringIO()
    Screen(out).say("log: \x1b[2J")

    assert out.getvalue() == "log: \\x1b[2J\n"
