"""What of dogslow, geordi, interruptingcow and django-timelimit a file has: settings, entries of lists, imports."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_introspect.cli.migration.constants import UNKNOWN, value_of
from otel_introspect.cli.migration.reading import Source

PACKAGES: Final = ("dogslow", "geordi", "interruptingcow", "django_timelimit")
PREFIXES: Final = ("DOGSLOW", "GEORDI_")
MIDDLEWARE: Final = ("dogslow.WatchdogMiddleware", "geordi.VisorMiddleware")
SWITCH: Final = "INTERRUPTINGCOW_DISABLE_TIMEOUTS"

_LOAD: Final = re.compile(rb"\{%-?[ \t]*load[ \t]([^%\n]{0,500})%\}")
_SLEEP: Final = re.compile(rb"\{%-?[ \t]*sleep[ \t]")
_MENTIONED: Final = re.compile(rb"dogslow|geordi|interruptingcow|timelimit", re.IGNORECASE)
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Place(NamedTuple):
    """A line of a file."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


class Setting(NamedTuple):
    """One assignment to a setting.

    Args:
        name: The setting's.
        value: What it is set to; ``UNKNOWN`` if only running the file would tell.
        place: Where.
        condition: In what it stands that may not be run; empty if the assignment is always made.
    """

    name: str
    value: object
    place: Place
    condition: str = ""


class Entry(NamedTuple):
    """A string in a list of middleware or applications."""

    text: str
    place: Place
    in_list: str


class Import(NamedTuple):
    """A line of code that imports one of the packages, or names its environment variable."""

    package: str
    names: tuple[str, ...]
    place: Place
    alias: str = ""


class Tag(NamedTuple):
    """A tag of a template: ``load`` or ``sleep``."""

    name: str
    place: Place


class NotPythonError(Exception):
    """A file is no Python; says why, and where."""


@dataclass
class Traces:
    """All that was found."""

    settings: list[Setting] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    imports: list[Import] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.settings or self.entries or self.imports or self.tags)

    def look(self, source: Source) -> None:
        """Add what *source* has.

        Raises:
            NotPythonError: If it can't be parsed.
        """
        if source.is_template:
            self.tags.extend(_tags(source))
        elif source.is_named or _MENTIONED.search(source.data):
            tree = _parsed(source)
            self.settings.extend(_settings(tree, source.path))
            self.entries.extend(_entries(tree, source.path))
            self.imports.extend(_imports(tree, source.path))

    def of(self, name: str) -> list[Setting]:
        """The assignments to one setting, from the last on that is always made, in the order in which they are made."""
        found = [each for each in self.settings if each.name == name]
        always = [at for at, each in enumerate(found) if not each.condition]
        return found[always[-1] :] if always else found


def _parsed(source: Source) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the file's own escapes, which are not our business
            return ast.parse(source.data)
    except SyntaxError as error:
        # Without the line's text: who knows what is in it.
        where = f"line {error.lineno}: " if error.lineno else ""
        why = f"{where}this is no Python that {_python()} can read ({_without_text(error.msg)})"
        raise NotPythonError(why) from None
    except (ValueError, RecursionError, MemoryError) as error:
        why = f"it can't be parsed ({type(error).__name__})"
        raise NotPythonError(why) from None


def _python() -> str:
    import sys

    return f"Python {sys.version_info.major}.{sys.version_info.minor}"


