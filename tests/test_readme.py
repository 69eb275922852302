"""README.md, as far as a test can hold it to what it says."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from otel_introspect import environment_variables, semconv
from otel_introspect.config import FAULTHANDLER_IS_SAFER, PREFIX, SETTINGS
from otel_introspect.setting import problem, read, variables_of

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
VARIABLES = {name for name in vars(environment_variables) if name.startswith(PREFIX)}
FIELDS = {variable: (config, field) for config in SETTINGS for field, variable in variables_of(config).items()}


def rows(heading: str) -> dict[str, str]:
    """Each variable of the table below *heading*, with its default as it is written there."""
    section = README.split(f"\n### {heading}\n", 1)[1].split("\n#", 1)[0]
    return {
        PREFIX + name: default for name, default in re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", section, re.MULTILINE)
    }


IN_EFFECT = rows("In effect")


def test_every_variable_has_its_row():
    """
    The table names each variable of the package once, and no other.
    """
    assert sorted(IN_EFFECT) == sorted(VARIABLES)


@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_defaults_are_those_of_the_settings(variable):
    """
    A default in a table is what the setting reads as when nothing is set; words stand only for an empty one.
    """
    config, field = FIELDS[variable]
    default = next(each.default for each in dataclasses.fields(config) if each.name == field)
    literal = re.fullmatch(r"`([^`]+)`", IN_EFFECT[variable])
    written = literal[1] if literal else ""
    if field == "observers" and FAULTHANDLER_IS_SAFER:
        written += ",faulthandler"  # as the row says

    assert problem(config, variable, written) is None
    assert getattr(read(config, {variable: written}), field) == default
    assert bool(literal) == (default != "")


def test_no_variable_is_misspelt():
    """
    Every variable with our prefix that the text mentions exists.
    """
    assert set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", README)) <= VARIABLES


def test_every_attribute_and_event_is_named():
    """
    What can land on a span is in the table of it, by its whole name.
    """
    names = {value for constant, value in vars(semconv).items() if constant.isupper()}

    assert names <= set(re.findall(r"`([\w.]+)`", README))
