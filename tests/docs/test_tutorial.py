"""The tutorial's commands are found as somebody would copy them; `make tutorial` runs them."""

from __future__ import annotations

from documents import DOCS, tool

TUTORIAL = (DOCS / "tutorial.md").read_text(encoding="utf-8")
run_tutorial = tool("run_tutorial")


def test_all_commands_are_found():
    """
    Each line with a prompt is a command, in the page's order, but for those that need a container engine.
    """
    commands = run_tutorial.commands(TUTORIAL)

    assert commands[0] == "python3 -m venv .venv"
    assert len(commands) == TUTORIAL.count("\n$ ") - TUTORIAL.count("\n$ docker ")


def test_a_here_document_is_one_command():
    """
    The file that the tutorial writes is whole.
    """
    (here,) = [each for each in run_tutorial.commands(TUTORIAL) if "<<'EOF'" in each]

    assert here.endswith("\nEOF")
    assert "def count_the_stock():" in here


def test_what_needs_a_container_engine_says_so():
    """
    Nothing but marked blocks is left out.
    """
    assert not any("docker" in each for each in run_tutorial.commands(TUTORIAL))
    assert TUTORIAL.count("<!-- tutorial: needs a container engine -->") == TUTORIAL.count("\n$ docker ")


def test_the_first_stack_comes_within_a_handful_of_commands():
    """
    A newcomer sees the first stack after ten commands at most.
    """
    commands = run_tutorial.commands(TUTORIAL.partition("## 4.")[0])
    visit = next(index for index, each in enumerate(commands) if "curl" in each)

    assert visit < 10


def test_a_project_of_one_s_own_has_what_the_text_names():
    """
    The stack that the page shows names the lines of the file that it has written.
    """
    (here,) = [each for each in run_tutorial.commands(TUTORIAL) if "<<'EOF'" in each]
    lines = here.splitlines()[1:]

    assert lines[7].strip().startswith("time.sleep(3)")
    assert "urls.py:8" in TUTORIAL
    assert lines[12].strip().startswith("return HttpResponse(")
    assert 'urls.py", line 13, in report' in TUTORIAL
