"""``migrate``: what older tools' settings become, of files that are never run."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import textwrap
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from old_settings import SAMPLES

from otel_introspect import environment_variables
from otel_introspect.cli import main
from otel_introspect.cli.migration import counterparts, names
from otel_introspect.cli.migration.constants import UNKNOWN, value_of
from otel_introspect.cli.migration.reading import Source
from otel_introspect.cli.migration.traces import Traces
from otel_introspect.cli.migration.writing import FORMATS
from otel_introspect.config import PREFIX, SETTINGS
from otel_introspect.setting import problem, variables_of

THRESHOLD = names.THRESHOLD
KNOWN = {name for name in vars(environment_variables) if name.startswith(PREFIX)}


@pytest.fixture(name="write")
def _write(tmp_path, monkeypatch):
    """Writes files and makes their directory the current one, so that paths are short."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="settings.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        return name

    return write


def run(*arguments):
    return CliRunner().invoke(main, ["migrate", *arguments])


def migrated(write, text):
    """The variables that are set, the lines that are only proposed, and all comments in one line."""
    result = run(write(text))
    assert result.exit_code == 0, result.output
    assert not result.stderr
    return parsed(result.stdout)


def parsed(page):
    lines = page.splitlines()
    assert all(not line or line.startswith(("# ", "export ")) for line in lines)
    exports = [shlex.split(line) for line in lines if line.startswith("export ")]
    assert all(len(words) == 2 for words in exports)
    proposed = [line[2:] for line in lines if line.startswith("# export ")]
    comments = " ".join(line[2:].strip() for line in lines if line.startswith("#") and not line.startswith("# export "))
    return dict(words[1].split("=", 1) for words in exports), proposed, comments


# What it becomes.


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        ("25", "25000"),
        ("0.25", "250"),
        ("2 * 60", "120000"),
        ("30 * 1000 // 1000", "30000"),
        ("'15'", "15000"),
        ("int('15')", "15000"),
        ("SLOW + 1", "8000"),
        ("-(-3)", "3000"),
    ],
)
def test_seconds_become_milliseconds(write, value, milliseconds):
    """
    The timer's seconds, whether whole, broken or the sum of something, become the threshold's milliseconds.
    """
    variables, proposed, comments = migrated(write, f"SLOW = 7\nDOGSLOW_TIMER = {value}\n")

    assert variables == {THRESHOLD: milliseconds}
    assert proposed == []
    assert "DOGSLOW_TIMER, settings.py:2" in comments


@pytest.mark.parametrize(
    "value",
    ["os.environ['T']", "env.int('T', 3)", "'soon'", "True", "0", "1e300", "-3", "9 ** 9 ** 9", "[1]", "MISSING"],
)
def test_what_can_t_be_a_threshold_is_left_to_the_user(write, value):
    """
    A timer whose value can't be told, or can't be a threshold, is a comment to be completed, with the line.
    """
    variables, proposed, comments = migrated(write, f"DOGSLOW_TIMER = {value}\n")

    assert variables == {}
    assert proposed == [f"export {THRESHOLD}=25000"]
    assert "DOGSLOW_TIMER, settings.py:1" in comments


@pytest.mark.parametrize("middleware", ["MIDDLEWARE = [{}]", "MIDDLEWARE_CLASSES = ({},)", "MIDDLEWARE += [{}]"])
def test_dogslow_s_own_default(write, middleware):
    """
    Where only the middleware is there, dogslow's 25 seconds are said, as ours would be one.
    """
    variables, _, comments = migrated(write, "MIDDLEWARE = []\n" + middleware.format("'dogslow.WatchdogMiddleware'"))

    assert variables == {THRESHOLD: "25000"}
    assert "settings.py:2: remove 'dogslow.WatchdogMiddleware' from MIDDLEWARE" in comments


def test_dogslow_switched_off(write):
    """
    With ``DOGSLOW = False`` the watchdog is off, and the timer is there to switch it on again.
    """
    variables, proposed, _ = migrated(write, "DEBUG = True\nDOGSLOW = not DEBUG\nDOGSLOW_TIMER = 5\n")

    assert variables == {THRESHOLD: "0"}
    assert proposed == [f"export {THRESHOLD}=5000"]


