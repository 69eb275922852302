"""What the pages say can be done: commands, options, variables, extras, targets and links exist."""

from __future__ import annotations

import re
import shlex

import pytest
from django.conf import global_settings
from documents import DOCS, FENCE, PAGES, ROOT, anchors, commands, name_of, tool

from otel_introspect import environment_variables
from otel_introspect.cli import main
from otel_introspect.config import PREFIX

reference = tool("reference")
VARIABLES = {name for name in vars(environment_variables) if name.startswith(PREFIX)}
SOURCES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "otel_introspect").rglob("*.py"))
NAMES = set(re.findall(r'"(otel_introspect\.[a-z_.]+)"', SOURCES))
TEXTS = {name_of(page): reference.filled(page.read_text(encoding="utf-8")) for page in PAGES}
ROOT_PAGES = ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")
# The pages of the root are pages of the site, too.
MIRRORED = {
    f"docs/project/{name.lower()}.md": f"{name}.md"
    for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")
}
COMMANDS = commands()
COMMAND_IDS = [f"{page}: {command[:40]}" for page, command in COMMANDS]


def text_of(path):
    name = path.relative_to(ROOT).as_posix()
    return TEXTS.get(MIRRORED.get(name, name)) or (ROOT / MIRRORED.get(name, name)).read_text(encoding="utf-8")


def test_there_are_pages_and_commands():
    """
    The patterns that find pages and commands find a good number of them: empty lists would hold nothing.
    """
    assert len(PAGES) > 20
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("page", TEXTS)
def test_no_variable_is_misspelt(page):
    """
    Every variable with our prefix that a page mentions exists.
    """
    assert set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", TEXTS[page])) <= VARIABLES


@pytest.mark.parametrize("page", TEXTS)
def test_no_short_name_of_a_variable_is_misspelt(page):
    """
    Where a page leaves out the prefix, as in `WATCHDOG_THRESHOLD`, there is such a variable, or a setting of Django's.
    """
    families = {name.removeprefix(PREFIX).partition("_")[0] for name in VARIABLES} - {"MAX", "EXCLUDED"}
    short = set(re.findall(rf"`((?:{'|'.join(sorted(families))})_[A-Z_]*[A-Z])(?:=[^`]*)?`", TEXTS[page]))

    assert {PREFIX + each for each in short if not hasattr(global_settings, each)} <= VARIABLES


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_no_attribute_is_misspelt(page):
    """
    Every attribute, event, metric and logger of ours that a page names in a code span exists.
    """
    named = set(re.findall(r"`(otel_introspect\.[a-z_]+(?:\.[a-z_]+)*)(?:=\w+)?`", TEXTS[page]))
    modules = {each for each in named if (ROOT / each.replace(".", "/")).exists() or is_code(each)}

    assert named - modules <= NAMES


def is_code(name):
    """Whether *name* is a module of ours or a name in one."""
    path = ROOT / name.replace(".", "/")
    return (
        path.with_suffix(".py").exists() or name in reference.public_names() or path.parent.with_suffix(".py").exists()
    )


def parts_of(command):
    """The words of each program that a command line calls."""
    lexer = shlex.shlex(command.rstrip("\\ "), posix=True, punctuation_chars=";|&")
    lexer.whitespace_split = True
    parts = [[]]
    for word in lexer:
        if set(word) <= set(";|&"):
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=COMMAND_IDS)
def test_commands_exist(page, command):
    """
    A command of ours in a console block has that subcommand and those options; a target of make is there.
    """
    flags = {f"--{name.removeprefix('OTEL_PYTHON_').lower()}" for name in VARIABLES}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in parts_of(command):
        assert {word.partition("=")[0] for word in words if word.startswith(PREFIX)} <= VARIABLES
        assert {word for word in words if word.startswith("--introspect")} <= flags
        if words[:1] == ["make"]:
            assert words[1] in targets
        if "otel-introspect" in words:
            name, *rest = words[words.index("otel-introspect") + 1 :]
            options = {option for each in main.get_command(None, name).params for option in each.opts}
            assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= options | {"--help", "-h"}


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_extras_exist(page):
    """
    An extra that a page has somebody install is one of the distribution's.
    """
    section = (
        (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    )
    known = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    named = {each for extras in re.findall(r"otel-introspect\[([\w,]+)\]", TEXTS[page]) for each in extras.split(",")}

    assert named <= known


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_subcommands_in_the_text_exist(page):
    """
    A subcommand that is named in a sentence exists.
    """
    named = set(re.findall(r"`(?:sudo )?otel-introspect ([a-z]+)", TEXTS[page]))

    assert named <= set(main.list_commands(None))


@pytest.mark.parametrize(
    "page", [*TEXTS, *(f"{name}.md" for name in ROOT_PAGES), *map(name_of, ROOT.glob("[a-z]*/README.md"))]
)
def test_links_lead_somewhere(page):
    """
    A link to a file of ours leads to one, and the heading behind its ``#`` is there.
    """
    path = ROOT / MIRRORED.get(page, page)
    text = FENCE.sub("", text_of(path))
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(text_of(there))):
            dead.append(target)

    assert dead == []


def test_pictures_are_there_and_small():
    """
    Each picture that a page shows is committed, and none is larger than 200 kB.
    """
    shown = {
        (page.parent / each).resolve()
        for page in PAGES
        for each in re.findall(r"^!\[.+\]\((\S+)\)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    kept = {path for path in (DOCS / "pictures").iterdir() if path.suffix in {".svg", ".png"}}

    assert shown
    assert all(path.exists() for path in shown)
    assert {path.name: path.stat().st_size for path in kept if path.stat().st_size > 200_000} == {}


def test_pages_of_the_site_are_in_its_table_of_contents():
    """
    No page is there that nobody finds: each is named in the index, or in one of its patterns.
    """
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    entries = re.findall(
        r"^([a-z-]+(?:/[a-z*-]+)?)$", "".join(re.findall(r"```\{toctree\}.*?```", index, re.DOTALL)), re.MULTILINE
    )
    pages = [page.relative_to(DOCS) for page in PAGES if DOCS in page.parents and page.name != "index.md"]

    assert [page for page in pages if not any(page.with_suffix("").match(entry) for entry in entries)] == []


def test_the_readme_is_short():
    """
    The README stays a page that one finishes: what it is, how to see it, where to read on.
    """
    assert len(TEXTS["README.md"].splitlines()) <= 150