def _without_text(message: str) -> str:
    """The parser's message without what it quotes."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "...", message)


# --- Settings -------------------------------------------------------------------------------------------------------


def _settings(tree: ast.Module, path: str) -> Iterator[Setting]:
    names: dict[str, object] = {}
    for statement, condition in _statements(tree):
        for name, value, line in _assigned(statement, names):
            # What is assigned under a condition may be so or not.
            names[name] = UNKNOWN if condition else value
            if name.startswith(PREFIXES):
                yield Setting(name, value, Place(path, line), condition)


def _statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """The statements of a module but for those in functions, each with the innermost condition that it stands under."""
    waiting: list[tuple[ast.stmt, str]] = [(each, "") for each in reversed(tree.body)]
    while waiting:
        statement, condition = waiting.pop()
        yield statement, condition
        if isinstance(statement, _FUNCTIONS):
            continue
        inside = condition
        if isinstance(statement, ast.ClassDef):
            inside = f"the class {statement.name}"
        elif not isinstance(statement, (ast.With, ast.AsyncWith)):
            inside = f"the {type(statement).__name__.lower()} of line {statement.lineno}"
        waiting.extend((each, inside) for each in reversed(_blocks(statement)))


def _blocks(statement: ast.stmt) -> list[ast.stmt]:
    blocks: list[ast.stmt] = []
    for name in ("body", "handlers", "cases", "orelse", "finalbody"):
        for each in getattr(statement, name, ()):
            blocks.extend([each] if isinstance(each, ast.stmt) else each.body)
    return blocks


def _assigned(statement: ast.stmt, names: dict[str, object]) -> Iterator[tuple[str, object, int]]:
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            yield from _bound(target, statement.value, names)
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        yield from _bound(statement.target, statement.value, names)
    elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        sum_of_both = ast.BinOp(ast.Name(statement.target.id), statement.op, statement.value)
        yield statement.target.id, value_of(sum_of_both, names), statement.lineno
    elif isinstance(statement, ast.For):
        yield from _bound(statement.target, None, names)


def _bound(target: ast.expr, value: ast.expr | None, names: dict[str, object]) -> Iterator[tuple[str, object, int]]:
    if isinstance(target, ast.Name):
        yield target.id, UNKNOWN if value is None else value_of(value, names), target.lineno
    elif isinstance(target, (ast.Tuple, ast.List)):
        values: list[ast.expr | None] = [None] * len(target.elts)
        if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts):
            values = list(value.elts)
        for each, part in zip(target.elts, values, strict=True):
            if isinstance(each, ast.Name):
                yield each.id, UNKNOWN if part is None else value_of(part, names), each.lineno


# --- Lists of middleware and applications ---------------------------------------------------------------------------


def _entries(tree: ast.Module, path: str) -> Iterator[Entry]:
    for statement, _condition in _statements(tree):
        if isinstance(statement, _FUNCTIONS) or _blocks(statement):
            continue
        nodes = list(ast.walk(statement))
        lists = [
            each.id for each in nodes if isinstance(each, ast.Name) and ("MIDDLEWARE" in each.id or "APPS" in each.id)
        ]
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                is_middleware = node.value in MIDDLEWARE
                if is_middleware or (node.value in PACKAGES and any("APPS" in each for each in lists)):
                    yield Entry(node.value, Place(path, node.lineno), lists[0] if lists else "a list")


# --- Code -----------------------------------------------------------------------------------------------------------


def _imports(tree: ast.Module, path: str) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                package = each.name.partition(".")[0]
                if package in PACKAGES:
                    yield Import(package, (), Place(path, node.lineno), each.asname or "")
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            package = node.module.partition(".")[0]
            if package in PACKAGES:
                names = tuple(f"{each.name} as {each.asname}" if each.asname else each.name for each in node.names)
                yield Import(package, names, Place(path, node.lineno))
        elif isinstance(node, ast.Constant) and node.value == SWITCH:
            yield Import(SWITCH, (), Place(path, node.lineno))


# --- Templates ------------------------------------------------------------------------------------------------------


def _tags(source: Source) -> Iterator[Tag]:
    loads = [found for found in _LOAD.finditer(source.data) if b"timelimit" in found[1].split()]
    sleeps = list(_SLEEP.finditer(source.data)) if loads else []
    for name, all_found in (("load", loads), ("sleep", sleeps)):
        for found in all_found:
            yield Tag(name, Place(source.path, source.data.count(b"\n", 0, found.start()) + 1))