def test_all_of_dogslow(write):
    """
    Every setting of dogslow becomes a variable, or is named with what to do instead.
    """
    variables, proposed, comments = migrated(
        write,
        """
        MIDDLEWARE = ["django.middleware.common.CommonMiddleware", "dogslow.WatchdogMiddleware"]
        DOGSLOW = True
        DOGSLOW_LOG_TO_FILE = True
        DOGSLOW_OUTPUT = "/var/log/slow requests"
        DOGSLOW_TIMER = 10
        DOGSLOW_EMAIL_TO = ("ops@example.org", "dev@example.org")
        DOGSLOW_EMAIL_FROM = "Shop's watchdog <no-reply@example.org>"
        DOGSLOW_LOGGER = "slow"
        DOGSLOW_LOG_LEVEL = "ERROR"
        DOGSLOW_LOG_TO_SENTRY = True
        DOGSLOW_IGNORE_URLS = ("export", "report")
        DOGSLOW_STACK_VARS = True
        DOGSLOW_COLOUR = "blue"
        """,
    )

    assert variables == {
        THRESHOLD: "10000",
        names.LOCALS: "true",
        names.EMAIL_TO: "ops@example.org,dev@example.org",
        names.EMAIL_FROM: "Shop's watchdog <no-reply@example.org>",
        names.REPORTS_DIR: "/var/log/slow requests",
        "OTEL_TRACES_EXPORTER": "otlp,introspect_email,introspect_logging,introspect_files",
    }
    assert proposed == []
    for said in (
        "DOGSLOW_LOGGER, settings.py:9",
        "'otel_introspect.slow_requests'",
        "DOGSLOW_LOG_LEVEL, settings.py:10",
        "DOGSLOW_LOG_TO_SENTRY, settings.py:11",
        "DOGSLOW_IGNORE_URLS, settings.py:12: 'export', 'report'",
        "@otel_introspect.exempt",
        "DOGSLOW_COLOUR, settings.py:14",
        "delete the settings themselves: settings.py:3, settings.py:4",
    ):
        assert said in comments


def test_all_of_geordi(write):
    """
    Geordi's directory becomes the store; who may profile is for the user to say; the rest is named.
    """
    variables, proposed, comments = migrated(
        write,
        """
        INSTALLED_APPS = ["geordi"]
        MIDDLEWARE = ["geordi.VisorMiddleware"]
        GEORDI_CELERY = True
        GEORDI_OUTPUT_DIR = "/srv/geordi"
        GEORDI_GPROF2DOT_OPTIONS = "-n 1"
        """,
    )

    assert variables == {names.STORE: "/srv/geordi"}
    assert [line.split("=")[0] for line in proposed] == [f"export {names.KEY}", f"export {names.ALLOW}"]
    for said in ("GEORDI_CELERY, settings.py:4", "GEORDI_GPROF2DOT_OPTIONS", "remove 'geordi' from INSTALLED_APPS"):
        assert said in comments


@pytest.mark.parametrize("name", SAMPLES)
def test_settings_as_they_are_found(write, name):
    """
    Files as they are found in projects become what is sure about them, and lines to be completed for the rest.
    """
    sample = SAMPLES[name]
    variables, proposed, comments = migrated(write, sample.text)

    def full(variable):
        return variable if variable.startswith("OTEL_") else PREFIX + variable

    assert variables == {full(variable): value for variable, value in sample.variables.items()}
    assert [line.split("=")[0] for line in proposed] == [f"export {full(each)}" for each in sample.proposed]
    for each in sample.said:
        assert each in comments


