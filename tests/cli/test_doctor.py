"""The doctor as a command: what it prints, and its exit status."""

import io
import json
import os
import subprocess
import sys
import sysconfig
import threading
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_introspect.cli import LazyGroup, main
from otel_introspect.cli.diagnosis import CHECKS, diagnose
from otel_introspect.cli.diagnosis.finding import Level, note, ok, problem
from otel_introspect.cli.diagnosis.surroundings import gather
from otel_introspect.cli.doctor import _Page

COMMAND = Path(sysconfig.get_path("scripts")) / "otel-introspect"
QUIET = {
    "OTEL_TRACES_EXPORTER": "introspect_console",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "DJANGO_SETTINGS_MODULE": "json.decoder",  # any module that is there
}


def run(*arguments, **environ):
    return CliRunner().invoke(main, ["doctor", *arguments], env={**QUIET, **environ})


def test_nothing_wrong_is_exit_status_0(clean):
    """
    Where a slow request gets its evidence the doctor says so, and its exit status is 0.
    """
    result = run()

    assert result.exit_code == 0, result.output
    assert "No problem: a slow request here will explain itself." in result.output
    assert "An entry span open longer than 1000 ms" in result.output


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "introspect"},
        {"OTEL_TRACES_EXPORTER": "no_such"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD": "1s"},
        {"OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD": "0"},
        {"OTEL_PYTHON_INTROSPECT_WACHDOG_THRESHOLD": "500"},
        {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "100"},
        {"DJANGO_SETTINGS_MODULE": "no.such.module"},
    ],
)
def test_a_problem_is_exit_status_1(clean, environ):
    """
    One problem is enough for exit status 1, and it is the one that was made.
    """
    result = run("--json", **environ)
    report = json.loads(result.output)

    assert result.exit_code == 1
    assert report["problems"] == 1
    (found,) = [each for each in report["findings"] if each["level"] == "problem"]
    assert next(iter(environ)) in found["message"]
    assert found["remedy"]


