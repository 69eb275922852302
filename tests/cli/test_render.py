"""The command render: where it puts what it makes, and what it says."""

import json
import marshal
import os
import stat
import subprocess
import sys
import sysconfig
import webbrowser
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from otel_introspect.cli import main
from otel_introspect.profiling.formats import FORMATS, KINDS

COMMAND = Path(sysconfig.get_path("scripts")) / "otel-introspect"
ID = "0123456789abcdef" * 2
SESSION = {
    "frame_records": [[["view\0/srv/größe.py\x0010", "summary\0/srv/reports.py\x0027"], 0.6]],
    "start_time": 1_700_000_000.0,
    "duration": 0.6,
    "min_interval": 0.01,
    "max_interval": 0.01,
    "sample_count": 60,
    "start_call_stack": ["MainThread"],
    "target_description": "GET /report",
    "cpu_time": 0.5,
}


def trace(*ids):
    events = [
        {
            "name": "otel_introspect.profile",
            "timeUnixNano": "1700000000000000000",
            "attributes": [
                {"key": "otel_introspect.profile.id", "value": {"stringValue": each}},
                {"key": "otel_introspect.profile.text", "value": {"stringValue": "0.60 view  shop.py:3"}},
            ],
        }
        for each in ids
    ]
    span = {"traceId": "a" * 32, "spanId": "b" * 16, "name": "GET /report", "events": events}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


@pytest.fixture(name="stored")
def _stored(tmp_path, clean):
    """A stored profile, outside the directory where the command runs."""
    (tmp_path / "store").mkdir()
    path = tmp_path / "store" / f"{ID}.pyisession.json"
    path.write_text(json.dumps(SESSION))
    (tmp_path / "here").mkdir()
    os.chdir(tmp_path / "here")  # `clean` undoes it
    return str(path)


@pytest.fixture(name="launched")
def _launched(monkeypatch):
    """What would have been opened."""
    opened = []
    monkeypatch.setattr(click, "launch", lambda path: opened.append(path) or 0)
    return opened


def files():
    return sorted(each.name for each in Path().iterdir())


def run(*arguments, **environ):
    return CliRunner().invoke(main, ["render", *map(str, arguments)], env=environ)


def test_text_is_printed(stored):
    """
    Without options the tree is printed, and no file is made.
    """
    result = run(stored)

    assert result.exit_code == 0, result.output
    assert "0.60 view  " in result.stdout
    assert "└─ 0.60 summary  " in result.stdout
    assert result.stderr == ""
    assert files() == []


@pytest.mark.parametrize("format_", [each for each in FORMATS if each not in ("text", "svg", "pdf")])
def test_all_else_goes_to_a_file_named_after_the_profile(format_, stored):
    """
    Any other format is written to the current directory, under the profile's name.
    """
    result = run(stored, "--format", format_)

    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert result.stderr == f"Wrote {ID}{KINDS[format_].suffix}\n"
    assert files() == [f"{ID}{KINDS[format_].suffix}"]


def test_a_file_that_is_there_is_not_replaced(stored):
    """
    Under a name that was not asked for nothing is overwritten: a number is added.
    """
    for _ in range(3):
        assert run(stored, "-f", "html").exit_code == 0

    assert files() == [f"{ID}-2.html", f"{ID}-3.html", f"{ID}.html"]


def test_a_file_that_is_named_is_replaced(stored, tmp_path):
    """
    The file that was asked for is written, be it there or not; not so if there is nothing to write.
    """
    target = tmp_path / "mine.txt"
    for _ in range(2):
        result = run(stored, "-o", target)
        assert result.exit_code == 0, result.output

    assert "summary" in target.read_text(encoding="utf-8")
    assert result.stdout == ""
    assert run(tmp_path / "none", "-o", target).exit_code == 1
    assert "summary" in target.read_text(encoding="utf-8")


@pytest.mark.parametrize("format_", ["json", "pstats"])
def test_a_dash_is_stdout(format_, stored):
    """
    With - any format goes to stdout, byte by byte.
    """
    result = run(stored, "-f", format_, "-o", "-")

    assert result.exit_code == 0, result.output
    assert {"json": json.loads, "pstats": marshal.loads}[format_](result.stdout_bytes)
    assert files() == []


def test_binary_is_not_for_a_terminal(stored, monkeypatch):
    """
    A terminal is spared what is binary.
    """
    monkeypatch.setattr("otel_introspect.cli.render._is_terminal", lambda: True)

    result = run(stored, "-f", "pstats", "-o", "-")

    assert result.exit_code == 2
    assert "nothing for a terminal" in result.stderr


def test_a_terminal_gets_what_it_can_show(stored, monkeypatch):
    """
    On a terminal that has no box-drawing characters the tree is printed all the same.
    """
    monkeypatch.setattr("otel_introspect.cli.render._is_terminal", lambda: True)

    result = CliRunner(charset="ascii").invoke(main, ["render", stored])

    assert result.exit_code == 0, result.output
    assert r"\u2514\u2500 0.60 summary" in result.stdout


def test_very_many_files_of_one_name_are_not_added_to(stored, monkeypatch):
    """
    The search for a name that is free comes to an end.
    """
    monkeypatch.setattr("otel_introspect.cli.render._MOST_OF_A_NAME", 1)
    assert run(stored, "-f", "html").exit_code == 0

    result = run(stored, "-f", "html")

    assert result.exit_code == 1
    assert "cannot be written: no name is free, up to number 1" in result.stderr