def test_mail_needs_both_addresses(write):
    """
    As dogslow mailed only with both addresses, one of them sends none here either.
    """
    variables, _, comments = migrated(write, "DOGSLOW_EMAIL_TO = 'ops@example.org'\nDOGSLOW_EMAIL_FROM = None\n")

    assert variables == {THRESHOLD: "25000"}
    assert "no mail was sent" in comments


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ("'Ops <ops@example.org>'", "ops@example.org"),
        ("['Ops <a@b.c>', 'd@e.f']", "a@b.c,d@e.f"),
        ("'a@b.c, \"D, E\" <d@e.f>'", "a@b.c,d@e.f"),
        ("'nobody'", None),
        ("[]", None),
        ("['a@b.c', 3]", None),
    ],
)
def test_addresses(write, addresses, expected):
    """
    Who gets the mails is a list of addresses without names; what holds something else is left to the user.
    """
    text = f"DOGSLOW_EMAIL_TO = {addresses}\nDOGSLOW_EMAIL_FROM = 'Shop <no-reply@example.org>'\n"
    variables, proposed, _ = migrated(write, text)

    assert variables.get(names.EMAIL_TO) == expected
    assert variables[names.EMAIL_FROM] == "Shop <no-reply@example.org>"
    assert ("OTEL_TRACES_EXPORTER" in variables) == (expected is not None)
    assert bool(proposed) == (expected is None)


@pytest.mark.parametrize("directory", ["/tmp", "/tmp/", "/var/tmp"])
def test_a_directory_of_all_users(write, directory):
    """
    Reports can't be written where other users may write; they get a directory of their own in there.
    """
    variables, _, _ = migrated(write, f"DOGSLOW_OUTPUT = {directory!r}\n")

    assert variables[names.REPORTS_DIR] == directory.rstrip("/") + "/slow-requests"


def test_an_exporter_that_lacks_something(write):
    """
    Where a directory or an address is not known, its exporter is not switched on before it is.
    """
    variables, proposed, comments = migrated(write, "DOGSLOW_OUTPUT = BASE_DIR / 'slow'\nDOGSLOW_TIMER = 1\n")

    assert variables == {THRESHOLD: "1000"}
    assert proposed == [f"export {names.REPORTS_DIR}=/var/log/slow"]
    assert f"when you have set {names.REPORTS_DIR}, add introspect_files to OTEL_TRACES_EXPORTER" in comments


def test_no_files(write):
    """
    With ``DOGSLOW_LOG_TO_FILE = False`` no directory is set, whatever its own setting says.
    """
    variables, proposed, _ = migrated(write, "DOGSLOW_LOG_TO_FILE = False\nDOGSLOW_OUTPUT = '/tmp'\n")

    assert (variables, proposed) == ({THRESHOLD: "25000"}, [])


# Where it stands.


def test_conditions(write):
    """
    What is assigned under a condition is only proposed, each time with its line and what it stands in.
    """
    variables, proposed, comments = migrated(
        write,
        """
        DOGSLOW_TIMER = 1
        DOGSLOW_TIMER = 2
        if DEBUG:
            DOGSLOW_TIMER = 3
        elif TESTING:
            DOGSLOW_TIMER = 4
        else:
            with open("x") as file:
                DOGSLOW_TIMER = 5
        class Production(Base):
            DOGSLOW_TIMER = 6
        try:
            import secret
        except ImportError:
            DOGSLOW_TIMER = 7
        def later():
            DOGSLOW_TIMER = 8
        """,
    )

    assert variables == {THRESHOLD: "2000"}
    assert proposed == [f"export {THRESHOLD}={seconds}000" for seconds in (3, 4, 5, 6, 7)]
    assert "settings.py:5, only in the if of line 4" in comments
    assert "settings.py:12, only in the class Production" in comments


def test_only_under_conditions(write):
    """
    What is never assigned without a condition is set by none.
    """
    variables, proposed, _ = migrated(write, "if DEBUG:\n    DOGSLOW_TIMER = 3\nelse:\n    DOGSLOW_TIMER = 30\n")

    assert variables == {}
    assert proposed == [f"export {THRESHOLD}=3000", f"export {THRESHOLD}=30000"]


def test_a_name_that_depends_on_a_condition(write):
    """
    A value made of a name that a condition may have changed is not taken for known.
    """
    variables, _, _ = migrated(write, "SLOW = 3\nif DEBUG:\n    SLOW = 4\nDOGSLOW_TIMER = SLOW\n")

    assert variables == {}


