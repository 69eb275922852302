"""docs/migration: every row of every table, and what is before and after, held to the code of both sides."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import subprocess
import sys
import warnings
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from otel_introspect import environment_variables
from otel_introspect.cli import main
from otel_introspect.cli.migration import names
from otel_introspect.config import PREFIX, SETTINGS
from otel_introspect.setting import read, variables_of

FOLDER = Path(__file__).parent.parent / "docs" / "migration"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
TOOLS = ("dogslow", "geordi", "interruptingcow", "django-timelimit")

KNOWN = {name for name in vars(environment_variables) if name.startswith(PREFIX)}
EXPORTERS = {each.name for each in entry_points(group="opentelemetry_traces_exporter")}
FIELDS = {variable: (config, field) for config in SETTINGS for field, variable in variables_of(config).items()}


def rows():
    """Each row of each table: the page, and the cells."""
    for page, text in PAGES.items():
        tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
        for table in tables:
            header, _, *lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
            for cells in lines:
                # A value that stands in two columns of the same name is the older tool's and then ours.
                yield page, header, cells


ROWS = [pytest.param(page, header, cells, id=f"{page}: {cells[0] or cells[2]}") for page, header, cells in rows()]
WITH_DEFAULTS = [each for each in ROWS if each.values[1].count("default") == 2]


def code(cell):
    return re.findall(r"`([^`]+)`", cell)


def blocks(page, language):
    """The code blocks of a page under *Before*, and those under *After*."""
    return tuple(
        re.findall(rf"```{re.escape(language)}\n(.*?)```", section(page, heading), re.DOTALL)
        for heading in ("Before", "After")
    )


def section(page, heading):
    return PAGES[page].split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_there_is_a_page_for_each_tool():
    """
    Each of the four older tools has its page, with a table, a before, an after, and what has no counterpart.
    """
    assert set(TOOLS) <= set(PAGES)
    for page in TOOLS:
        for heading in ("Before", "After", "What behaves differently", "What has no counterpart"):
            assert section(page, heading).strip()
    assert len(ROWS) > 30


@pytest.mark.parametrize("page", TOOLS)
def test_every_variable_exists(page):
    """
    Each variable with our prefix that a page mentions is one of the package's.
    """
    mentioned = set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", PAGES[page]))

    assert mentioned
    assert mentioned <= KNOWN


@pytest.mark.parametrize("page", TOOLS)
def test_every_exporter_exists(page):
    """
    Each exporter that a page mentions is an entry point.
    """
    assert set(re.findall(r"\bintrospect_[a-z]+", PAGES[page])) <= EXPORTERS


@pytest.mark.parametrize(("page", "header", "cells"), ROWS)
def test_each_row(page, header, cells):
    """
    In each row what stands for the older tool's is ours: a variable, an exporter, or what can be imported.
    """
    assert len(cells) == len(header)
    ours = cells[header.index("here")]
    for each in code(ours):
        if each.startswith((PREFIX, "introspect_")):
            assert each in KNOWN | EXPORTERS
        elif each.startswith("otel_introspect."):
            assert imported(each) is not None
        elif each.startswith("otel-introspect "):
            assert main.get_command(click.Context(main), each.split()[1]) is not None


def imported(path):
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("page", "header", "cells"), WITH_DEFAULTS)
def test_our_defaults(page, header, cells):
    """
    A default that a row says for one of our variables is the setting's.
    """
    written = code(cells[3])
    for variable in [each for each in code(cells[2]) if each in KNOWN][:1]:
        config, field = FIELDS[variable]
        default = next(each.default for each in dataclasses.fields(config) if each.name == field)
        if written:
            assert getattr(read(config, {variable: written[0]}), field) == default
        else:
            assert not default


# The older tools, where they are installed.


def source_of(package):
    """Not imported: compiling interruptingcow warns, and dogslow wants Django to be set up."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is in the bench group only")
    return Path(found.origin).read_text(encoding="utf-8")


def dogslow_s_defaults():
    tree = ast.parse(source_of("dogslow"))
    calls = [each for each in ast.walk(tree) if isinstance(each, ast.Call) and len(each.args) == 3]
    return {
        each.args[1].value: ast.unparse(each.args[2])
        for each in calls
        if ast.unparse(each.func) == "getattr" and ast.unparse(each.args[0]) == "settings"
    }