def test_a_file_that_cannot_be_written_is_said(stored, tmp_path):
    """
    If there is no such directory one learns so.
    """
    result = run(stored, "-o", tmp_path / "no" / "such")

    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_an_id_is_enough(stored):
    """
    Where the environment says where profiles are stored, the id is enough.
    """
    result = run(ID, OTEL_PYTHON_INTROSPECT_PROFILER_STORE=str(Path(stored).parent))

    assert "summary" in result.stdout


def test_a_trace_says_that_the_profile_was_rebuilt(stored, tmp_path):
    """
    What comes from the text on a span says so on stderr, and stdout has the tree alone.
    """
    (tmp_path / "trace.json").write_text(json.dumps(trace(ID)))

    result = run(tmp_path / "trace.json")

    assert "0.60 view  shop.py:3" in result.stdout
    assert "Rebuilt" not in result.stdout
    assert result.stderr.startswith("Rebuilt from the text on the span")


def test_of_several_profiles_one_is_chosen(stored, tmp_path):
    """
    If a trace has several profiles they are listed, and --id chooses.
    """
    (tmp_path / "trace.json").write_text(json.dumps(trace("1" * 32, "2" * 32)))

    asked, chosen = run(tmp_path / "trace.json"), run(tmp_path / "trace.json", "--id", "22", "-f", "html")

    assert asked.exit_code == 1
    assert "2 profiles: say which by --id" in asked.stderr
    assert "1" * 32 in asked.stderr
    assert chosen.exit_code == 0
    assert files() == [f"{'2' * 32}.html"]


def test_what_is_wrong_is_said_without_a_traceback(stored, tmp_path):
    """
    A source that is none is an error of one line and exit status 1; a wrong option is status 2.
    """
    (tmp_path / "broken").write_text("{")

    for source in (tmp_path / "none", tmp_path / "broken", tmp_path):
        result = run(source)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert isinstance(result.exception, SystemExit)
    assert run(stored, "--format", "gif").exit_code == 2
    assert run().exit_code == 2


def test_without_graphviz_one_learns_what_to_install(stored, tmp_path, monkeypatch):
    """
    Without Graphviz the drawing fails with what to install, and leaves no file.
    """
    pytest.importorskip("gprof2dot")
    monkeypatch.setenv("PATH", str(tmp_path))

    result = run(stored, "-f", "svg")

    assert result.exit_code == 1
    assert "install the package graphviz" in result.stderr
    assert files() == []


@pytest.mark.parametrize("format_", ["html", "text", "speedscope"])
def test_open_opens_a_temporary_file(format_, stored, launched, tmp_path, monkeypatch):
    """
    With --open the file is a temporary one that nobody else can read, and it is opened.
    """
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    result = run(stored, "-f", format_, "--open")

    assert result.exit_code == 0, result.output
    (opened,) = launched
    assert Path(opened).parent == tmp_path / "temporary"
    assert Path(opened).name.startswith(ID)
    assert opened.endswith(KINDS[format_].suffix)
    assert stat.S_IMODE(Path(opened).stat().st_mode) == 0o600
    assert opened in result.stderr
    assert files() == []


def test_open_opens_the_file_that_was_named(stored, launched):
    """
    With --open and a file named, that is written and opened.
    """
    assert run(stored, "-f", "html", "-o", "mine.html", "--open").exit_code == 0

    assert launched == ["mine.html"]
    assert files() == ["mine.html"]
    assert run(stored, "-o", "-", "--open").exit_code == 2


@pytest.mark.parametrize("works", [True, False])
def test_open_without_a_desktop_tries_a_browser(works, stored, monkeypatch):
    """
    Where no desktop opens files a browser may; if none does one learns where the file is.
    """
    asked = []
    monkeypatch.setattr(click, "launch", lambda path: 1)
    monkeypatch.setattr(webbrowser, "open", lambda url: asked.append(url) or works)

    result = run(stored, "-f", "html", "-o", "mine.html", "--open")

    assert asked == [Path("mine.html").resolve().as_uri()]
    assert result.exit_code == (0 if works else 1)
    assert works or "It is in mine.html" in result.stderr


def test_the_summary_names_it():
    """
    The list of subcommands has it, without an import.
    """
    result = CliRunner().invoke(main, ["--help"])

    assert "render " in result.stdout


@pytest.mark.realtime
def test_the_installed_command_prints_in_any_encoding(stored):
    """
    The command prints to a pipe in UTF-8, whatever the locale.
    """
    for locale in ("C.UTF-8", "C", "POSIX"):
        done = subprocess.run(
            [COMMAND, "render", stored],
            capture_output=True,
            env={**os.environ, "LC_ALL": locale, "PYTHONIOENCODING": "ascii"},
            timeout=60,
            check=True,
        )
        assert "└─ 0.60 summary" in done.stdout.decode()


@pytest.mark.realtime
def test_loading_the_command_imports_neither_pyinstrument_nor_gprof2dot():
    """
    What a profile is made into is loaded when it is made.
    """
    script = "import otel_introspect.cli.render, sys; print({'pyinstrument', 'gprof2dot', 'fsspec'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True)

    assert done.stdout.strip() == b"set()"