def test_several_files_in_order(write):
    """
    Of several files the later ones are before the earlier, and a directory's files come in the order of their names.
    """
    base = write("DOGSLOW_TIMER = 1\nDOGSLOW_EMAIL_TO = 'a@b.c'\n", "settings/base.py")
    production = write(
        "from .base import *\nDOGSLOW_TIMER = 2\nDOGSLOW_EMAIL_FROM = 'd@e.f'\n", "settings/production.py"
    )
    write("DOGSLOW_TIMER = 3\n", "settings/.venv/lib/settings.py")

    both, of_directory = run(base, production), run("settings")

    assert both.exit_code == of_directory.exit_code == 0
    assert both.stdout == of_directory.stdout
    variables, _, _ = parsed(both.stdout)
    assert variables[THRESHOLD] == "2000"
    assert variables["OTEL_TRACES_EXPORTER"] == "otlp,introspect_email"
    assert parsed(run(production, base).stdout)[0][THRESHOLD] == "1000"


def test_other_ways_to_assign(write):
    """
    Annotated, unpacked and added-to settings are read, too.
    """
    variables, _, _ = migrated(
        write,
        """
        DOGSLOW_TIMER: int = 3
        DOGSLOW_EMAIL_TO = ["a@b.c"]
        DOGSLOW_EMAIL_TO += ["d@e.f"]
        DOGSLOW_EMAIL_FROM, DOGSLOW_OUTPUT = "g@h.i", "/srv/slow/"
        """,
    )

    assert variables[names.EMAIL_TO] == "a@b.c,d@e.f"
    assert variables[names.EMAIL_FROM] == "g@h.i"
    assert variables[names.REPORTS_DIR] == "/srv/slow"


def test_another_encoding(write):
    """
    A file is read in the encoding that it declares.
    """
    text = "# -*- coding: latin-1 -*-\nDOGSLOW_EMAIL_TO = 'a@b.c'\nDOGSLOW_EMAIL_FROM = 'Jörg <j@b.c>'\n"
    result = run(write(text.encode("latin-1")))

    assert parsed(result.stdout)[0][names.EMAIL_FROM] == "Jörg <j@b.c>"


# In code and templates.


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("from interruptingcow import timeout", ["`from otel_introspect import timeout`"]),
        (
            "from interruptingcow import timeout as limit, Quota",
            ["`from otel_introspect import timeout as limit, Quota`"],
        ),
        ("from interruptingcow import enable_timeouts", ["`from otel_introspect.timeouts import enable_timeouts`"]),
        ("from interruptingcow import *", ["`from otel_introspect import timeout, Quota, disable_timeouts`"]),
        ("from interruptingcow import StateException", ["StateException has no counterpart"]),
        ("import interruptingcow", ["`import otel_introspect as interruptingcow`", "StateException is gone"]),
        ("import os, interruptingcow as cow", ["`import otel_introspect as cow`"]),
        ("import dogslow", ["it imports dogslow"]),
        ("from geordi import VisorMiddleware", ["it imports geordi"]),
        ("os.environ['INTERRUPTINGCOW_DISABLE_TIMEOUTS'] = '1'", ["OTEL_PYTHON_INTROSPECT_TIMEOUTS_DISABLED=true"]),
    ],
)
def test_imports(write, line, said):
    """
    Each import of an older package is found anywhere in the code, with what to write instead.
    """
    write(f"def lazily():\n    {line}\n", "shop/views.py")
    result = run(".")

    assert result.exit_code == 0
    _, _, comments = parsed(result.stdout)
    for each in said:
        assert each in comments
    assert "shop/views.py:2: " in comments


def test_what_takes_interruptingcow_s_place_is_there():
    """
    Each name of interruptingcow that an import is told to take from us can be imported from there.
    """
    for name, place in counterparts._PLACES.items():
        assert hasattr(import_module(place), name)


def test_templates(write):
    """
    A template that loads django-timelimit's tag is found, and so is a debugging tag of it that is gone.
    """
    write("{% load i18n %}\n{% load l10n timelimit %}{% timelimit 1 %}\n{% sleep 2 %}{% endtimelimit %}", "t/page.html")
    write("{% load other %}{% sleep 2 %}", "t/other.html")
    _, _, comments = parsed(run(".").stdout)

    assert "t/page.html:2: {% timelimit %} stays as it is" in comments
    assert "t/page.html:3: remove {% sleep %}" in comments
    assert "other.html" not in comments


