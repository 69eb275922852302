"""What the code knows about itself, as Markdown: variables, attributes, events, commands, public names, entry points.

The pages of ``docs/reference/`` have ``<!-- generated: NAME -->`` and ``<!-- end -->`` around what stands for such a
part; ``docs/conf.py`` puts it there as the documentation is built, and a test looks at the same text. So none of it is
written by hand, and what is added to the code is in the reference without being asked for. Nothing here needs Sphinx.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import click

import otel_introspect
from otel_introspect import cli, environment_variables, semconv
from otel_introspect.config import PREFIX, SETTINGS, option_of
from otel_introspect.setting import problem, variables_of

ROOT: Final = Path(__file__).resolve().parent.parent
HELP_WIDTH: Final = 78
_MARK: Final = re.compile(r"^<!-- generated: ([a-z-]+) -->$.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
_DEFAULT: Final = re.compile(r"\s*Default:\s+(.*)", re.DOTALL)
# Each is refused by some parser: together they have every parser say what it expects.
_NO_VALUES: Final = ("?", "(", "-1", "x" * 5000)
# The middleware that a user of another framework names in code; those of Django put themselves in.
_MIDDLEWARE: Final = ("otel_introspect.instrumentation.wsgi", "otel_introspect.instrumentation.asgi")
# What a public name returns is public, too.
_RETURNED: Final = ("otel_introspect.profiles.Profile",)


class Variable(NamedTuple):
    """One environment variable, as the reference shows it.

    Args:
        name: Its whole name.
        meaning: What its constant's docstring says, without the default.
        value: What it takes.
        default: What is in force without it, as one would write it; words where that is nothing.
        said: What its docstring says about the default.
    """

    name: str
    meaning: str
    value: str
    default: str
    said: str


def documented(module: ModuleType) -> dict[str, str]:
    """The docstring below each constant of *module*, by the constant's name; empty where there is none.

    >>> documented(semconv)["SNAPSHOTS"]
    'int: how many snapshots the span carries.'
    """
    found: dict[str, str] = {}
    last = ""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            last = target.id if isinstance(target, ast.Name) else ""
            if last.isupper():
                found[last] = ""
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and last.isupper():
            found[last] = " ".join(str(node.value.value).split()).replace("``", "`")
            last = ""
        else:
            last = ""
    return found


def as_written(value: object) -> str:
    """A setting's value as one would write it into a variable.

    >>> as_written(("thread", "signal")), as_written(False), as_written(0.0)
    ('thread,signal', 'false', '0')
    """
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def expected(settings: type[Any], variable: str) -> str:
    """What *variable* takes, in the words of its own parser's complaint.

    >>> from otel_introspect.config import WatchdogConfig
    >>> expected(WatchdogConfig, "OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD")
    'a whole number of 0 at least'
    """
    complaints = (problem(settings, variable, each) for each in _NO_VALUES)
    complaint = next(filter(None, complaints), "")
    if complaint.startswith("neither "):
        return complaint.removeprefix("neither ").replace(" nor ", " or ")
    words = re.sub(r" \([^)]*: .*\)$", "", complaint).removeprefix("not ").replace(", nor ", ", or ")
    return words.replace("one of", "one of the words").replace("a list of", "a comma-separated list of") or "any text"


def variables() -> dict[str, list[Variable]]:
    """All variables, by what they are for."""
    said = {name: text for name, text in documented(environment_variables).items() if name.startswith(PREFIX)}
    groups: dict[str, list[Variable]] = {}
    for settings in SETTINGS:
        defaults = {each.name: each.default for each in dataclasses.fields(settings)}
        title = (inspect.getdoc(settings) or settings.__name__).splitlines()[0]
        for field, name in variables_of(settings).items():
            groups.setdefault(title, []).append(
                _variable(name, said.pop(name, ""), expected(settings, name), as_written(defaults[field]))
            )
    # What is no field of a setting is documented all the same.
    for name, text in said.items():
        groups.setdefault("Others.", []).append(_variable(name, text, "any text", ""))
    return groups


def _variable(name: str, text: str, value: str, default: str) -> Variable:
    found = _DEFAULT.search(text)
    said = found[1].strip() if found else ""
    meaning = text[: found.start()].strip() if found else text
    return Variable(
        name=name,
        meaning=meaning,
        value=value,
        default=f"`{default}`" if default else said.rstrip(".") or "unset",
        said=said,
    )


def environment_variables_page() -> str:
    """A table of all variables, then a section for each."""
    groups = variables()
    lines = ["| variable | default | in a sentence |", "|---|---|---|"]
    lines += [
        f"| [`{each.name.removeprefix(PREFIX)}`](#{each.name.lower()}) | {_cell(each.default)} | {_in_brief(each)} |"
        for group in groups.values()
        for each in group
    ]
    for title, group in groups.items():
        lines += ["", f"## {title.rstrip('.')}"]
        for each in group:
            option = option_of(each.name)
            lines += ["", f"### {each.name}", "", each.meaning, ""]
            lines += [f"- takes {each.value}", f"- default: {each.said.rstrip('.') or each.default}"]
            lines.append(f"- elsewhere: flag `--introspect_{option}`, keyword and key `{option}`")
    return "\n".join(lines)


class _Attribute(NamedTuple):
    name: str
    kind: str
    meaning: str


def attributes() -> dict[str, dict[str, list[_Attribute]]]:
    """Section of ``semconv`` -> event, empty for the span itself -> its attributes."""
    texts = documented(semconv)
    sections: dict[str, dict[str, list[_Attribute]]] = {}
    title, event = "", ""
    for line in inspect.getsource(semconv).splitlines():
        if line.startswith("# "):
            title, event = line.removeprefix("# ").rstrip("."), ""
        found = re.match(r"([A-Z_]+): Final = ", line)
        if not found:
            continue
        constant, value = found[1], getattr(semconv, found[1])
        if constant.endswith("_EVENT"):
            event = value
            sections.setdefault(title, {}).setdefault(event, [])
            continue
        kind, _, meaning = texts[constant].partition(": ")
        attribute = _Attribute(value, kind.replace("[]", " array"), meaning.rstrip("."))
        sections.setdefault(title, {}).setdefault(event, []).append(attribute)
    return sections


def events_page() -> str:
    """A section for each group of attributes and each event."""
    lines: list[str] = []
    for title, events in attributes().items():
        lines += [f"## {title}", ""]
        for event, names in events.items():
            if event:
                lines += [f"### `{event}`", ""]
            lines += ["| attribute | type | meaning |", "|---|---|---|"]
            lines += [
                f"| `{each.name}` | {each.kind.replace('[]', ' array')} | {_cell(each.meaning)} |" for each in names
            ]
            lines.append("")
    return "\n".join(lines)


def _in_brief(variable: Variable) -> str:
    return _cell(re.split(r"(?<=[^.])\. ", variable.meaning)[0].rstrip("."))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands() -> dict[str, click.Command]:
    """Each subcommand, loaded."""
    context = click.Context(cli.main, info_name="otel-introspect")
    found = {name: cli.main.get_command(context, name) for name in cli.main.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def cli_page() -> str:
    """What each command says about itself, as ``--help`` prints it."""
    lines: list[str] = []
    parent = click.Context(cli.main, info_name="otel-introspect")
    for name, command in commands().items():
        context = click.Context(
            command,
            info_name=name,
            parent=parent,
            max_content_width=HELP_WIDTH,
            terminal_width=HELP_WIDTH,
            help_option_names=["-h", "--help"],
        )
        lines += [f"## otel-introspect {name}", "", "```text", command.get_help(context).rstrip(), "```", ""]
    return "\n".join(lines)


def public_names() -> list[str]:
    """The public names, by where they are imported from."""
    names = [f"{otel_introspect.__name__}.{name}" for name in otel_introspect.__all__ if name[0] != "_"]
    names += _RETURNED
    for module in _MIDDLEWARE:
        names += [f"{module}.{name}" for name in import_module(module).__all__ if name.endswith("Middleware")]
    return names


def api_page() -> str:
    """A directive of autodoc for each public name."""
    lines: list[str] = []
    for name in public_names():
        module, _, attribute = name.rpartition(".")
        it = getattr(import_module(module), attribute)
        kind = "function"
        if isinstance(it, type):
            kind = "exception" if issubclass(it, BaseException) else "class"
        lines += [f"## {name}", "", "```{eval-rst}", f".. auto{kind}:: {name}"]
        lines += ["   :members:"] if kind == "class" else []
        lines += ["```", ""]
    return "\n".join(lines)


def entry_points_page() -> str:
    """A section for each group of entry points."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for each in sorted(distribution("otel-introspect").entry_points, key=lambda each: each.name):
        groups.setdefault(each.group, []).append((each.name, each.value))
    lines: list[str] = []
    for group, points in sorted(groups.items()):
        lines += [f"## {group}", ""]
        for name, value in points:
            lines += [f"`{name}`, which is `{value}`", f": {_first_sentence(value)}", ""]
    return "\n".join(lines)