def test_dogslow_s_settings_and_defaults():
    """
    The table has each setting that dogslow reads, no other, and the default that its code has.
    """
    table = {code(cells[0])[0]: cells[1] for page, _, cells in rows() if page == "dogslow"}
    settings = {name: (code(default) or [default])[0] for name, default in table.items() if name.isupper()}

    actual = dogslow_s_defaults()
    actual["DOGSLOW_OUTPUT"] = "the temporary directory"  # an expression
    assert settings == actual


def test_interruptingcow_s_names_and_defaults():
    """
    The table has each public function and class of interruptingcow, and its default exception.
    """
    source = source_of("interruptingcow")
    table = {code(cells[0])[0] for page, _, cells in rows() if page == "interruptingcow"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own
        body = ast.parse(source).body
    defined = {each.name for each in body if isinstance(each, (ast.FunctionDef, ast.ClassDef))}
    public = {name for name in defined if not name.startswith("_")} | {"timeout"}  # which a function makes

    assert {name for name in table if name.isidentifier() and not name.isupper()} == public
    assert "INTERRUPTINGCOW_DISABLE_TIMEOUTS" in source
    assert "exception=RuntimeError" in source


# Before and after.


@pytest.mark.parametrize("page", ["dogslow", "geordi"])
def test_after_is_what_migrate_says_of_before(page, tmp_path):
    """
    The settings under *Before*, given to ``migrate``, become the variables under *After*.
    """
    (before,), (after, *_) = blocks(page, "python")[0], blocks(page, "sh")[1]
    path = tmp_path / "settings.py"
    path.write_text(before)
    result = CliRunner().invoke(main, ["migrate", str(path)])

    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if line.startswith("export ")] == after.splitlines()


@pytest.mark.parametrize("side", ["Before", "After"])
def test_interruptingcow_before_and_after(side):
    """
    The program under *Before*, with interruptingcow, and the one under *After* print what the page says.
    """
    if side == "Before":
        source_of("interruptingcow")
    (program,) = blocks("interruptingcow", "python")[side == "After"]
    (expected,) = blocks("interruptingcow", "text")[1]
    python = [sys.executable, "-W", "ignore"]  # interruptingcow's own warnings
    done = subprocess.run([*python, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == expected


def test_only_the_import_changes():
    """
    The two programs are the same but for the line of the import.
    """
    (before,), (after,) = blocks("interruptingcow", "python")

    assert before.replace("from interruptingcow import", "from otel_introspect import") == after


def test_timelimit_after():
    """
    The template under *After* renders its first part, or its second if that takes too long, with the settings there.
    """
    pytest.importorskip("django")
    (settings,) = blocks("django-timelimit", "python")[1]
    (template,) = blocks("django-timelimit", "html+django")[1]
    (in_engine,) = re.findall(r"```python\n(.*?)```", section("django-timelimit", "Without INSTALLED_APPS"), re.DOTALL)
    script = f"""
import time
from types import SimpleNamespace
import django
from django.conf import settings
{settings}
TEMPLATES = [{{"BACKEND": "django.template.backends.django.DjangoTemplates"}}]
by_application = dict(INSTALLED_APPS=INSTALLED_APPS, TEMPLATES=TEMPLATES)
{in_engine}
settings.configure(**(by_application if HOW == "application" else dict(TEMPLATES=TEMPLATES)))
django.setup()
from django.template import engines
template = engines["django"].from_string({template!r})
for seconds in (0, 20):
    def slowly():
        time.sleep(seconds)
        yield "umbrella"
    print(template.render({{"recommendations": slowly()}}).strip())
"""
    for how in ("application", "engine"):
        done = subprocess.run(
            [sys.executable, "-c", f"HOW = {how!r}\n{script}"], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.splitlines() == ["umbrella", "Recommendations are not available right now."]


def test_timelimit_before():
    """
    ``migrate`` says of the settings under *Before* what stands under *After*.
    """
    (before,), (after,) = blocks("django-timelimit", "python")

    assert before.replace("django_timelimit", names.APPLICATION) == after