def test_the_application(write):
    """
    django-timelimit's place in ``INSTALLED_APPS`` goes to ours.
    """
    _, _, comments = migrated(write, "INSTALLED_APPS = []\nINSTALLED_APPS.append('django_timelimit')\n")

    assert f"settings.py:2: in INSTALLED_APPS, write '{names.APPLICATION}' for 'django_timelimit'" in comments


# What it does not do.


def test_nothing_is_run(write, tmp_path):
    """
    A file is neither imported nor executed, whatever it has at its top.
    """
    write("raise SystemExit", "evil.py")
    mark = tmp_path / "was-run"
    migrated(write, f"import evil\nopen({str(mark)!r}, 'w')\nDOGSLOW_TIMER = 3\n")

    assert not mark.exists()


def test_no_secret_is_shown(write):
    """
    No other setting's value is shown, not even that of a secret from which a shown one is made or one in broken code.
    """
    result = run(
        write(
            """
            EMAIL_HOST_PASSWORD = "hunter2"
            DOGSLOW_EMAIL_TO = EMAIL_HOST_PASSWORD + "@example.org"
            DOGSLOW_EMAIL_FROM = f"{EMAIL_HOST_PASSWORD}@example.org"
            DOGSLOW_LOGGER = "slow"
            """
        )
    )
    broken = run(write("EMAIL_HOST_PASSWORD = hunter2'\n", "broken.py"))

    assert result.exit_code == 0
    assert "hunter2" not in result.output
    assert "hunter2" not in broken.output


# Bad input.


def test_a_file_that_is_missing(write):
    """
    A path that is not there is an error of use.
    """
    result = run("nowhere.py")

    assert result.exit_code == 2
    assert "nowhere.py" in result.stderr


def test_no_path():
    """
    Without a path it says how it is used.
    """
    assert run().exit_code == 2


def test_nothing_found(write):
    """
    Where there is nothing, one sentence says so, and what to name.
    """
    result = run(write("DEBUG = True\n"))

    assert result.exit_code == 1
    assert result.stdout == ""
    assert (
        "Nothing of dogslow, geordi, interruptingcow or django-timelimit in settings.py (1 file read)" in result.stderr
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"DOGSLOW_TIMER = 3\nif:\n", "line 2"),
        (b"# coding: klingon\nDOGSLOW_TIMER = 3\n", "no Python"),
        (b"DOGSLOW_TIMER = '\xff'\n", "no Python"),
        (b"DOGSLOW_TIMER = 3\n\0", "settings.py"),
        (b"DOGSLOW_TIMER = " + b"(" * 5000, "settings.py"),
        (b"DOGSLOW_TIMER = " + b"-" * 50_000 + b"1", "settings.py"),
        (b"#" * 5_000_000, "larger than 4 MiB"),
    ],
)
def test_a_file_that_can_t_be_read(write, text, said):
    """
    A file that is no Python is an error, with its line where that is known, and without a traceback.
    """
    result = run(write(text))

    assert result.exit_code == 1
    assert result.stdout == ""
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_broken_file_in_a_directory(write):
    """
    Of a directory the files that can't be parsed are named, and the others are read all the same.
    """
    write("DOGSLOW_TIMER = 3\n", "project/settings.py")
    write("print 'dogslow'\n", "project/old.py")
    result = run("project")

    assert result.exit_code == 0
    assert parsed(result.stdout)[0] == {THRESHOLD: "3000"}
    assert "project/old.py: line 1" in result.stderr


def test_what_is_no_file(write):
    """
    A device is not read: it might never end.
    """
    result = run("/dev/zero")

    assert result.exit_code == 1
    assert "it is no file" in result.stderr


# How it is written.


