"""The constants that become flags of the launcher."""

from __future__ import annotations

import ast
import inspect

import pytest

from otel_introspect import environment_variables
from otel_introspect.config import PREFIX, SETTINGS
from otel_introspect.setting import variables_of

TREE = ast.parse(inspect.getsource(environment_variables))
CONSTANTS = {name: value for name, value in vars(environment_variables).items() if name.startswith("OTEL_")}


def test_it_imports_nothing():
    """
    A name borrowed from elsewhere would become a second flag, and the launcher would not start.
    """
    assert not [node for node in ast.walk(TREE) if isinstance(node, (ast.Import, ast.ImportFrom))]


def test_names_are_values():
    """
    Each constant is called what it says, and starts with our prefix.
    """
    assert CONSTANTS
    for name, value in CONSTANTS.items():
        assert name == value
        assert name.startswith(PREFIX)


def test_nothing_else_is_in_there():
    """
    Beside the constants the module has only what every module has.
    """
    assert [name for name in vars(environment_variables) if not name.startswith("__")] == list(CONSTANTS)


@pytest.mark.parametrize("name", CONSTANTS)
def test_each_is_documented(name):
    """
    Each constant is followed by a docstring that ends with a full stop and says what happens without it.
    """
    (position,) = (
        place
        for place, node in enumerate(TREE.body)
        if isinstance(node, ast.Assign) and node.targets[0].id == name  # type: ignore[attr-defined]
    )
    after = TREE.body[position + 1]

    assert isinstance(after, ast.Expr)
    assert isinstance(after.value, ast.Constant)
    documented = " ".join(after.value.value.split())
    assert documented.endswith(".")
    assert any(word in documented for word in ("Default: ", "Unset: "))


def test_each_has_a_field():
    """
    Each constant is the variable of exactly one field, and the other way round.
    """
    variables = [variable for config in SETTINGS for variable in variables_of(config).values()]

    assert sorted(variables) == sorted(CONSTANTS)