def _first_sentence(value: str) -> str:
    module, _, attribute = value.partition(":")
    try:
        it = import_module(module)
        doc = inspect.getdoc(getattr(it, attribute) if attribute else it) or ""
    except ImportError:
        return ""
    if attribute == "main" and isinstance(getattr(it, attribute), click.Command):
        doc = getattr(it, attribute).help or ""
    return " ".join(doc.partition("\n\n")[0].split())


def reasons() -> dict[str, list[str]]:
    """Why evidence was dropped or refused, as the code counts it; what is filled in as it runs is an ellipsis."""
    found: dict[str, set[str]] = {"dropped": set(), "refused": set()}
    for path in (ROOT / "otel_introspect").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and len(node.args) > 1):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            kind, reason = node.args[:2]
            if name == "count" and isinstance(kind, ast.Constant) and kind.value in found:
                parts = reason.values if isinstance(reason, ast.JoinedStr) else [reason]
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
                found[str(kind.value)].add(text)
    return {kind: sorted(texts - {"…"}) for kind, texts in found.items()}


def reasons_page() -> str:
    """A table of the reasons."""
    lines = ["| outcome | reason |", "|---|---|"]
    lines += [f"| {kind} | {_cell(text)} |" for kind, texts in reasons().items() for text in texts]
    return "\n".join(lines)


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "environment-variables": environment_variables_page,
    "events": events_page,
    "cli": cli_page,
    "api": api_page,
    "entry-points": entry_points_page,
    "reasons": reasons_page,
}


def filled(page: str) -> str:
    """*page* with its generated parts in place.

    Raises:
        KeyError: If it asks for a part that there is not.
    """
    return _MARK.sub(lambda found: PARTS[found[1]](), page)


def pages() -> Iterator[tuple[Path, str]]:
    """Each page of the documentation, with its generated parts in place."""
    for path in sorted((ROOT / "docs").rglob("*.md")):
        if "_build" not in path.parts:
            yield path, filled(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for wanted in sys.argv[1:] or PARTS:
        print(PARTS[wanted](), end="\n\n")