def test_a_shell_takes_it(write):
    """
    What is printed can be evaluated by a shell, and sets the variables to the very values.
    """
    page = run(
        write(
            """
            DOGSLOW_OUTPUT = "a 'b' $HOME `id` \\\\ #"
            GEORDI_OUTPUT_DIR = '"; echo hacked; "'
            DOGSLOW_EMAIL_TO = "a@b.c"
            DOGSLOW_EMAIL_FROM = "$(id) <d@e.f>"
            """
        )
    ).stdout
    show = f'printf "%s\\n" "${names.REPORTS_DIR}" "${names.STORE}" "${names.EMAIL_FROM}"'
    done = subprocess.run(["sh", "-c", f"{page}\n{show}"], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["a 'b' $HOME `id` \\ #", '"; echo hacked; "', "$(id) <d@e.f>"]
    assert done.stderr == ""


def test_nothing_gets_out_of_a_comment(write):
    """
    A line break in a file's name, or in a value, does not end the comment that it is in.
    """
    name = write("DOGSLOW_TIMER = 3\nDOGSLOW_IGNORE_URLS = ['a\\ntouch hacked']\n", "a\ntouch hacked\n.py")
    result = run(name)

    assert result.exit_code == 0
    assert parsed(result.stdout)[0] == {THRESHOLD: "3000"}


def test_no_file_s_name_does_harm_in_a_terminal(write):
    """
    What a file is called is shown without the characters that a terminal would obey.
    """
    result = run(write("DOGSLOW_TIMER = 3\n", "a\x1b[31m.py"))

    assert result.exit_code == 0
    assert "[31m.py" in result.stdout
    assert "\x1b" not in result.output


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("shell", "export NAME='a b$c\"%\\'"),
        ("env", 'NAME=a b$c"%\\'),
        ("systemd", 'Environment="NAME=a b$c\\"%%\\\\"'),
        ("compose", 'NAME: "a b$$c\\"%\\\\"'),
    ],
)
def test_formats(form, line):
    """
    Each format quotes what its reader would take for something else.
    """
    assert FORMATS[form]("NAME", 'a b$c"%\\') == line


def test_every_format_is_offered(write):
    """
    The same variables come in any format.
    """
    name = write("DOGSLOW_TIMER = 3\n")

    assert f"\n{THRESHOLD}=3000\n" in run("--format", "env", name).stdout
    assert f'\nEnvironment="{THRESHOLD}=3000"\n' in run("--format", "systemd", name).stdout
    assert f'\n{THRESHOLD}: "3000"\n' in run("--format", "compose", name).stdout


# What it names exists.


def test_each_variable_exists():
    """
    Every variable that can be printed is one of the package's.
    """
    printed = {value for value in vars(names).values() if isinstance(value, str) and value.startswith(PREFIX)}

    assert len(printed) > 5
    assert printed <= KNOWN


@pytest.mark.parametrize("setting", sorted(counterparts.COUNTERPARTS))
def test_examples_would_do(setting):
    """
    The value that is proposed for a setting is one that its variable takes.
    """
    counterpart = counterparts.COUNTERPARTS[setting]
    configs = {variable: config for config in SETTINGS for variable in variables_of(config).values()}

    assert problem(configs[counterpart.variable], counterpart.variable, counterpart.example) is None


def test_dogslow_s_settings_are_all_known():
    """
    Every setting that dogslow itself reads has its place in one of our tables, and its default is what we say.
    """
    found = find_spec("dogslow")
    if found is None:
        pytest.skip("dogslow is in the bench group only")
    source = Path(found.origin).read_text(encoding="utf-8")
    known = {*counterparts.COUNTERPARTS, *counterparts.BY_HAND, *counterparts.SWITCHES}

    assert set(re.findall(r"settings, '(DOGSLOW\w*)'", source)) == {
        each for each in known if each.startswith("DOGSLOW")
    }
    assert f"'DOGSLOW_TIMER', {counterparts.DOGSLOW_TIMER})" in source


# Whatever is in it.

