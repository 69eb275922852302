"""ARCHITECTURE.md, as far as a test can hold it to what it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))


def test_some_tests_are_named():
    """
    The pattern that finds the named tests finds a good number of them: an empty list would hold nothing.
    """
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "function"), sorted(set(NAMED)))
def test_each_named_test_exists(file, function):
    """
    A test that ARCHITECTURE.md names as the one that holds an invariant is there.
    """
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}

    assert function.startswith("test_")
    assert function in functions
