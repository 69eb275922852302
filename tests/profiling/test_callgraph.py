"""The call graph: as DOT, and drawn by the real Graphviz."""

import shutil
import stat
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from handmade import frame, make_session, profiled_session, recursive, report_session

from otel_introspect.profiling import callgraph
from otel_introspect.profiling.formats import RenderError, render

needs_graphviz = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's program dot is not on the PATH")
needs_poppler = pytest.mark.skipif(shutil.which("pdftoppm") is None, reason="poppler's pdftoppm is not on the PATH")
ODD_NAMES = ['a"b', r"c\N\n", "d<e>", "f&lt;g", "größe_数える_😀", "{h|i}", "j;k//l", "graph", "\ud800", "m\nn\x1b[31m"]


def program(tmp_path, monkeypatch, script):
    """Put a program named dot first on the PATH."""
    path = tmp_path / "dot"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def words_of(svg):
    return [each.text for each in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_graph_has_functions_calls_and_colours():
    """
    Each function is a box with its place and share of the time, each call an arrow; where most time went is red.
    """
    text = render(report_session(), "dot").decode()

    assert text.startswith("digraph {")
    assert r"shop/summary.py:27\nsummary\n75.00%\n(30.00%)" in text
    assert r"[await]\n25.00%\n(25.00%)" in text
    assert r"[no sample]\n15.00%\n(15.00%)" in text
    assert 'color="#ff0000"' in text
    assert text.count(" -> ") == 4
    assert "\N{MULTIPLICATION SIGN}" not in text


def test_recursion_hides_no_function():
    """
    A deep recursion does not make all that is around it look small.
    """
    session = make_session(([frame("view"), *[frame("walk")] * 900], 1.0))

    text = render(session, "dot").decode()

    assert r"view\n100.00%" in text
    assert r"walk\n100.00%" in text


def test_the_graph_of_nothing_says_so():
    """
    The graph of an empty profile says that it is empty.
    """
    assert "No samples were recorded." in render(make_session(), "dot").decode()


def test_nothing_is_said_on_the_way(capfd):
    """
    gprof2dot has no reason to warn of anything.
    """
    for session in (report_session(), profiled_session(), recursive(2_000), make_session(([frame("a")], 0.0))):
        render(session, "dot")

    assert capfd.readouterr() == ("", "")


def test_without_gprof2dot_the_message_says_what_to_install(monkeypatch):
    """
    Without gprof2dot one learns what to install, and which formats do without.
    """
    monkeypatch.setitem(sys.modules, "gprof2dot", None)

    with pytest.raises(RenderError, match=r"pip install 'otel-introspect\[render\]'.*--format html"):
        render(report_session(), "dot")


def test_without_graphviz_the_message_says_what_to_install(monkeypatch, tmp_path):
    """
    Without Graphviz one learns what to install, and another way.
    """
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(RenderError, match=r"install the package graphviz.*--format dot"):
        render(report_session(), "svg")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no such output >&2; exit 1", "no such output"),
        ("exit 3", "exit status 3"),
        ("exit 0", "exit status 0"),
    ],
)
def test_graphviz_failing_is_said(script, message, tmp_path, monkeypatch):
    """
    If Graphviz fails one learns what it said, and another way.
    """
    program(tmp_path, monkeypatch, script)

    with pytest.raises(RenderError, match=rf"could not draw the graph \({message}\).*--format html"):
        render(report_session(), "pdf")


def test_graphviz_that_cannot_be_started_is_said(tmp_path, monkeypatch):
    """
    A program that is not one costs no traceback.
    """
    (tmp_path / "dot").write_bytes(b"\x7fELF")
    (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    with pytest.raises(RenderError, match="cannot be started"):
        render(report_session(), "pdf")


def test_graphviz_that_takes_too_long_tries_with_less_effort(tmp_path, monkeypatch):
    """
    If the fine drawing takes too long a plain one is made.
    """
    program(tmp_path, monkeypatch, 'cat >/dev/null; [ "$#" -gt 1 ] || exec sleep 60; echo "$@"')
    monkeypatch.setattr(callgraph, "_EFFORTS", (((), 0.3), callgraph._EFFORTS[1]))

    assert b"-Gsplines=line" in render(report_session(), "svg")


def test_graphviz_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    """
    If no drawing comes one learns so, and another way.
    """
    program(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(callgraph, "_EFFORTS", (((), 0.1), (("-x",), 0.2)))

    with pytest.raises(RenderError, match=r"within 0 seconds.*--format html"):
        render(report_session(), "svg")


@needs_graphviz
def test_odd_names_survive():
    """
    Quotes, backslashes, brackets, entities and other scripts stand in the drawing as they do in the source.
    """
    session = make_session(*(([frame("view"), frame(name, file="/srv/odd.py")], 1.0) for name in ODD_NAMES))

    words = words_of(render(session, "svg"))

    assert {*ODD_NAMES[:-2], r"\ud800", r"m\nn\x1b[31m"} <= set(words)


@needs_graphviz
@pytest.mark.parametrize(
    "session",
    [
        make_session(),
        make_session(([frame("only")], 0.01)),
        make_session((["[await]"], 0.01)),
        make_session(([frame("long" * 30_000, file="/srv/" + "x" * 30_000)], 0.5)),
        make_session(([frame("graph", file="node")], 0.5)),
        make_session(([frame("", file="")], 0.5)),
        recursive(3_000),
    ],
    ids=["empty", "one", "await", "long", "keywords", "nothing", "deep"],
)
def test_every_session_can_be_drawn(session):
    """
    Graphviz draws every session: empty, deep, with long names or with such that mean something to it.
    """
    assert ET.fromstring(render(session, "svg")).tag.endswith("svg")


@needs_graphviz
def test_a_graph_in_which_everybody_calls_everybody_is_drawn(monkeypatch):
    """
    A graph that Graphviz cannot lay out in time is drawn with less effort.
    """
    monkeypatch.setattr(callgraph, "_EFFORTS", (((), 0.2), callgraph._EFFORTS[1]))
    names = [frame(f"f{number}") for number in range(40)]
    session = make_session(*(([one, other], 0.001) for one in names for other in names if one != other))

    assert len(words_of(render(session, "svg"))) > 80


@needs_graphviz
@needs_poppler
@pytest.mark.parametrize("make", [report_session, profiled_session, make_session])
def test_pdf_can_be_opened(make, tmp_path):
    """
    The PDF is one that poppler turns into an image.
    """
    (tmp_path / "graph.pdf").write_bytes(render(make(), "pdf"))

    done = subprocess.run(
        ["pdftoppm", "-png", "-singlefile", "graph.pdf", "graph"], cwd=tmp_path, capture_output=True, check=True
    )

    assert done.stderr == b""
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")