def test_the_endpoint_is_checked_for_real(clean, collector, closed_port):
    """
    The endpoint of the environment decides between ok and problem.
    """
    otlp = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}

    assert run(**otlp, OTEL_EXPORTER_OTLP_ENDPOINT=collector().url).exit_code == 0
    assert run(**otlp, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{closed_port}").exit_code == 1


def test_json_is_for_scripts(clean):
    """
    With --json there is one object, with every finding and the counts.
    """
    report = json.loads(run("--json").output)

    assert set(report) == {"version", "ok", "problems", "notes", "findings"}
    assert report["ok"] is True
    assert all(set(each) == {"level", "topic", "message", "remedy"} for each in report["findings"])


def test_nothing_is_left_behind_and_nothing_logged(clean, capfd):
    """
    After the doctor has gone there is no thread more than before, and standard error is empty.
    """
    before = set(threading.enumerate())
    run(OTEL_PYTHON_INTROSPECT_EVENTS="smoke")

    assert set(threading.enumerate()) == before
    assert capfd.readouterr().err == ""


def test_no_text_of_the_environment_breaks_the_page(clean):
    """
    Control characters and undecodable bytes in a variable are shown harmlessly.
    """
    result = run(OTEL_PYTHON_INTROSPECT_EVENTS="\x1b[31mred\nline\udcff")

    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "\x1b" not in result.output
    assert r"\x1b[31mred\nline\udcff" in result.output


def test_a_check_that_fails_is_a_finding(healthy):
    """
    A fault in one check is reported as a problem, and the other checks still run.
    """

    def broken(here):
        yield ok("broken", "so far so good")
        1 / 0  # noqa: B018 - it is there to raise

    def fine(here):
        yield note("fine", "still here")

    first, second, third = diagnose(healthy(), (broken, fine))

    assert first.level is Level.OK
    assert second.level is Level.PROBLEM
    assert "ZeroDivisionError: " in second.message
    assert third.topic == "fine"


def test_the_checks_find_nothing_wrong_where_nothing_is(healthy):
    """
    All checks together find no problem in healthy surroundings.
    """
    assert {each.level for each in diagnose(healthy(), CHECKS)} == {Level.OK}


def test_looking_around_sees_this_very_environment(clean):
    """
    The distributions and entry points that are installed here are found.
    """
    here = gather({"PATH": str(COMMAND.parent)})

    assert here.versions["otel-introspect"] == version("otel-introspect")
    assert {"introspect", "introspect_django", "introspect_gunicorn"} <= set(here.names("opentelemetry_instrumentor"))
    assert "introspect_console" in here.names("opentelemetry_traces_exporter")
    assert here.interpreter.gil
    assert here.directory == Path.cwd()
    assert here.launcher.parent.resolve() == here.scripts.resolve()


class _Terminal(io.TextIOWrapper):
    def __init__(self):
        self.written = io.BytesIO()
        super().__init__(self.written, encoding="latin-1", write_through=True)

    def isatty(self):
        return True

    @property
    def shown(self):
        return self.written.getvalue().decode("latin-1")


def test_a_terminal_gets_colour_and_lines_that_fit(monkeypatch):
    """
    On a terminal lines are wrapped to its width and coloured, with plain signs where its encoding has no others.
    """
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _Page().show(problem("topic", "word " * 40, "do €"))
    output = terminal.shown

    assert "\x1b[31m" in output
    assert "x" in output.split("topic")[0]
    assert max(len(line) for line in output.splitlines()[1:]) <= 60
    assert r"-> do \u20ac" in output


def test_no_color_is_respected(monkeypatch):
    """
    NO_COLOR turns colour off on a terminal, too.
    """
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    _Page().show(ok("topic", "fine"))

    assert "\x1b" not in terminal.shown


@pytest.mark.realtime
def test_the_installed_command_works(tmp_path):
    """
    The command that pip installs runs the doctor, with plain text into a pipe of any encoding.
    """
    environ = {"PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONIOENCODING": "ascii", **QUIET}
    done = subprocess.run(
        [COMMAND, "doctor"], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("  + python")


@pytest.mark.realtime
def test_the_doctor_imports_no_framework_and_no_sdk(tmp_path):
    """
    Neither Django, rich, the SDK nor an instrumentation is imported to find out about them.
    """
    program = (
        "import sys, otel_introspect.cli as cli\n"
        "cli.main(['doctor'], standalone_mode=False)\n"
        "heavy = ('django', 'rich', 'opentelemetry', 'otel_introspect.instrumentation', 'otel_introspect.demo')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": str(COMMAND.parent), **QUIET},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_the_commands_are_listed_without_loading_them():
    """
    --help names each command; a module that cannot be imported does no harm until it is called.
    """
    group = LazyGroup("tool", places={"demo": ("no.such.module", "demo", "Show it.")})
    result = CliRunner().invoke(group, ["--help"])

    assert result.exit_code == 0
    assert "Show it." in result.output


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "demo is not part of this version"),
        ("import no_such_dependency.part", "demo needs no_such_dependency"),
        ("raise ImportError('half of it')", "demo cannot be loaded (half of it)"),
        ("demo = 3", "is not a command"),
    ],
)
def test_a_command_that_cannot_be_loaded_says_why(tmp_path, monkeypatch, source, said):
    """
    A command whose module, or whose dependency, is missing fails with one clear line.
    """
    name = f"place_{abs(hash(said))}"
    if source is not None:
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    result = CliRunner().invoke(LazyGroup("tool", places={"demo": (name, "demo", "Show it.")}), ["demo"])

    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output


def test_an_unknown_command_is_refused():
    """
    A command that is not there is a usage error.
    """
    assert CliRunner().invoke(main, ["doktor"]).exit_code == 2


def test_the_version_is_the_installed_one():
    """
    --version names the installed version.
    """
    assert version("otel-introspect") in CliRunner().invoke(main, ["--version"]).output
