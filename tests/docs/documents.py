"""The pages that a user reads: the README and everything below ``docs/``, and the tools that make and follow them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)])
FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})(?P<language>[^\n`]*)\n(?P<body>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.+)$", re.MULTILINE)


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def tool(name):
    """A script of ``tools/``, which is no package."""
    known = f"tools_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, ROOT / "tools" / f"{name}.py")
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


def commands():
    """Each command in a console block of a page, with the name of its page."""
    return [
        (name_of(page), command)
        for page in PAGES
        for fence in FENCE.finditer(page.read_text(encoding="utf-8"))
        if fence["language"].strip() == "console"
        for command in COMMAND.findall(fence["body"])
    ]


def anchors(text):
    """What a link may name behind ``#``: the headings, as MyST and the usual hosts spell them."""
    without_code = FENCE.sub("", text)
    headings = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
