"""Stacks as text."""

from __future__ import annotations

import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_introspect.engine.ownership import is_application, is_library
from otel_introspect.engine.stack_text import FrameText, StackText, cut, line_of, one_line, resolve, shorts, utf8_length
from otel_introspect.engine.stacks import capture, outwards

hostile_text = st.text(st.characters(exclude_categories=[]), max_size=60)


def stack_of(*functions: str, source: str = "call()", omitted: int = 0) -> StackText:
    code = sys._getframe().f_code
    frames = tuple(FrameText(code, name, name, "/srv/app.py", 7, source, application=True) for name in functions)
    return StackText(frames, omitted)


def test_text_is_what_traceback_prints():
    """
    An uncut stack reads exactly as Python itself prints it, most recent call last.
    """

    def inner():
        return capture(outwards(sys._getframe())), traceback.format_stack(limit=2)

    def outer():
        return inner()

    stack, expected = outer()
    text, was_cut = resolve(stack).text(100_000)

    assert not was_cut
    mine = [line for line in text.splitlines()[-4:] if "^" not in line]
    theirs = [line for line in "".join(expected).splitlines() if "^" not in line]
    assert mine == theirs


def test_outer_frames_are_cut_first_and_the_first_line_says_how_many():
    """
    Of a stack that is too long the innermost frames stay; the first line counts the others.
    """
    stack = stack_of(*[f"f{n}" for n in range(50)])

    text, was_cut = stack.text(300)

    assert was_cut
    first, *rest = text.splitlines()
    kept = sum("File" in line for line in rest)
    assert first == f"  [{50 - kept} outer frames omitted]"
    assert rest[-2].endswith("in f0")
    assert kept >= 1


def test_frames_that_the_capture_left_out_are_counted_too():
    """
    What the capture's own bound dropped is part of the number in the first line.
    """
    text, was_cut = stack_of("f0", "f1", omitted=70).text(2000)

    assert was_cut
    assert text.splitlines()[0] == "  [70 outer frames omitted]"


@given(names=st.lists(hostile_text, min_size=1, max_size=20), source=hostile_text, room=st.integers(64, 2000))
def test_text_never_is_longer_than_it_may_be(names, source, room):
    """
    Whatever names and lines hold, the text has at most so many bytes of UTF-8 and is valid UTF-8.
    """
    code = sys._getframe().f_code
    frames = tuple(
        FrameText(code, one_line(n), one_line(n), one_line(n), 1, one_line(source), application=True) for n in names
    )

    text, _ = StackText(frames, 3).text(room)

    assert len(text.encode("utf-8")) <= room


@given(text=hostile_text, room=st.integers(0, 80))
def test_cut_keeps_whole_characters(text, room):
    """
    A cut text is a head of the safe text, in at most so many bytes, with no character split.
    """
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")

    result = cut(text, room)

    assert safe.startswith(result)
    assert len(result.encode("utf-8")) <= room
    assert len(safe.encode()) <= room or len(safe[: len(result) + 1].encode()) > room


@given(text=hostile_text)
def test_names_are_made_harmless(text):
    """
    A name with line breaks, control characters or lone surrogates becomes one printable line that UTF-8 can hold.
    """
    line = one_line(text)

    line.encode("utf-8")
    assert line.isprintable()
    assert utf8_length(line) == len(line.encode("utf-8"))


def test_culprit_is_the_innermost_frame_of_the_application():
    """
    The function that is named on the event is the application's, not the library function that it called.
    """
    code = sys._getframe().f_code
    library = FrameText(code, "wait", "Condition.wait", "/usr/lib/python3.11/threading.py", 1, "", application=False)
    mine = FrameText(code, "view", "view", "/srv/views.py", 2, "", application=True)

    assert StackText((library, mine), 0).culprit() is mine
    assert StackText((library,), 0).culprit() is library
    assert StackText((), 0).culprit() is None


def test_position_before_the_first_instruction_has_a_line():
    """
    A generator that has not started stands at -1, which is the line of its ``def``.
    """

    def generator():
        yield

    assert line_of(generator.__code__, -1) == generator.__code__.co_firstlineno


def test_frames_list_is_innermost_first_and_says_what_is_missing():
    """
    The list form has a line for each frame, and a last one for those that the capture left out.
    """
    lines = shorts(stack_of("f0", "f1").frames, 12, 2000)

    assert lines == ["f0 (/srv/app.py:7)", "f1 (/srv/app.py:7)", "[12 outer frames omitted]"]


@pytest.mark.parametrize(
    ("filename", "library"),
    [
        ("/srv/shop/views.py", False),
        ("/srv/shop/.venv/lib/python3.12/site-packages/django/db/models/query.py", True),
        ("/usr/lib/python3/dist-packages/django/db/models/query.py", True),
        ("/usr/lib/python3.11/threading.py", True),
        (traceback.__file__, True),
        ("<frozen importlib._bootstrap>", True),
        ("<string>", False),
        ("<stdin>", False),
    ],
)
def test_library_code_is_told_by_where_it_lies(filename, library):
    """
    Installed, standard and frozen code is a library's, the rest the application's.
    """
    assert is_library(filename) is library


def test_dunder_methods_made_from_text_are_no_application_code():
    """
    The ``__init__`` that ``dataclasses`` makes is not where an application is stuck.
    """
    namespace: dict[str, object] = {}
    exec(compile("def __init__(self): pass\ndef job(): pass", "<string>", "exec"), namespace)

    assert not is_application(namespace["__init__"].__code__)
    assert is_application(namespace["job"].__code__)