PIECES = st.sampled_from(
    [
        *(
            "DOGSLOW_TIMER",
            "DOGSLOW_EMAIL_TO",
            "GEORDI_OUTPUT_DIR",
            "MIDDLEWARE",
            "DEBUG",
            "=",
            "+=",
            ":",
            "if",
            "else",
        ),
        *("(", ")", "[", "]", "{", "}", ",", "*", "**", "/", "-", "not", "'a'", "b'x'", "1", "1e400", "9" * 400, "\n"),
        *(
            "\n    ",
            "\t",
            "import interruptingcow",
            "from interruptingcow import",
            "as",
            "class A:",
            "def f():",
            "lambda:",
        ),
        *(
            "for x in y:",
            "match x:\n case 1:",
            "try:",
            "except:",
            "with a as b:",
            "...",
            "None",
            "True",
            "f'{x}'",
            "\\",
            "#",
        ),
        *("'dogslow.WatchdogMiddleware'", "INSTALLED_APPS", "'geordi'", "import *", "yield", "await", ":=", "del", ";"),
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.lists(PIECES, max_size=30).map(" ".join), st.binary(max_size=200), st.text(max_size=200)))
def test_any_file(tmp_path, text):
    """
    Whatever is in a file, it is read without an exception, and what comes out is comments and quoted exports.
    """
    path = tmp_path / "any.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    result = run(str(path))

    assert result.exit_code in (0, 1)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    parsed(result.stdout)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
        max_leaves=5,
    )
)
def test_any_value(tmp_path, value):
    """
    Whatever value a setting has, each line that sets a variable can be read back by a shell's rules as one word.
    """
    path = tmp_path / "settings.py"
    every = [*counterparts.COUNTERPARTS, *counterparts.BY_HAND, *counterparts.SWITCHES]
    path.write_text("".join(f"{name} = {value!r}\n" for name in every), encoding="utf-8", errors="surrogatepass")
    result = run(str(path))

    assert result.exception is None or isinstance(result.exception, SystemExit)
    variables, _, _ = parsed(result.stdout)
    threshold = variables.get(THRESHOLD, "1")
    assert threshold.isdigit()


EXPRESSIONS = st.recursive(
    st.integers(-99, 99).map(repr)
    | st.floats(-9, 9).map(repr)
    | st.sampled_from(["'a'", "'7'", "True", "None", "SLOW"]),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "and", "<", "in"]), inner).map(
            lambda each: f"({' '.join(each)})"
        )
        | st.lists(inner, max_size=3).map(lambda each: f"[{', '.join(each)}]")
        | st.tuples(st.sampled_from(["-", "+", "~", "not ", "int", "float", "str", "len"]), inner).map(
            "({0[0]}({0[1]}))".format
        )
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(text=EXPRESSIONS)
def test_what_is_worked_out_is_what_python_would_say(text):
    """
    The value of an expression is the one that running it would give, or it is said not to be known.
    """
    found = value_of(ast.parse(text, mode="eval").body, {"SLOW": 7})
    if found is UNKNOWN:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Python thinks of such expressions
        actual = eval(text, {"SLOW": 7})

    assert repr(found) == repr(actual)


def test_deep_and_wide_files():
    """
    A thousand conditions in each other's else, and a sum of ten thousand terms, are read like any others.
    """
    text = (
        "if a:\n    DOGSLOW_TIMER = 1\n"
        + "elif a:\n    DOGSLOW_TIMER = 1\n" * 300
        + "DOGSLOW_OUTPUT = "
        + "'a'+" * 400
        + "'a'\n"
    )
    traces = Traces()
    traces.look(Source("settings.py", text.encode(), is_named=True))

    assert len(traces.of("DOGSLOW_TIMER")) == 301
    assert traces.of("DOGSLOW_OUTPUT")[0].value is UNKNOWN


@pytest.mark.parametrize(
    "text", ["'x' * 10**9", "[0] * 10**9", "2 ** 10**9", "1 << 10**9", "10**400 * 10**400", "'%999999999d' % 1"]
)
def test_an_expression_that_would_take_all_memory(text):
    """
    What would take the memory or the time to work out is not worked out.
    """
    assert value_of(ast.parse(text, mode="eval").body, {}) is UNKNOWN


def test_the_compose_line_is_json():
    """
    What Compose gets is YAML, as any JSON string is.
    """
    assert json.loads(FORMATS["compose"]("NAME", "ü\"'").partition(": ")[2]) == "ü\"'"
