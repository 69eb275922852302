"""The reference names all that the code has, and what the docstrings say about defaults is so."""

from __future__ import annotations

import dataclasses
import doctest
import re
from importlib.metadata import distribution
from typing import get_args

import pytest
from documents import DOCS, tool

import otel_introspect
from otel_introspect import environment_variables, semconv
from otel_introspect.cli import main
from otel_introspect.config import PREFIX, SETTINGS
from otel_introspect.setting import problem, read, variables_of
from otel_introspect.triggers.refusal import Reason

reference = tool("reference")
VARIABLES = {name for name in vars(environment_variables) if name.startswith(PREFIX)}
FIELDS = {variable: (config, field) for config in SETTINGS for field, variable in variables_of(config).items()}


def page(name):
    return reference.filled((DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", name="variables")
def _variables():
    return page("environment-variables")


def test_every_variable_has_its_section(variables):
    """
    Each variable of the package has one section of its whole name and one row in the table, and there is no other.
    """
    sections = re.findall(rf"^### ({PREFIX}\w+)$", variables, re.MULTILINE)
    rows = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\)", variables, re.MULTILINE)

    assert sorted(sections) == sorted(VARIABLES)
    assert sorted(PREFIX + name for name, _ in rows) == sorted(VARIABLES)
    assert {anchor.upper() for _, anchor in rows} == VARIABLES


def test_every_variable_has_a_meaning(variables):
    """
    A variable that was added without a docstring is found here, not by a user.
    """
    empty = [each.name for group in reference.variables().values() for each in group if not each.meaning]

    assert empty == []


@pytest.mark.parametrize("variable", sorted(VARIABLES & FIELDS.keys()))
def test_defaults_in_docstrings_are_those_of_the_settings(variable):
    """
    A default that a docstring gives is what the setting reads as when nothing is set.
    """
    config, field = FIELDS[variable]
    default = next(each.default for each in dataclasses.fields(config) if each.name == field)
    said = next(each.said for group in reference.variables().values() for each in group if each.name == variable)
    literal = re.match(r"`([^`]+)`|(\d+(?:\.\d+)?|true|false)\b", said)
    if default == "":
        assert not literal
        return
    # It may depend on the Python: then one of the values is right.
    written = re.findall(r"`([^`]+)`", said) or [literal[2]]

    assert all(problem(config, variable, each) is None for each in written)
    assert default in [getattr(read(config, {variable: each}), field) for each in written]


def test_what_a_variable_takes_is_its_parser_s_word():
    """
    The reference says of each variable what its own parser expects.
    """
    takes = {each.name.removeprefix(PREFIX): each.value for group in reference.variables().values() for each in group}

    assert takes["WATCHDOG_THRESHOLD"] == "a whole number of 0 at least"
    assert takes["WATCHDOG_MAX_SNAPSHOTS"] == "a whole number of 1 at least and 32 at most"
    assert takes["WATCHDOG_ALL_THREADS"] == "true or false"
    assert takes["WATCHDOG_CHECKPOINT"] == "one of the words first, all, none"
    assert takes["PROFILER_RATIO"] == "a number from 0 to 1"
    assert takes["PROFILER_STORE"] == "any text"
    assert takes["EXCLUDED_URLS"] == "a comma-separated list of regular expressions"


def test_every_attribute_and_event_is_named():
    """
    What can land on a span is in the page about it, by its whole name, and each attribute with its type.
    """
    text = page("events")
    names = {value for constant, value in vars(semconv).items() if constant.isupper()}
    events = {value for constant, value in vars(semconv).items() if constant.endswith("_EVENT")}
    rows = dict(re.findall(r"^\| `([\w.]+)` \| ([\w, ]+) \|", text, re.MULTILINE))

    assert names - events == {name for name in rows if name.startswith("otel_introspect.")}
    assert events == set(re.findall(r"^### `([\w.]+)`$", text, re.MULTILINE))
    assert {kind.partition(",")[0] for kind in rows.values()} <= {"bool", "int", "string", "string array", "double"}


def test_what_lands_on_a_real_span_is_named(make_tracing):
    """
    Every key of a real slow span's evidence is in the page about it, whoever's name it is, and with its type.
    """
    tracing = make_tracing(all_threads=True)
    span = tracing.start()
    tracing.look(1000)
    span.end()
    (ended,) = tracing.exporter.get_finished_spans()
    found = dict(ended.attributes)
    for event in ended.events:
        found |= event.attributes
    rows = dict(re.findall(r"^\| `([\w.]+)` \| ([\w ]+\w)", page("events"), re.MULTILINE))
    types = {bool: "bool", int: "int", str: "string", tuple: "string array"}

    assert "code.stacktrace" in found
    assert {name: rows.get(name) for name in found} == {name: types[type(value)] for name, value in found.items()}


def test_every_command_is_there_with_its_options():
    """
    Each subcommand of the command line has a section with all its options.
    """
    text = page("cli")
    commands = reference.commands()

    assert sorted(re.findall(r"^## otel-introspect (\w+)$", text, re.MULTILINE)) == sorted(main.list_commands(None))
    for name, command in commands.items():
        section = text.partition(f"## otel-introspect {name}\n")[2].partition("\n## ")[0]
        assert all(option in section for each in command.params for option in each.opts if option.startswith("--"))


def test_every_public_name_is_there():
    """
    What can be imported from the package, and the middleware of other frameworks, has a section.
    """
    sections = re.findall(r"^## ([\w.]+)$", page("api"), re.MULTILINE)

    assert {f"otel_introspect.{name}" for name in otel_introspect.__all__ if name != "__version__"} <= set(sections)
    assert "otel_introspect.instrumentation.asgi.ProfileMiddleware" in sections


def test_every_entry_point_is_there():
    """
    Each entry point of the distribution is in the section of its group, with what it does.
    """
    text = page("entry-points")
    listed = re.findall(r"^`([\w-]+)`, which is `([\w.:]+)`\n: (\w.+)$", text, re.MULTILINE)

    assert sorted((name, value) for name, value, _ in listed) == sorted(
        (each.name, each.value) for each in distribution("otel-introspect").entry_points
    )


def test_reasons_are_those_of_the_code():
    """
    Why evidence is missing is said in the words that the metric has.
    """
    text = page("metrics")

    assert "| dropped | process budget |" in text
    assert "| dropped | span has no room for events |" in text
    assert "| refused | profile: … |" in text


def test_every_refusal_of_a_profile_is_explained():
    """
    The page about profiling one request explains each reason that the answer's header may give, and no other.
    """
    text = (DOCS / "how-to" / "profile-one-request-in-production.md").read_text(encoding="utf-8")
    table = text.partition("| reason | means | do |\n")[2].partition("\n\n")[0]
    named = {each for row in table.splitlines() for each in re.findall(r"`([a-z-]+)`", row.split("|")[1])}

    assert named == set(get_args(Reason))


def test_the_generator_s_own_examples():
    """
    The examples in the docstrings of what makes the reference are right.
    """
    results = doctest.testmod(reference)

    assert results.attempted
    assert not results.failed


def test_nothing_is_left_to_be_filled():
    """
    Every part that a page asks for is made, and every part that can be made is on a page.
    """
    asked = {
        name for path in DOCS.rglob("*.md") for name in re.findall(r"<!-- generated: ([\w-]+) -->", path.read_text())
    }

    assert asked == set(reference.PARTS)
