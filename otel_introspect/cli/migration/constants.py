"""What an expression of a settings file comes to, as far as that can be said without running it."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final


class Unknown:
    """An expression whose value depends on what is not in the file, or that only running it would tell."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()

_MAX_DEPTH: Final = 40
_MAX_LENGTH: Final = 10_000
_MAX_NUMBER: Final = 1e18
_ARITHMETIC: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_CASTS: Final[Mapping[str, Callable[[Any], Any]]] = {"int": int, "float": float, "str": str}
# A name like these is not followed, so that no secret is shown for a setting that was made of it.
_SECRET: Final = re.compile("pass|secret|key|token|credential", re.IGNORECASE)


def value_of(node: ast.expr, names: Mapping[str, object], depth: int = 0) -> object:
    """The value of an expression; ``UNKNOWN`` if it is not made of literals, *names* and plain arithmetic.

    Args:
        node: The expression.
        names: The values of names that have been assigned to before.
        depth: How many expressions this one stands in.

    >>> value_of(ast.parse("30 * 1000", mode="eval").body, {})
    30000
    """
    if depth > _MAX_DEPTH:
        return UNKNOWN
    try:
        return _bounded(_value(node, names, depth + 1))
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return UNKNOWN


def _value(node: ast.expr, names: Mapping[str, object], depth: int) -> object:
    value: object = UNKNOWN
    if isinstance(node, ast.Constant):
        value = node.value
    elif isinstance(node, ast.Name):
        value = UNKNOWN if _SECRET.search(node.id) else names.get(node.id, UNKNOWN)
    elif isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        elements = [value_of(each, names, depth) for each in node.elts]
        value = UNKNOWN if UNKNOWN in elements else elements
    elif isinstance(node, ast.UnaryOp):
        value = _unary(node.op, value_of(node.operand, names, depth))
    elif isinstance(node, ast.BinOp):
        value = _binary(node.op, value_of(node.left, names, depth), value_of(node.right, names, depth))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
        value = _cast(node.func.id, value_of(node.args[0], names, depth))
    return value


def _unary(operation: ast.unaryop, value: object) -> object:
    if value is UNKNOWN:
        return UNKNOWN
    if isinstance(operation, ast.Not):
        return not value
    if isinstance(value, (int, float)) and isinstance(operation, (ast.USub, ast.UAdd)):
        return -value if isinstance(operation, ast.USub) else +value
    return UNKNOWN


def _binary(operation: ast.operator, left: object, right: object) -> object:
    """Numbers among each other; texts and lists are only put together: ``"x" * 10**9`` would take the memory."""
    are_numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
    are_alike = isinstance(operation, ast.Add) and isinstance(left, (str, list)) and type(left) is type(right)
    apply = _ARITHMETIC.get(type(operation))
    return UNKNOWN if apply is None or not (are_numbers or are_alike) else apply(left, right)


def _cast(name: str, value: object) -> object:
    cast = _CASTS.get(name)
    return UNKNOWN if cast is None or not isinstance(value, (int, float, str)) else cast(value)


def _bounded(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return value if abs(value) <= _MAX_NUMBER else UNKNOWN
    if isinstance(value, (str, list)):
        return value if len(value) <= _MAX_LENGTH else UNKNOWN
    return value if value is None else UNKNOWN
